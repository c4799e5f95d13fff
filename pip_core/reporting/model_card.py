"""The model card: what was removed, what it cost, and how to make it again."""

from __future__ import annotations

from collections.abc import Sequence

from ..checkpoints.nonuniform import LOADER
from ..core.events import Evaluated, Removed, Started
from ..core.recipe import Recipe
from ..data.corpora import title
from ..evaluation.statistics import paired_comparison, retained
from ..scoring import get_scorer
from .description import Description
from .messages import paired_words, removed_words


def model_card(
    *,
    recipe: Recipe,
    started: Started,
    licence: str | None,
    removals: Sequence[Removed],
    dense: Evaluated,
    pruned: Evaluated,
    removed_description: str,
    uneven: str,
    reproducible: bool = True,
    warnings: Sequence[str] = (),
    before_stages: Evaluated | None = None,
    descriptions: Sequence[Description] = (),
) -> str:
    """The card of a pruned model, as markdown with the Hub's header.

    Args:
        removed_description: what was removed, in words.
        uneven: why the model needs this project's loader; empty for an ordinary checkpoint.
        reproducible: whether the recipe beside the model says all that is needed to make it again.
        warnings: what makes the figures say less than they seem to.
        before_stages: the measurement before the stages that changed the model after the last removal; None
            where there were none.
        descriptions: what these stages came to.
    """
    scorer = get_scorer(recipe.method)
    imports, calls = loading(uneven, '"path/to/this/folder"')
    difference, kept = paired_comparison(dense, pruned), retained(dense, pruned)
    above = ""
    if kept.above_chance is not None:
        above = f"; {kept.above_chance:.0%} ± {kept.above_chance_se:.0%} of what is above guessing"
    share = 1 - pruned.parameters / dense.parameters
    header = ["---", f"base_model: {started.model}", "library_name: transformers"]
    header += [f"license: {licence}"] if licence else []
    header += ["pipeline_tag: text-generation", "tags: [pruned, pip-studio]", "---"]
    edits = f"; edits {', '.join(recipe.kinds)} on {recipe.rate:.0%} of the words" if scorer.perturbs else ""
    order = ", ".join(removed_words(r) for r in removals)
    lines = [
        *header,
        f"# {started.model}, {share:.0%} smaller",
        "",
        f"{started.model} without {removed_description}: "
        f"{dense.parameters / 1e6:.1f}M -> {pruned.parameters / 1e6:.1f}M parameters "
        f"({share:.1%} fewer). No training followed.",
        "",
        f"- Base model: `{started.model}` ({started.origin})",
        f"- Licence: {licence or 'that of the base model (not stated in its files)'}",
        f"- Method: {scorer.title} (`{scorer.name}`), {scorer.paper}. {scorer.summary}",
        f"- Removed, in {len(removals)} iterations (numbers of the base model, from 0): {order}",
        f"- Calibration: {title(recipe.calibration)}, {recipe.windows} windows of {recipe.window_tokens} "
        f"tokens{edits}",
        *(f"- {line}" for done in descriptions for line in done.card),
        f"- Seed: {recipe.seed}",
        "",
        "## Measured",
        "",
        "| | base model | this model | difference |",
        "|---|---|---|---|",
        f"| perplexity ({dense.windows} windows of {dense.window_tokens} tokens, stride "
        f"{dense.window_tokens}, {title(recipe.heldout)}) "
        f"| {dense.perplexity:.2f} ± {dense.perplexity_se:.2f} "
        f"| {pruned.perplexity:.2f} ± {pruned.perplexity_se:.2f} | |",
    ]
    for before, after in zip(dense.texts, pruned.texts, strict=True):
        lines.append(
            f"| {before.name}, word perplexity ({before.documents} documents, windows of {before.window} "
            f"tokens, stride {before.window}) | {before.word_perplexity:.2f} "
            f"| {after.word_perplexity:.2f} | |"
        )
    for before, after, pair in zip(dense.tasks, pruned.tasks, difference.tasks, strict=True):
        lines.append(
            f"| {before.name} ({before.metric}, {before.items} items, chance {before.chance:.0%}) "
            f"| {before.accuracy:.1%} ± {before.se:.1%} | {after.accuracy:.1%} ± {after.se:.1%} "
            f"| {paired_words(pair)} |"
        )
    lines += [
        f"| **mean accuracy** | {dense.accuracy:.1%} ± {dense.accuracy_se:.1%} "
        f"| {pruned.accuracy:.1%} ± {pruned.accuracy_se:.1%} "
        f"| {paired_words(difference.mean)} |",
        "",
        f"Kept: {kept.share:.0%} ± {kept.se:.0%} of the base model's mean accuracy{above}. ± is one standard "
        "error; differences are paired, both models answering the same items, and are called within noise "
        "where chance alone makes them in one case of twenty or more often (McNemar's exact test for a "
        "task, randomization for the mean). Perplexity is per token of the base model's tokenizer.",
        *_before_the_end(before_stages, pruned),
        *(f"\n{sentence}" for sentence in warnings),
        "",
        "## Load it",
        "",
        *_caution(uneven),
        "```python",
        *imports,
        *calls,
        "```",
        "",
        "## Make it again",
        "",
        *_again(reproducible),
        "",
    ]
    return "\n".join(lines)


def _before_the_end(before: Evaluated | None, pruned: Evaluated) -> list[str]:
    if before is None:
        return []
    return [
        f"\nBefore what was done at the end, with {before.parameters / 1e6:.1f}M parameters: perplexity "
        f"{before.perplexity:.2f} ± {before.perplexity_se:.2f}, mean accuracy {before.accuracy:.1%} ± "
        f"{before.accuracy_se:.1%}; with it the mean accuracy differs by "
        f"{paired_words(paired_comparison(before, pruned).mean)}."
    ]


def _again(reproducible: bool) -> list[str]:
    if reproducible:
        return ["```bash", "python -m pip_core prune --recipe pip_recipe.json --out again", "```"]
    return [
        "The run was steered on its way (removals taken back or taken over, another target), so the recipe "
        "in `pip_recipe.json` alone does not lead here; what is left of every block stands beside it, in "
        "`layers`."
    ]


def _caution(uneven: str) -> list[str]:
    if not uneven:
        return []
    return [
        f"**This folder does not load with `from_pretrained`**: {uneven}, which no plain config can "
        "describe. It loads with PIP Studio's own loader:",
        "",
    ]


def loading(uneven: str, folder: str) -> tuple[list[str], list[str]]:
    """Lines of Python that load an export: imports, and the calls.

    Args:
        uneven: why it needs this project's loader; empty for an ordinary checkpoint.
        folder: where it lies, as a Python expression.
    """
    imports, load = (
        ["from transformers import AutoModelForCausalLM, AutoTokenizer"],
        "AutoModelForCausalLM.from_pretrained",
    )
    if uneven:
        module, _, load = LOADER.rpartition(".")
        imports = ["from transformers import AutoTokenizer", f"from {module} import {load}"]
    return imports, [f"model = {load}({folder})", f"tokenizer = AutoTokenizer.from_pretrained({folder})"]
