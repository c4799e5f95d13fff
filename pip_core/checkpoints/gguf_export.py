"""An exported model as a GGUF file, as llama.cpp reads it: made by llama.cpp's own converter, and checked.

The converter is a script of llama.cpp's sources, which no package that this project depends on brings:
`PIP_STUDIO_LLAMA_CPP` names a folder of them. It is run in a process of its own.

It looks up how a tokenizer splits text by a hash of a sample's token ids, and so refuses a tokenizer from
which tokens were removed. For such a model it is told the entry of the dense model's tokenizer, which splits
alike.

What was made is loaded back by transformers, in another process, and compared with the model: the same tokens
for the same texts, and the logits of its weights rounded to float16.
"""

from __future__ import annotations

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
from ..core.limits import limits
from ..core.network import NotDownloaded, without_downloads
from ..core.progress import drain
from .folder import raw_config
from .load import resolve
from .nonuniform import is_nonuniform

VARIABLE = "PIP_STUDIO_LLAMA_CPP"
SCRIPT = "convert_hf_to_gguf.py"
NO_CONVERTER = (
    f"A GGUF file is made by llama.cpp's own converter, which is not here. Get llama.cpp's sources and set "
    f"{VARIABLE} to their folder, the one that holds {SCRIPT}."
)
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
# Of the largest logit: the converter rounds as this project does, but computes in another order.
ALLOWED = 2**-12
# The converter, told what it knows of the tokenizer in the folder that is its first argument.
TOLD = """
import sys
from transformers import AutoTokenizer
try:
    from conversion.base import TextModel
except ImportError:
    from convert_hf_to_gguf import TextModel
import convert_hf_to_gguf
dense, known = AutoTokenizer.from_pretrained(sys.argv.pop(1)), TextModel.get_vocab_base_pre
TextModel.get_vocab_base_pre = lambda self, tokenizer: known(self, dense)
convert_hf_to_gguf.main()
"""
CHECK = ("-m", "pip_core.checkpoints.gguf_check")
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Converted:
    """A GGUF file that was made and checked.

    Attributes:
        largest_difference: of the logits, between it and the model with weights rounded to float16.
    """

    file: Path
    bytes: int
    largest_difference: float


def converter() -> Path:
    """The folder that holds llama.cpp's converter.

    Raises:
        UserError: there is none.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise UserError(NO_CONVERTER)
    folder = Path(named).expanduser()
    if not (folder / SCRIPT).is_file():
        raise UserError(f"{VARIABLE} is '{named}', where there is no {SCRIPT}.")
    return folder


def write_gguf(
    model: Path, target: Path, teller: Generator[Loading, None, Path | None]
) -> Generator[Loading, None, Converted]:
    """Convert the exported model in `model` to the file `target`, in float16, and check it.

    Args:
        teller: finds whose tokenizer the converter is told, see `teller_of`; it begins once nothing else
            speaks against a conversion.

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
        script = [str(sources / SCRIPT)] if told is None else ["-c", TOLD, str(told)]
        yield from _run(
            [*script, str(model.resolve()), "--outfile", str(made), "--outtype", "f16"],
            "converting to GGUF",
            Path(place),
            PYTHONPATH=os.pathsep.join((str(sources / "gguf-py"), str(sources))),
            total=size,
        )
        check = [*CHECK, str(model.resolve()), str(made)]
        found = json.loads((yield from _run(check, "loading the GGUF file back", Path(place))))
        _judge(found)
        made.replace(target)
    return Converted(target, target.stat().st_size, found["largest_difference"])


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
