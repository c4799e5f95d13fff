"""The README and the pages of `docs`, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

from ..tiny import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


def blocks(text: str, language: str) -> list[str]:
    """The code of every fenced block of a language."""
    return [code for found, code in _FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of links and pictures."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), flags=re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.add(words)
    return found


def commands(text: str) -> list[str]:
    """Every command line shown: lines of shell blocks, and code in the text that begins as one."""
    lines = [line for code in blocks(text, "bash") for line in code.splitlines()]
    lines += [code for code in _CODE.findall(prose(text)) if code.startswith(("python -m ", "pip-studio "))]
    parts = [part for line in lines for part in re.sub(r"\s#.*", "", line).split(" && ")]
    return [part.strip() for part in parts if part.strip()]


def options(text: str) -> set[str]:
    """Every `--option` named outside of command lines."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(_CODE.findall(prose(text)))))


def source_of(module: str) -> Path | None:
    """The file of a module of this repository that is run with `python -m`."""
    place = ROOT.joinpath(*module.split("."))
    found = [p for p in (place / "__main__.py", place.with_suffix(".py")) if p.is_file()]
    return found[0] if found else None
