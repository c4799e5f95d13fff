"""What stands beside the form: what a model, a method and a target mean, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from ..checkpoints import bundled
from ..core.errors import UserError
from ..core.recipe import DEMO, EQUAL, GLOBAL, MIXED, Recipe
from ..core.settings import AUTO
from ..core.units import ATTENTION, BLOCKS, CHANNELS, HEADS, KINDS, MLP
from ..data.corpora import KNOWN, SHIPPED
from ..data.preview import preview
from ..evaluation.tasks import NAMES, STORY_TASKS, TASKS
from ..planning.estimate import Plan, anatomy_for, available_memory, memory_for, resolve_auto_units
from ..planning.inspect_model import exports_plainly
from ..scoring import get_scorer
from .html import duration, millions
from .network_map import legend, network_map

# What a form offers first; the user may name anything else.
MODELS = (DEMO, bundled.NAME)
READ = (AUTO, MIXED, *SHIPPED, *KNOWN)
ASKED = (AUTO, *TASKS, *STORY_TASKS, *NAMES)
EDITS = (("swap two letters", "swap"), ("replace a letter", "replace"), ("insert a letter", "insert"))
SHARING = (("as many from every block", EQUAL), ("the least of all", GLOBAL))
# What can be removed in one run, as people choose it: words, kinds.
UNIT_SETS = (
    ("whole blocks", (BLOCKS,)),
    ("attention halves", (ATTENTION,)),
    ("MLP halves", (MLP,)),
    ("halves of both kinds", (ATTENTION, MLP)),
    ("heads", (HEADS,)),
    ("channels", (CHANNELS,)),
    ("heads and channels", (HEADS, CHANNELS)),
    ("blocks, then channels", (BLOCKS, CHANNELS)),
)


def _possible(reference: str, kinds: Sequence[str]) -> bool:
    """Whether a model can lose units of these kinds at all; how many is the plan's to say."""
    refused = anatomy_for(reference).refused
    return not any(kind in refused for kind in kinds) and (BLOCKS not in kinds or _plain(reference, kinds))


def _plain(reference: str, kinds: Sequence[str]) -> bool:
    return all(exports_plainly(reference, kind) for kind in kinds)


def unit_choices(recipe: Recipe) -> list[tuple[str, str]]:
    """(words, value) of what the method can score and the model can lose; values are kinds joined by
    a comma.

    Raises:
        UserError: a model that cannot be pruned, or an unknown method.
    """
    scored = get_scorer(recipe.method).kinds
    usual, names = (
        resolve_auto_units(recipe.replace(units=(AUTO,))),
        {units: words for words, units in UNIT_SETS},
    )
    choices = [(f"auto: {names[usual.units]}", AUTO)]
    for words, units in UNIT_SETS:
        if set(units) <= set(scored) and _possible(recipe.model, units):
            own = "" if _plain(recipe.model, units) else " (own loader)"
            choices.append((words + own, ",".join(units)))
    return choices


def model_line(recipe: Recipe) -> str:
    """Family, size, whether it fits this machine and exports plainly.

    Raises:
        UserError: a model that cannot be pruned.
    """
    found = anatomy_for(recipe.model)
    needed = max(memory_for(recipe).values())
    free = available_memory()
    plain = any(_possible(recipe.model, [k]) and _plain(recipe.model, [k]) for k in KINDS)
    known = "" if found.listed else " · recognised by its structure"
    signs = [
        _sign(needed <= free, f"needs {needed / 1e9:.1f} of {free / 1e9:.0f} GB free", "memory"),
        _sign(plain, "exports plainly" if plain else "exports with this project's loader only", "export"),
    ]
    return (
        f"<div class='line'><b>{millions(found.parameters)}</b> parameters · {len(found.blocks)} blocks · "
        f"{escape(found.model_type)}{known}<br>{' '.join(signs)}</div>"
    )


def method_note(name: str) -> str:
    """Two sentences on a method, and where it comes from."""
    found = get_scorer(name)
    return f"<div class='line'>{escape(found.summary)} <cite>{escape(found.paper)}</cite></div>"


