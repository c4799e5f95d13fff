"""What is shown beside the form: what a model, a method and a target mean, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from ..budget.aims import DOING, speedup_of
from ..checkpoints import bundled
from ..core.errors import UserError
from ..core.figures import percent, stated_percent
from ..core.recipe import DEMO, DISPATCHED, MIXED, STREAMED, Recipe
from ..core.settings import AUTO
from ..core.units import ATTENTION, BLOCKS, CHANNELS, EXPERTS, HEADS, KINDS, MLP, TITLES
from ..data.corpora import KNOWN, SHIPPED
from ..data.preview import preview
from ..evaluation.tasks import NAMES, STORY_TASKS, TASKS, WRITING_TASKS
from ..planning.estimate import Plan, anatomy_for, available_memory, resolve_auto_units
from ..planning.inspect_model import exports_plainly, memory_needed
from ..scoring import get_scorer
from .html import duration, millions, shortened
from .network_map import legend, network_map

# What a form offers first; the user may enter anything else.
MODELS = (DEMO, bundled.NAME)
TEXTS = (AUTO, MIXED, *SHIPPED, *KNOWN)
MEASURED_TASKS = (AUTO, *TASKS, *STORY_TASKS, *WRITING_TASKS, *NAMES)
EDITS = (("swap two letters", "swap"), ("replace a letter", "replace"), ("insert a letter", "insert"))
# What those are that are offered first, in one line.
ABOUT = {
    DEMO: "A tiny storyteller, made to try this out",
    bundled.NAME: "SmolLM2-135M-Instruct, a small chat model",
}
# What can be removed in one run: words, kinds of units.
UNIT_SETS = (
    ("whole blocks", (BLOCKS,)),
    ("attention only", (ATTENTION,)),
    ("MLP only", (MLP,)),
    ("attention and MLP, separately", (ATTENTION, MLP)),
    ("heads", (HEADS,)),
    ("channels", (CHANNELS,)),
    ("heads and channels", (HEADS, CHANNELS)),
    ("blocks, then channels", (BLOCKS, CHANNELS)),
    ("experts", (EXPERTS,)),
)


def _possible(reference: str, kinds: Sequence[str]) -> bool:
    """Whether units of these kinds can be removed from a model at all; how many is known from the plan."""
    refused = anatomy_for(reference).refused
    return not any(kind in refused for kind in kinds) and (BLOCKS not in kinds or _plain(reference, kinds))


def _plain(reference: str, kinds: Sequence[str]) -> bool:
    return all(exports_plainly(reference, kind) for kind in kinds)


def unit_choices(recipe: Recipe) -> list[tuple[str, str]]:
    """(words, value) of the units that the method can score and that can be removed from the model.

    Values are kinds of units joined by a comma.

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
            own = "" if _plain(recipe.model, units) else " (needs our loader)"
            choices.append((words + own, ",".join(units)))
    return choices


def model_line(recipe: Recipe) -> str:
    """Family and size of a model, whether it fits this machine, and how its exports load.

    Raises:
        UserError: a model that cannot be pruned.
    """
    found = anatomy_for(recipe.model)
    needed, free = max(memory_needed(recipe).values()), available_memory()
    plain = any(_possible(recipe.model, [k]) and _plain(recipe.model, [k]) for k in KINDS)
    known = "" if found.listed else " · recognised by its structure"
    loads = "loads in transformers" if plain else "loads with this project's loader only"
    about = ABOUT.get(recipe.model.partition("@")[0])
    size = f"{about}<br>" if about else ""
    size += f"<b>{millions(found.parameters)}</b> parameters · {len(found.blocks)} blocks · "
    signs = [_sign(needed <= free, memory_words(needed, free), "memory"), _sign(plain, loads, "export")]
    return (
        f"<div class='line'>{size}"
        f"{escape(found.model_type)}{known}<span class='signs'>{''.join(signs)}</span></div>"
    )


def memory_words(needed: float, free: float) -> str:
    """Bytes that a run needs at its peak, and bytes that are free, as form and plan say them."""
    return f"needs {_number(needed / 1e9)} of {_number(free / 1e9)} GB free"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def method_note(name: str) -> str:
    """What a method does in two sentences, and its source."""
    found = get_scorer(name)
    return f"<div class='line'>{escape(found.summary)} <cite>{escape(found.paper)}</cite></div>"


