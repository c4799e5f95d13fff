"""The model card: what was removed, what it cost, and how to make it again."""

from __future__ import annotations

from collections.abc import Sequence

from .events import Evaluated, Removed, Started
from .narrate import paired_words
from .recipe import Recipe
from .scorers import method
from .stats import compare, retained


def model_card(
    recipe: Recipe,
    started: Started,
    licence: str | None,
    removals: Sequence[Removed],
    dense: Evaluated,
    pruned: Evaluated,
) -> str:
    """The card of a pruned model, as markdown with the Hub's header."""
    scorer = method(recipe.method)
    difference, kept = compare(dense, pruned), retained(dense, pruned)
    above = ""
    if kept.above_chance is not None:
        above = f"; {kept.above_chance:.0%} ± {kept.above_chance_se:.0%} of what is above guessing"
    share = 1 - pruned.parameters / dense.parameters
    header = ["---", f"base_model: {started.model}", "library_name: transformers"]
    header += [f"license: {licence}"] if licence else []
    header += ["pipeline_tag: text-generation", "tags: [pruned, pip-studio]", "---"]
    blocks = ", ".join(str(r.block) for r in removals)
    lines = [
        *header,
        f"# {started.model}, {share:.0%} smaller",
        "",
        f"{started.model} with {len(removals)} of its {dense.blocks} decoder blocks removed: "
        f"{dense.parameters / 1e6:.1f}M -> {pruned.parameters / 1e6:.1f}M parameters "
        f"({share:.1%} fewer). No training followed.",
        "",
        f"- Base model: `{started.model}` ({started.origin})",
        f"- Licence: {licence or 'that of the base model (not stated in its files)'}",
        f"- Method: {scorer.title} (`{scorer.name}`), {scorer.paper}. {scorer.summary}",
        f"- Blocks removed, in order (numbers of the base model, from 0): {blocks}",
        f"- Calibration: {recipe.calibration}, {recipe.windows} windows of {recipe.window_tokens} "
        f"tokens; edits {', '.join(recipe.kinds)} on {recipe.rate:.0%} of the words",
        f"- Seed: {recipe.seed}",
        "",
        "## Measured",
        "",
        "| | base model | this model | difference |",
        "|---|---|---|---|",
        f"| perplexity ({dense.windows} windows of {dense.window_tokens} tokens, stride "
        f"{dense.window_tokens}, {recipe.heldout}) "
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
        "task, randomization for the mean). Perplexity is per token of this model's tokenizer.",
        "",
        "## Load it",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        "```",
        "",
        "## Make it again",
        "",
        "```bash",
        "python -m pip_core prune --recipe pip_recipe.json --out again",
        "```",
        "",
    ]
    return "\n".join(lines)
