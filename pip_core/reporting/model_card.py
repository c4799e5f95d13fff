"""The model card: what was removed, what it cost, and how to load and reproduce the model.

Its text is the template `templates/model_card.md.j2`; its metadata is that of the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from ..checkpoints.nonuniform import LOADER
from ..core.events import Evaluated, Removed, Started, TaskResult
from ..core.figures import percent
from ..core.recipe import Recipe
from ..data.corpora import title
from ..data.private import shareable
from ..evaluation.statistics import LEVEL, paired_comparison, retained
from ..scoring import get_scorer
from .description import Description
from .messages import describe_difference, describe_perplexity, describe_units, millions, plus_minus

TEMPLATE = "model_card.md.j2"
TASK_TYPE = "text-generation"
# How the Hub names licences.
LICENCE_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.+-]*")


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
    decisions: Sequence[str] = (),
) -> str:
    """The card of a pruned model, as markdown with the Hub's metadata.

    Args:
        licence: of the base model; None where its files state none.
        dense, pruned: measurements of the base model and of the exported one, on the same items.
        removed_description: what was removed since the dense model, in words.
        uneven: why the model needs this project's loader; empty for an ordinary checkpoint.
        reproducible: whether the recipe beside the model is enough to make it again.
        warnings: sentences on what limits the meaning of the figures.
        before_stages: the measurement after the last removal and before the stages that changed the model
            after it; None where there were none.
        descriptions: the results of these stages, in words.
        decisions: what the run decided that its recipe had left open, and why.

    Raises:
        UserError: the models were not measured on the same items.
    """
    difference = paired_comparison(dense, pruned)
    imports, calls = loading(uneven, '"path/to/this/folder"')
    return _template().render(
        metadata=card_metadata(started.model, licence, recipe, pruned).to_yaml(),
        model=_line(started.model),
        started=started,
        recipe=recipe,
        scorer=get_scorer(recipe.method),
        licence=_line(str(licence)) if licence else "",
        removals=removals,
        removed_description=removed_description,
        decisions=decisions,
        after_removal=[item for described in descriptions for item in described.card],
        dense=dense,
        pruned=pruned,
        texts=list(zip(dense.texts, pruned.texts, strict=True)),
        writing=list(zip(dense.writing, pruned.writing, strict=True)),
        tasks=list(zip(dense.tasks, pruned.tasks, difference.tasks, strict=True)),
        difference=difference,
        kept=retained(dense, pruned),
        level=LEVEL,
        before_stages=before_stages,
        change=paired_comparison(before_stages, pruned) if before_stages else None,
        warnings=warnings,
        uneven=uneven,
        code="\n".join([*imports, *calls]),
        reproducible=reproducible,
        left_out=shareable(recipe.to_dict())[1],
    )


@cache
def _template() -> jinja2.Template:
    # Markdown is not HTML: nothing is escaped but what would break a line or a cell of a table.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "accuracy": _accuracy,
        "cell": _cell,
        "difference": describe_difference,
        "line": _line,
        "mean_accuracy": _mean_accuracy,
        "millions": millions,
        "percent": percent,
        "perplexity": describe_perplexity,
        "plus_minus": plus_minus,
        "title": title,
        "units": describe_units,
    }
    return environment.get_template(TEMPLATE)


def card_metadata(model: str, licence: str | None, recipe: Recipe, pruned: Evaluated) -> ModelCardData:
    """The header that the Hub reads, the figures of the pruned model among it."""
    heldout = title(recipe.heldout)
    results = [
        EvalResult(TASK_TYPE, heldout, heldout, "perplexity", pruned.perplexity),
        *(EvalResult(TASK_TYPE, t.name, t.name, "word_perplexity", t.word_perplexity) for t in pruned.texts),
        *(EvalResult(TASK_TYPE, t.name, t.name, t.metric, t.accuracy) for t in pruned.tasks),
    ]
    identifier, name = _licence(licence)
    return ModelCardData(
        # What was loaded from a folder has no page on the Hub; only ids of the Hub have an owner.
        base_model=model if "/" in model else None,
        library_name="transformers",
        pipeline_tag=TASK_TYPE,
        tags=["pruned", "pip-studio"],
        model_name=f"{model}, pruned",
        eval_results=results,
        license=identifier,
        license_name=name,
    )


def _licence(licence: str | None) -> tuple[str | None, str | None]:
    """The licence as the Hub takes it: an identifier, or "other" and a name of its own."""
    if not licence:
        return None, None
    if LICENCE_ID.fullmatch(str(licence)):
        return str(licence), None
    return "other", re.sub(r"[^a-z0-9.]+", "-", str(licence).lower()).strip("-")


def _accuracy(task: TaskResult) -> str:
    return plus_minus(task.accuracy, task.se)


def _mean_accuracy(measured: Evaluated) -> str:
    return plus_minus(measured.accuracy, measured.accuracy_se)


def _line(text: str) -> str:
    """`text` without line breaks."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    """`text` as it stands in a cell of a markdown table."""
    return _line(text).replace("|", "\\|")


def loading(uneven: str, folder: str) -> tuple[list[str], list[str]]:
    """Lines of Python that load an export: its imports, and its calls.

    Args:
        uneven: why the export needs this project's loader; empty for an ordinary checkpoint.
        folder: the export's folder, as a Python expression.
    """
    imports, load = (
        ["from transformers import AutoModelForCausalLM, AutoTokenizer"],
        "AutoModelForCausalLM.from_pretrained",
    )
    if uneven:
        module, _, load = LOADER.rpartition(".")
        imports = ["from transformers import AutoTokenizer", f"from {module} import {load}"]
    return imports, [f"model = {load}({folder})", f"tokenizer = AutoTokenizer.from_pretrained({folder})"]
