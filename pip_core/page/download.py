"""What a finished run gives: the badge, how to load it, and the command line of the whole run."""

from __future__ import annotations

import dataclasses
import shlex
from html import escape

from ..narrate import agreement
from ..recipe import Recipe
from ..story import Story
from ..uneven import LOADER
from .html import empty


def verdict(story: Story) -> str:
    """What was verified of a finished run's export, and how to load it."""
    done = story.exported
    if done is None:
        return empty(
            "When a run has finished, its model is offered here: an ordinary checkpoint, loaded again "
            "by a fresh process and verified."
        )
    if done.uneven:
        module, _, name = LOADER.rpartition(".")
        how, says = "this project's own loader", f" No plain config can describe it: {escape(done.uneven)}."
        snippet = f'from {module} import {name}\nmodel = {name}("path/to/model")'
    else:
        how, says = "<code>from_pretrained</code> alone", ""
        snippet = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/model")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/model")'
        )
    return (
        f"<div class='verified'><b>✓ Reloaded and verified.</b> A fresh process loaded the export with "
        f"{how}; {agreement(done.largest_difference)}, and it wrote {done.tokens} tokens with and "
        f"without the key-value cache.{says}</div>{code('Load it', snippet)}"
    )


def command_line(recipe: Recipe) -> str:
    """The command that does the whole run: every setting that is not the usual one."""
    usual, words = Recipe(), ["python", "-m", "pip_core", "prune"]
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value == getattr(usual, field.name) and field.name not in ("model", "method", "target"):
            continue
        said = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += ["--" + field.name.replace("_", "-"), said.lower() if isinstance(value, bool) else said]
    return shlex.join([*words, "--out", "my-run"])


def code(title: str, text: str) -> str:
    """Something to copy."""
    return (
        f"<figure class='code'><figcaption>{escape(title)}</figcaption>"
        f"<pre tabindex='0'><code>{escape(text)}</code></pre></figure>"
    )
