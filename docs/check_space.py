"""Check that this repository is a Space that the Hub takes: run `python docs/check_space.py`.

The Hub reads the fields at the top of README.md, and says what is wrong only when they are pushed. The fields
and values are those of https://huggingface.co/docs/hub/spaces-config-reference, the versions of ZeroGPU
those of https://huggingface.co/docs/hub/spaces-zerogpu, both as of August 2026. The network is not used.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
# The versions that ZeroGPU lists.
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
ZERO_GPU_PYTHON = ("3.10", "3.12")
LONGEST_DESCRIPTION = 60
# A larger file is stored outside of git, which a plain push does not do.
LARGEST_FILE = 10_000_000
# The Hub's identifier of the licence in LICENSE, and words of that file.
LICENCE, LICENCE_WORDS = "apache-2.0", "Apache License"
# Of the scopes that a signed-in visitor can be asked for, the least that lets a result be pushed.
SCOPES = ("contribute-repos",)
# What the owner of a Space may add, so that its visitors can prune private models of theirs.
MORE_SCOPES = ("read-repos",)


def faults(root: Path = ROOT) -> list[str]:
    """What the Hub, or the Space's start, would refuse; a sentence each.

    Args:
        root: folder of the repository.
    """
    fields = front_matter((root / "README.md").read_text(encoding="utf-8"))
    if isinstance(fields, str):
        return [fields]
    found = [f"{name} is missing." for name in REQUIRED if name not in fields]
    for name, value in fields.items():
        check = CHECKS.get(str(name))
        if check is None:
            found.append(f"{name} is not a field that the Hub knows.")
        elif wrong := check(value, root):
            found.append(f"{name} {wrong}")
    return [*found, *_signing_in(fields, root), *_torch(root), *_large_files(root)]


def front_matter(text: str) -> dict | str:
    """The fields at the top of a README, or what is wrong with them in a sentence."""
    matched = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if matched is None:
        return "README.md does not begin with fields between two lines of '---'."
    try:
        fields = yaml.safe_load(matched[1])
    except yaml.YAMLError as error:
        return f"The fields of README.md are not YAML: {error}"
    return fields if isinstance(fields, dict) else "The fields of README.md are no list of names and values."


def _one_of(*allowed: str) -> Callable[[object, Path], str]:
    return lambda value, _: "" if value in allowed else f"is none of {', '.join(allowed)}."


def _matches(pattern: str, what: str) -> Callable[[object, Path], str]:
    return lambda value, _: (
        "" if isinstance(value, str) and re.fullmatch(pattern, value) else f"is not {what}."
    )


def _description(value: object, _: Path) -> str:
    fits = isinstance(value, str) and 0 < len(value) <= LONGEST_DESCRIPTION
    return "" if fits else f"is not a text of at most {LONGEST_DESCRIPTION} characters."


def _sdk_version(value: object, root: Path) -> str:
    """The Space installs exactly this version of gradio, before the requirements."""
    required = requirement("gradio", root)
    if not isinstance(value, str) or not re.fullmatch(r"\d+\.\d+\.\d+", value):
        return "is not a full version between quotation marks, such as 6.31.0."
    return "" if required.specifier.contains(value) else f"is not in '{required}' of requirements.txt."


def _python_version(value: object, root: Path) -> str:
    if value not in ZERO_GPU_PYTHON:
        return f"is none that ZeroGPU has ({', '.join(ZERO_GPU_PYTHON)}, between quotation marks)."
    stated = re.search(r'^requires-python = "(.+)"', (root / "pyproject.toml").read_text("utf-8"), re.M)
    if stated is None or not Requirement(f"python{stated[1]}").specifier.contains(f"{value}.0"):
        return "does not agree with requires-python in pyproject.toml."
    return ""


def _file(value: object, root: Path) -> str:
    return "" if isinstance(value, str) and (root / value).is_file() else "is no file of this repository."


def _repositories(value: object, _: Path) -> str:
    try:
        for name in value if isinstance(value, list) else [None]:
            validate_repo_id(name)
    except (HFValidationError, TypeError):
        return "is not a list of ids on the Hub."
    return ""


def _words(value: object, _: Path) -> str:
    fits = isinstance(value, list) and value and all(isinstance(word, str) and word for word in value)
    return "" if fits else "is not a list of words."


def _licence(value: object, root: Path) -> str:
    if value != LICENCE or LICENCE_WORDS not in (root / "LICENSE").read_text(encoding="utf-8"):
        return f"is not '{LICENCE}', or the file LICENSE says otherwise."
    return ""


def _truth(value: object, _: Path) -> str:
    return "" if isinstance(value, bool) else "is neither true nor false."


def _scopes(value: object, _: Path) -> str:
    asked = [name for name in value if name not in MORE_SCOPES] if isinstance(value, list) else None
    return "" if asked == list(SCOPES) else f"asks for more or less than {', '.join(SCOPES)}."


CHECKS: dict[str, Callable[[object, Path], str]] = {
    "title": _matches(r"\S(.*\S)?", "a text"),
    # No letter, digit or sign of ASCII: pictures, and what joins or varies them.
    "emoji": _matches(r"[\u200d\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]+", "an emoji alone"),
    "colorFrom": _one_of(*COLOURS),
    "colorTo": _one_of(*COLOURS),
    "sdk": _one_of("gradio"),
    "sdk_version": _sdk_version,
    "python_version": _python_version,
    "app_file": _file,
    "short_description": _description,
    "thumbnail": _matches(r"https://\S+", "an address that begins with https://"),
    "models": _repositories,
    "datasets": _repositories,
    "tags": _words,
    "license": _licence,
    "pinned": _truth,
    "hf_oauth": _truth,
    "hf_oauth_scopes": _scopes,
    "startup_duration_timeout": _matches(r"[1-9]\d*[mh]", "a duration such as 30m or 1h"),
}
# A thumbnail is an address below the Space's own, which only its owner can know.
REQUIRED = [
    name for name in CHECKS if name not in ("thumbnail", "datasets", "pinned", "hf_oauth", "hf_oauth_scopes")
]


def requirement(name: str, root: Path = ROOT) -> Requirement:
    """What requirements.txt says of a package."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return next(required for required in found if required.name == name)


def _signing_in(fields: dict, root: Path) -> Iterator[str]:
    """A button to sign in needs an application on the Hub behind it, and the other way round."""
    sources = [root / "app.py", *(root / "pip_core" / "ui" / "parts").glob("*.py")]
    button = any("LoginButton" in source.read_text(encoding="utf-8") for source in sources)
    if button != bool(fields.get("hf_oauth")):
        yield "hf_oauth must be true exactly if the page has a LoginButton."
    if "hf_oauth_scopes" in fields and not fields.get("hf_oauth"):
        yield "hf_oauth_scopes means nothing without hf_oauth."


def _torch(root: Path) -> Iterator[str]:
    required = requirement("torch", root)
    for version in ZERO_GPU_TORCH:
        if not required.specifier.contains(version):
            yield f"requirements.txt does not allow torch {version}, which ZeroGPU has."


def _large_files(root: Path) -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if path.is_file() and path.stat().st_size > LARGEST_FILE:
            yield f"{name} is larger than {LARGEST_FILE / 1e6:.0f} MB."


if __name__ == "__main__":
    wrong = faults()
    print("\n".join(wrong) or "This repository is a Space that the Hub takes.")
    sys.exit(1 if wrong else 0)