def locks_line(recipe: Recipe, ranks: Mapping[int, int] | None = None) -> str:
    """Size and importance of the blocks that are kept, or removed first.

    Args:
        ranks: block -> its rank in the first iteration of a run of this model and method, 1 the least
            important; None where there is no such run.

    Raises:
        UserError: a model that cannot be pruned.
    """
    anatomy, lines = anatomy_for(recipe.model), []
    for blocks, what in ((recipe.drop, "is removed first"), (recipe.keep, "is kept")):
        for block in blocks:
            if block >= len(anatomy.blocks):
                continue
            count = anatomy.blocks[block].parameters
            line = (
                f"block {block} {what}: {millions(count)} parameters, {percent(count / anatomy.parameters)}"
            )
            if ranks and block in ranks:
                line += f"; rank {ranks[block]} of {len(ranks)} in the run shown (1 = least important)"
            lines.append(line)
    if not lines:
        return ""
    if ranks is None:
        lines.append("a run of this model and method that leaves them free shows how important they are")
    return "<ul class='line locks'>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def plan_line(plan: Plan, recipe: Recipe) -> str:
    """What a run of this recipe will remove, and how long it takes."""
    total = plan.anatomy.parameters
    removed = total * plan.share
    exact = abs(plan.share - recipe.target) < 0.0005
    near = "" if exact else f", the nearest to {stated_percent(recipe.target)}"
    locks = []
    if recipe.keep:
        locks.append(f"keeps {_numbers(recipe.keep)}")
    if recipe.drop:
        locks.append(f"removes {_numbers(recipe.drop)} first")
    notes = [f"{'; '.join(locks)[:1].upper()}{'; '.join(locks)[1:]}."] if locks else []
    if recipe.target_speedup:
        what, times = speedup_of(recipe.target_speedup)
        notes.append(
            f"How much goes is a guess: the run first measures what it takes to be {times:g} times as fast "
            f"at {DOING[what]} on this machine."
        )
    if plan.joining:
        others = " and ".join(TITLES[kind] for kind in plan.joining)
        notes.append(
            f"{others[:1].upper()}{others[1:]} may go too, where that is measured to cost clearly less "
            "('Kinds that compete', Advanced)."
        )
    if plan.alone:
        notes.append(
            f"By one kind alone this would be {'; or '.join(plan.alone)}. What each costs is measured first; "
            "'Show the division first' (Advanced) pauses there, before anything is removed."
        )
    if plan.uneven:
        notes.append("The result needs this project's loader.")
    lines = "".join(f"<br>{escape(note)}" for note in notes)
    if plan.placement == STREAMED:
        words = f"{_number(plan.memory / 1e9)} GB of {_number(plan.available / 1e9)} GB"
        lines += f"<br>Streams the model from disk, block by block: {words}."
    elif plan.placement == DISPATCHED:
        words = f"{_number(plan.memory / 1e9)} GB of {_number(plan.available / 1e9)} GB"
        count = len(plan.anatomy.blocks)
        there = f"{plan.resident_blocks} of {count} blocks stay on the devices that compute"
        lines += f"<br>Spreads the model over devices, memory and disk: {there}, {words}."
    if plan.memory > plan.available:
        words = memory_words(plan.memory, plan.available)
        lines += f"<br><span class='bad'>Too large for this machine: {escape(words)}.</span>"
    # Where tokens alone may go there is no iteration at all.
    work = [f"{plan.iterations} iteration{'s' * (plan.iterations > 1)}"] if plan.iterations else []
    work += [escape(title[:1].lower() + title[1:]) for title in plan.stages]
    return (
        f"<div class='plan'>Will remove <b>{escape(plan.goal)}</b>: {percent(plan.share)} of all "
        f"parameters{near}.<br>"
        f"<b>{millions(total)} → {millions(total - removed)}</b> · {millions(removed)} fewer · "
        f"{', then '.join(work)} · {duration(plan.seconds)}"
        f"{lines}</div>"
    )


def model_card_part(recipe: Recipe) -> str:
    """A drawing of the dense model, with the sizes of its parts.

    Raises:
        UserError: a model that cannot be pruned.
    """
    anatomy = anatomy_for(recipe.model)
    keep, drop = recipe.keep, recipe.drop
    return network_map(anatomy, keep=keep, drop=drop) + legend(anatomy)


def two_views(recipe: Recipe) -> tuple[str, str]:
    """A passage of the calibration text, clean and misspelt, with the edits marked in both; and why a run
    will refuse the text, which is empty where that is not known to be so.

    Raises:
        UserError: unreadable calibration text.
    """
    found = preview(recipe)
    text, edits = found.text, found.edits
    changed = {number: (before, after) for number, before, after in edits}
    clean, other, end = [], [], 0
    for number, (start, stop) in enumerate(found.words):
        between, word, end = escape(text[end:start]), text[start:stop], stop
        if number in changed:
            before, after = changed[number]
            head, _, tail = word.partition(before)
            clean.append(f"{between}{escape(head)}<mark>{escape(before)}</mark>{escape(tail)}")
            other.append(f"{between}{escape(head)}<mark class='edit'>{escape(after)}</mark>{escape(tail)}")
        else:
            clean.append(between + escape(word))
            other.append(between + escape(word))
    note = f"<p class='line'>{escape(found.note)}</p>" if found.note else ""
    many = f"{len(edits)} word{'s' * (len(edits) != 1)}"
    html = (
        f"<div class='views'><div><h2>Clean text</h2><p dir='auto'>{''.join(clean)} …</p></div>"
        f"<div><h2>The same, {many} misspelt</h2><p dir='auto'>{''.join(other)} …</p></div></div>{note}"
    )
    return html, found.lack


def checked(work: Callable[..., str], *arguments) -> str:
    """HTML of `work(*arguments)`, or its error message."""
    try:
        return work(*arguments)
    except UserError as error:
        return f"<div class='line bad' role='alert'>{escape(shortened(str(error)))}</div>"


def _numbers(blocks: Sequence[int]) -> str:
    return f"block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))}"


def _sign(good: bool, words: str, what: str) -> str:
    return f"<span class='sign {'good' if good else 'bad'}' title='{what}'>{escape(words)}</span>"