def locks_line(recipe: Recipe, ranks: Mapping[int, int] | None = None) -> str:
    """What blocks that are locked or go first cost: their parameters, and how much they matter.

    Args:
        ranks: block -> its rank in the first iteration of a run of this model and method, 1 mattering
            least; None where there is none to ask.

    Raises:
        UserError: a model that cannot be pruned.
    """
    anatomy, lines = anatomy_for(recipe.model), []
    for blocks, says in ((recipe.drop, "goes"), (recipe.keep, "stays")):
        for block in blocks:
            if block >= len(anatomy.blocks):
                continue
            count = anatomy.blocks[block].parameters
            said = f"block {block} {says}: {millions(count)} parameters, {count / anatomy.parameters:.1%}"
            if ranks and block in ranks:
                said += f"; rank {ranks[block]} of {len(ranks)} in the run shown (1 matters least)"
            lines.append(said)
    if not lines:
        return ""
    if ranks is None:
        lines.append("how much they matter is known once a run of this model and method has scored them")
    return "<ul class='line locks'>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def plan_line(plan: Plan, recipe: Recipe) -> str:
    """What a press of the button will do, in numbers."""
    total = plan.anatomy.parameters
    gone = total * plan.share
    near = "" if abs(plan.share - recipe.target) < 0.0005 else f", the nearest to {recipe.target:.0%}"
    locks = []
    if recipe.keep:
        locks.append(f"{_numbers(recipe.keep)} stays untouched")
    if recipe.drop:
        locks.append(f"{_numbers(recipe.drop)} goes first")
    own = "<br>The result needs this project's loader." if plan.uneven else ""
    tight = (
        ""
        if plan.memory <= plan.available
        else (
            f"<br><span class='bad'>It needs about {plan.memory / 1e9:.1f} GB, and "
            f"{plan.available / 1e9:.1f} GB are free.</span>"
        )
    )
    then = "".join(f", then {escape(title.lower())}" for title in plan.stages)
    return (
        f"<div class='plan'><b>{escape(plan.goal[0].upper() + plan.goal[1:])}</b> will go: "
        f"{plan.share:.1%} of all parameters{near}.<br>"
        f"<b>{millions(total)} → {millions(total - gone)}</b> · {millions(gone)} fewer · "
        f"{plan.iterations} iteration{'s' * (plan.iterations > 1)}{then} · "
        f"{duration(plan.seconds)}"
        + (f"<br>{escape('; '.join(locks))}." if locks else "")
        + f"{own}{tight}</div>"
    )


def model_card_part(recipe: Recipe) -> str:
    """The dense model drawn, with what its parts hold.

    Raises:
        UserError: a model that cannot be pruned.
    """
    anatomy = anatomy_for(recipe.model)
    keep, drop = recipe.keep, recipe.drop
    return network_map(anatomy, keep=keep, drop=drop) + legend(anatomy)


def two_views(recipe: Recipe) -> str:
    """A calibration text as it is and perturbed, edits marked in both.

    Raises:
        UserError: unreadable calibration text.
    """
    found = preview(recipe)
    text, edits = found.text, found.edits
    changed = {number: (before, after) for number, before, after in edits}
    clean, other = [], []
    for number, word in enumerate(text.split()):
        if number in changed:
            before, after = changed[number]
            head, _, tail = word.partition(before)
            clean.append(f"{escape(head)}<mark>{escape(before)}</mark>{escape(tail)}")
            other.append(f"{escape(head)}<mark class='edit'>{escape(after)}</mark>{escape(tail)}")
        else:
            clean.append(escape(word))
            other.append(escape(word))
    return (
        "<div class='views'><div><h3>A text as it is</h3><p>" + " ".join(clean) + " …</p></div>"
        f"<div><h3>its perturbed view, {len(edits)} words edited</h3><p>"
        + " ".join(other)
        + " …</p></div></div>"
        + (f"<p class='line'>{escape(found.note)}</p>" if found.note else "")
    )


def checked(work: Callable[..., str], *arguments) -> str:
    """HTML of `work(*arguments)`, or the refusal in its place."""
    try:
        return work(*arguments)
    except UserError as error:
        return f"<div class='line bad' role='alert'>{escape(str(error))}</div>"


def _numbers(blocks: Sequence[int]) -> str:
    return f"block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))}"


def _sign(good: bool, words: str, what: str) -> str:
    return f"<span class='sign {'good' if good else 'bad'}' title='{what}'>{escape(words)}</span>"
