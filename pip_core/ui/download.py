"""What a finished run gives: the badge, how to load it, and the command line of the whole run."""

from __future__ import annotations

import shlex
from html import escape

from ..core.recipe import Recipe
from ..reporting.messages import describe_agreement
from ..reporting.model_card import loading
from ..reporting.run_summary import RunSummary
from .html import empty


def verdict(story: RunSummary) -> str:
    """What was verified of a finished run's export."""
    done = story.exported
    if done is None:
        return empty(
            "When a run has finished, its model is offered here: an ordinary checkpoint, loaded again "
            "by a fresh process and verified."
        )
    how, says = "<code>from_pretrained</code> alone", ""
    if done.uneven:
        how, says = "this project's own loader", f" No plain config can describe it: {escape(done.uneven)}."
    return (
        f"<div class='verified'><b>✓ Reloaded and verified.</b> A fresh process loaded the export with "
        f"{how}; {describe_agreement(done.largest_difference)}, and it wrote {done.tokens} tokens with and "
        f"without the key-value cache.{says}</div>"
    )


def snippet(story: RunSummary) -> str:
    """How to load what was exported and write with it; nothing where nothing was."""
    if story.exported is None:
        return ""
    imports, calls = loading(story.exported.uneven, "folder")
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
    """The command that does the whole run: every setting that is not the usual one."""
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


def code(title: str, text: str) -> str:
    """Something to copy."""
    return (
        f"<figure class='code'><figcaption>{escape(title)}</figcaption>"
        f"<pre tabindex='0'><code>{escape(text)}</code></pre></figure>"
    )
