"""The download of a finished run: what was verified, how to load it, and the command line of the run."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path

from ..checkpoints.packing import Packing
from ..core.figures import percent
from ..core.recipe import Recipe
from ..data.corpora import pasted_settings
from ..reporting.messages import describe_agreement
from ..reporting.model_card import loading
from ..reporting.run_summary import RunSummary
from .fields import label_of
from .html import empty


def verdict(summary: RunSummary, recipe: Recipe | None = None) -> str:
    """What was verified of a finished run's export, and which text of the visitor's own goes with it."""
    done = summary.exported
    if done is None:
        return empty(
            "When a run has finished, its model is offered here: an ordinary checkpoint, loaded again by a "
            "fresh process and verified."
        )
    how, reason = "<code>from_pretrained</code> alone", ""
    if done.uneven:
        how = "this project's loader"
        reason = f" No plain config can describe it: {escape(done.uneven)}."
    return (
        f"<div class='verified'><b>✓ Reloaded and verified.</b> A fresh process loaded the export with "
        f"{how}; {describe_agreement(done.largest_difference)}, and it wrote {done.tokens} tokens with and "
        f"without the key-value cache.{reason}</div>{_own_text(recipe)}"
    )


def _own_text(recipe: Recipe | None) -> str:
    pasted = pasted_settings(recipe.to_dict()) if recipe else []
    if not pasted:
        return ""
    labels = {info.name: label_of(info) for info in Recipe.settings()}
    where = escape(", ".join(labels[name] for name in pasted))
    return (
        f"<div class='verified'><b>With your own text.</b> What you pasted ({where}) is in the recipe that "
        "is offered here, word for word, so that the run can be repeated. The zip holds only its length and "
        "its checksum.</div>"
    )


def snippet(summary: RunSummary) -> str:
    """Code that loads the export and generates text with it; empty where there is no export."""
    if summary.exported is None:
        return ""
    imports, calls = loading(summary.exported.uneven, "folder")
    lines = [
        *imports,
        "",
        'folder = "model"  # what the zip unpacks to',
        *calls,
        'ids = tokenizer("The sky is", return_tensors="pt").input_ids',
        "print(tokenizer.decode(model.generate(ids, max_new_tokens=20)[0]))",
    ]
    return code("Load it", "\n".join(lines))


def command_line(recipe: Recipe) -> str:
    """The command that repeats the run: every setting that is not the usual one."""
    usual, words = Recipe(model=recipe.model, method=recipe.method), ["python", "-m", "pip_core", "prune"]
    for found in Recipe.settings():
        value = getattr(recipe, found.name)
        if value == getattr(usual, found.name) and found.name not in ("model", "method", "target"):
            continue
        if isinstance(value, bool):
            words.append(found.option if value else f"--no-{found.option.removeprefix('--')}")
            continue
        words += [found.option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join([*words, "--out", "my-run"])


def push_line(folder: Path) -> str:
    """The command that pushes the model of the run in `folder` to the Hub, by a person at this machine."""
    return shlex.join(["python", "-m", "pip_core", "push", str(folder), "OWNER/NAME"])


def code(title: str, text: str) -> str:
    """Text to copy, with a caption."""
    copy = f"<button type='button' class='ghost small copy' aria-label='Copy: {escape(title)}'>Copy</button>"
    return (
        f"<figure class='code'><figcaption>{escape(title)} {copy}</figcaption>"
        f"<pre tabindex='0'><code>{escape(text)}</code></pre></figure>"
    )


def packing_words(packing: Packing) -> str:
    """The label of the button that downloads a packed model."""
    if packing.error:
        return packing.error
    size = f"{packing.total / 1e6:.0f} MB"
    if not packing.ready:
        return (
            f"Packing the model, {size}: {percent(packing.done / packing.total if packing.total else 0, 0)} …"
        )
    return f"Download the pruned model ({size}, zip)"
