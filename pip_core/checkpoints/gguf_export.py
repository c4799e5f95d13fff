"""An exported model as a GGUF file, as llama.cpp reads it: made by llama.cpp's own converter, and checked.

The package auto-round ships the converter; `PIP_STUDIO_LLAMA_CPP` names a folder of llama.cpp's sources to
take it from instead. It is run in a process of its own (`gguf_convert`), and writes weights in float16, or in
8 bits in blocks of 32 with a scale each.

It looks up how a tokenizer splits text by a hash of a sample's token ids, and so refuses a tokenizer from
which tokens were removed. For such a model it is told the entry of the dense model's tokenizer, which splits
alike.

What was made is loaded back by transformers, in another process, and compared with the model: the same tokens
for the same texts, and the logits of its weights as the file rounds them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.disk_use import bytes_of
from ..core.environment import child_environment
from ..core.errors import UserError, shortened
from ..core.events import Loading
from ..core.figures import percent
from ..core.limits import limits
from ..core.network import NotDownloaded, without_downloads
from ..core.progress import drain
from .folder import raw_config
from .load import resolve
from .nonuniform import is_nonuniform

VARIABLE = "PIP_STUDIO_LLAMA_CPP"
# The package that ships the converter, and where in it; in llama.cpp's sources it is at their top.
PACKAGE, WITHIN = "auto_round", Path("export", "export_to_gguf")
CONVERTER = Path("conversion", "__init__.py")
NO_CONVERTER = (
    "A GGUF file needs llama.cpp's own converter, which is not on this machine. It comes with the package "
    f"auto-round (Python 3.11 or later): 'pip install auto-round'. Or set {VARIABLE} to a folder of "
    "llama.cpp's sources."
)
# Formats of a file, and how people call them.
FLOAT16, EIGHT_BITS = "f16", "q8_0"
FORMATS = {FLOAT16: "float16", EIGHT_BITS: "8 bits, Q8_0"}
# Model type -> the field that lists its blocks' kinds, and the order that llama.cpp takes for granted, which
# begins anew after its last block.
_SLIDING, _FULL = "sliding_attention", "full_attention"
ORDERED: dict[str, tuple[str, tuple]] = {
    "gemma2": ("layer_types", (_SLIDING, _FULL)),
    "gemma3_text": ("layer_types", (*[_SLIDING] * 5, _FULL)),
    "cohere2": ("layer_types", (*[_SLIDING] * 3, _FULL)),
    "smollm3": ("no_rope_layers", (1, 1, 1, 0)),
}
# In what the converter says of a tokenizer whose hash it does not know.
UNKNOWN_SPLITTING = "pre-tokenizer was not recognized"
# A share of weights that is worth a sentence.
AT_LEAST = 0.01
# Of the largest logit: the converter rounds as this project does, but computes in another order.
ALLOWED = 2**-12
CONVERT, CHECK = ("-m", "pip_core.checkpoints.gguf_convert"), ("-m", "pip_core.checkpoints.gguf_check")
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Converted:
    """A GGUF file that was made and checked.

    Attributes:
        format: one of FORMATS.
        largest_difference: of the logits, between it and the model with weights rounded as in the file.
        same_choice: share of the places in the texts of the check where its most likely token is that of the
            model as it is.
        aside: share of its weights that are not in 8 bits, where the others are.
    """

    file: Path
    format: str
    bytes: int
    largest_difference: float
    same_choice: float
    aside: float

    def sentence(self) -> str:
        """What was found of it."""
        said = (
            f"{self.bytes / 1e6:.0f} MB, in {FORMATS[self.format]}. Loaded back, it splits texts as the "
            f"model does, and its logits are those of the rounded weights (largest difference "
            f"{self.largest_difference:.0e}); its most likely next token is the model's in "
            f"{percent(self.same_choice)} of the places that were looked at."
        )
        if self.format == EIGHT_BITS and self.aside > AT_LEAST:
            said += (
                f" {percent(self.aside, 0)} of its weights are not in 8 bits: most of them have a width that "
                "is no multiple of 32."
            )
        return said


def converter() -> Path:
    """The folder that holds llama.cpp's converter, which is not imported.

    Raises:
        UserError: there is none.
    """
    if named := os.environ.get(VARIABLE):
        folder = Path(named).expanduser()
        if not (folder / CONVERTER).is_file():
            raise UserError(
                f"{VARIABLE} is '{named}', where there is no {CONVERTER}. It names a folder of llama.cpp's "
                "sources, of 2026 or later."
            )
        return folder
    package = importlib.util.find_spec(PACKAGE)
    for place in (package and package.submodule_search_locations) or ():
        if (Path(place, WITHIN) / CONVERTER).is_file():
            return Path(place, WITHIN)
    raise UserError(NO_CONVERTER)


def write_gguf(
    model: Path, target: Path, teller: Generator[Loading, None, Path | None], format: str = FLOAT16
) -> Generator[Loading, None, Converted]:
    """Convert the exported model in `model` to the file `target`, and check it.

    Args:
        teller: finds whose tokenizer the converter is told, see `teller_of`; it begins once nothing else
            speaks against a conversion.
        format: one of FORMATS.

    Raises:
        UserError: there is no converter, the model is not an ordinary checkpoint, the converter refuses it,
            or what it made is not the same model.
    """
    sources = converter()
    if is_nonuniform(model):
        raise UserError(
            "No plain config describes this model's shape, so that llama.cpp could not read it. Remove the "
            "same number of units from every block to get one that it reads."
        )
    refuse_other_order(json.loads((model / "config.json").read_text(encoding="utf-8")))
    told = yield from teller
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
        made = Path(place, "converted.gguf")
        yield from _run(
            [*CONVERT, str(model.resolve()), str(made), format, *([str(told)] if told else [])],
            "converting to GGUF",
            Path(place),
            # Sources bring the package gguf that they need.
            PYTHONPATH=os.pathsep.join((str(sources / "gguf-py"), str(sources))),
            total=size if format == FLOAT16 else size // 2,
        )
        check = [*CHECK, str(model.resolve()), str(made), format]
        found = json.loads((yield from _run(check, "loading the GGUF file back", Path(place))))
        _judge(found)
        made.replace(target)
    return Converted(
        target,
        format,
        target.stat().st_size,
        found["largest_difference"],
        found["same_choice"],
        found["aside"],
    )


def refuse_other_order(config: Mapping[str, Any]) -> None:
    """Refuse blocks of two kinds in another order than llama.cpp takes for granted.

    It tells the kinds of these families apart by a block's number alone, and the file has no place for
    another order, so that a model without some of its blocks would answer wrongly without a word.

    Args:
        config: contents of the model's `config.json`.

    Raises:
        UserError: the order is another one.
    """
    field, period = ORDERED.get(config.get("model_type", ""), ("", ()))
    kinds = config.get(field)
    if isinstance(kinds, list) and any(kind != period[n % len(period)] for n, kind in enumerate(kinds)):
        raise UserError(
            f"llama.cpp takes every {len(period)}th block of this family for one of another kind ({field}), "
            "and here they come in another order, because some were removed. It would answer wrongly. Remove "
            f"channels or heads instead, or {len(period)} blocks in a row that begin anywhere."
        )


def _judge(found: dict) -> None:
    if not found["alike"]:
        raise UserError("The GGUF file splits texts in another way than the model. It was not kept.")
    if not found["largest_difference"] <= ALLOWED * found["largest"]:
        raise UserError(
            f"The GGUF file answers differently: logits differ by {found['largest_difference']:.2e}, where "
            f"the largest is {found['largest']:.1f}. It was not kept."
        )


def teller_of(model: Path, reference: str) -> Generator[Loading, None, Path | None]:
    """The folder of the dense model, whose tokenizer tells the converter how that of `model` splits texts.

    It is None where no token was removed. A dense model that is not on this machine is downloaded.

    Args:
        reference: of the dense model.

    Raises:
        UserError: as `load.resolve`.
    """
    dense = (yield from resolve(reference)).folder
    return dense if raw_config(model)["vocab_size"] < raw_config(dense)["vocab_size"] else None


def teller_here(model: Path, reference: str) -> Path | None:
    """As `teller_of`, for a process that looks at what strangers name: nothing is downloaded.

    Raises:
        UserError: as `load.resolve`, or the dense model is not on this machine any more.
    """
    try:
        with without_downloads():
            return drain(teller_of(model, reference))
    except NotDownloaded:
        raise UserError(
            f"A GGUF file is made with the tokenizer of '{reference}', which is not on this machine any "
            "more. Download the model of the run, and use 'pip-studio gguf RUN' where both models can be had."
        ) from None


def _run(
    command: Sequence[str], what: str, place: Path, total: int = 0, **environment: str
) -> Generator[Loading, None, str]:
    """Run Python with `command`, and return the last line that it printed.

    Raises:
        UserError: it fails, or takes longer than a verification may.
    """
    out, err = place / "out", place / "err"
    given = child_environment()
    paths = (environment.get("PYTHONPATH"), given["PYTHONPATH"])
    given |= {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    left = limits().verify_seconds
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=stdout, stderr=stderr, env=given, start_new_session=True
        )
        try:
            while process.poll() is None:
                yield Loading(what, min(bytes_of(place), total), total)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                if (left := left - POLL_SECONDS) < 0:
                    raise UserError(f"It took longer than {limits().verify_seconds:g} seconds ({what}).")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        lines = err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "no reason was given"
        if missing := re.match(r"ModuleNotFoundError: No module named '(\w+)'", reason):
            raise UserError(f"The converter needs a package: install it with 'pip install {missing[1]}'.")
        if UNKNOWN_SPLITTING in reason:
            raise UserError(
                "llama.cpp does not know how this model's tokenizer splits texts, so its converter makes no "
                "GGUF file of it."
            )
        raise UserError(f"It failed ({what}): {shortened(reason, 300)}")
    return (out.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
