"""Events as sentences and numbers as people read them, for the terminal, the page and the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..core import events as ev
from ..core.figures import percent
from ..core.recipe import Recipe
from ..core.units import BLOCKS, DEPTH, TITLES, WIDTH, Units, format_count
from ..evaluation.statistics import Paired

# Of a difference that chance alone could have made.
NO_CHANGE = "no measurable change"
# The halves of a block, as part of a sentence.
HALVES = {"attention": "the attention of", "mlp": "the MLP of"}


def sentence(event: ev.Event) -> str:
    """An event in one or two plain sentences. Blocks have their number in the dense model, from 0."""
    match event:
        case ev.Loading():
            what = capitalized(event.what)
            if event.total:
                return f"{what}: {event.done / 1e6:.0f} of {event.total / 1e6:.0f} MB."
            return f"{what}."
        case ev.Started():
            resumed = f" Resuming after {_iterations(event.resumed)}." if event.resumed else ""
            return (
                f"{event.model}: {event.blocks} blocks, {millions(event.parameters)} parameters. "
                f"{plan_sentence(event.target, event.goal, event.planned_share)}{resumed}"
            )
        case ev.Progress():
            return (
                f"{event.stage.capitalize()}, iteration {event.iteration}: {event.done} of "
                f"{event.total}; {format_duration(event.elapsed)} elapsed, about "
                f"{format_duration(event.remaining)} left."
            )
        case ev.Evaluated():
            return _evaluated(event)
        case ev.Skipped():
            return f"{event.reason} The run continues without {event.task}."
        case ev.Warned():
            return event.message
        case ev.Scored():
            return f"Scored the {TITLES[event.kind]} in {event.seconds:.0f} s."
        case ev.Removed():
            return f"{_removed(event)} {millions(event.parameters)} parameters remain."
        case ev.RemovalUndone():
            one = sum(len(u.units) for u in event.units) == 1
            put_back = "was put back and is now kept" if one else "were put back and are now kept"
            return f"Undone: {describe_units(event.units)} {put_back}. Something else is removed instead."
        case ev.TargetExtended():
            return f"Target changed from {percent(event.before)} to {percent(event.target)}."
        case ev.SettingsChanged():
            return f"What follows the last removal is done again, with another {_named(event.changed)}."
        case ev.Forked():
            return _forked(event)
        case ev.Exported():
            loader = "PIP Studio's loader" if event.uneven else "transformers"
            return (
                f"Exported {event.bytes / 1e6:.0f} MB and verified: a fresh process loaded it with {loader}, "
                f"{describe_agreement(event.largest_difference)}, and it generated the same {event.tokens} "
                "tokens with and without the cache."
            )
        case ev.Finished():
            return (
                f"Finished in {format_duration(event.seconds)}: {event.removed_description} removed, "
                f"{millions(event.parameters)} parameters remain, "
                f"peak memory {event.peak_memory / 1e9:.2f} GB."
            )
        case ev.Stopped():
            if not event.iterations:
                return "Stopped before the first removal. Resume to continue."
            return (
                f"Stopped after {_iterations(event.iterations)}, which are kept. Resume to continue, or "
                "export the model as it is now."
            )
        case ev.Paused():
            if not event.iterations:
                return "Paused before the first removal. Resume to continue."
            return f"Paused after {_iterations(event.iterations)}, which are kept. Resume to continue."
        case ev.Failed():
            return event.message
        case _:  # the event of one stage
            return event.sentence()


def plan_sentence(target: float, budget: str, share: float) -> str:
    """What a run will remove.

    Args:
        target: share of all parameters that the recipe asks for.
        budget: what will be removed, in words.
        share: share of all parameters that this is; mentioned beside the target where the two differ.
    """
    nearest = "" if abs(share - target) < 0.0005 else f", the nearest possible to {percent(target)}"
    return f"Will remove {budget}: {percent(share)} of all parameters{nearest}."


def describe_removal(event: ev.Removed) -> str:
    """What one iteration removed, see `describe_units`."""
    return describe_units(event.units)


def describe_units(units: Sequence[Units]) -> str:
    """Units in words: "block 17", "the MLP of block 3", "1,530 channels in 30 blocks"."""
    depth = [u for u in units if u.kind in DEPTH]
    names = [f"block {u.block}" if u.kind == BLOCKS else f"{HALVES[u.kind]} block {u.block}" for u in depth]
    for kind in WIDTH:
        losing = [u for u in units if u.kind == kind]
        if losing:
            number = sum(len(u.units) for u in losing)
            names.append(f"{format_count(number, kind)} in {format_count(len(losing), BLOCKS)}")
    return " and ".join(names)


def describe_agreement(largest_difference: float) -> str:
    """How well the reloaded model's logits agree with those of the model in memory."""
    return f"its logits agree to {largest_difference:.0e}" if largest_difference else "its logits are equal"


def describe_task(task: ev.TaskResult) -> str:
    """How a task's accuracy was measured: metric, items, what is unusual about them, the other metric."""
    parts = [task.metric, f"{task.items} items", f"chance {percent(task.chance, 0)}"]
    if task.metric == "acc" and task.acc_norm is not None:
        parts.append(f"acc_norm {plus_minus(task.acc_norm, task.acc_norm_se or 0.0)}")
    if task.metric == "acc_norm" and task.acc is not None:
        parts.append(f"acc {plus_minus(task.acc, task.acc_se or 0.0)}")
    if task.cut:
        parts.append(f"{task.cut} longer than the context, cut at the left")
    if task.duplicates:
        parts.append(f"{task.duplicates} repeated")
    return ", ".join(parts)


class HasPerplexity(Protocol):
    """What has a perplexity and its standard error."""

    @property
    def perplexity(self) -> float: ...

    @property
    def perplexity_se(self) -> float: ...


def describe_perplexity(measured: HasPerplexity) -> str:
    """A perplexity with its standard error, as "2,793.01 ± 330.20"."""
    return f"{measured.perplexity:,.2f} ± {measured.perplexity_se:,.2f}"


def describe_difference(paired: Paired) -> str:
    """A difference in accuracy between two models on the same items, and whether it is measurable."""
    difference = in_points(paired)
    return f"{difference} ({NO_CHANGE})" if paired.noise else difference


def in_points(paired: Paired) -> str:
    """A difference in accuracy with its own, paired standard error, as "−1.7 ± 0.9 points"."""
    return f"{100 * paired.difference:+.1f} ± {100 * paired.se:.1f} points".replace("-", "−")


def capitalized(text: str) -> str:
    """`text` with its first letter, and only that, in upper case."""
    return text[:1].upper() + text[1:]


def plus_minus(share: float, se: float, digits: int = 1) -> str:
    """A share with its standard error, as "80.0 % ± 4.0 %"."""
    return f"{percent(share, digits)} ± {percent(se, digits)}"


def millions(parameters: float) -> str:
    """A number of parameters as "134.5M"."""
    return f"{parameters / 1e6:.1f}M"


def format_duration(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def _evaluated(event: ev.Evaluated) -> str:
    when = "Whole model" if event.of_dense else "Finished model" if event.final else "After removal"
    texts = "".join(
        f" Word perplexity of {t.name}: {t.word_perplexity:,.2f} ({t.bits_per_byte:.3f} bits per byte)."
        for t in event.texts
    )
    texts += "".join(f" {_writing(w)}." for w in event.writing)
    return (
        f"{when}: perplexity {describe_perplexity(event)}, "
        f"accuracy {plus_minus(event.accuracy, event.accuracy_se)}.{texts}"
    )


def _writing(result: ev.WritingResult) -> str:
    return f"{capitalized(result.name)}: {plus_minus(result.repeated, result.se)} is repeated"


def _removed(event: ev.Removed) -> str:
    """What an iteration removed, and why."""
    removed = f"Removed {describe_removal(event)}"
    if event.forced:
        return f"{removed}, which the recipe names."
    kinds = len({unit.kind for unit in event.units})
    value = f"{percent(event.relative)} of the largest{' of their kind' if kinds > 1 else ''}"
    if event.score < 0:
        # Scores that fall below zero have no zero to measure a share from.
        value = f"{event.score:.3g}; the largest is {event.score / event.relative:.3g}"
    if event.count == 1:
        return f"{removed}: its score was the lowest ({value})."
    return f"{removed}: their scores were the lowest (at most {value})."


def _forked(event: ev.Forked) -> str:
    after = f"after {_iterations(event.iterations)}" if event.iterations else "before its first removal"
    other = f", with another {_named(event.changed)}" if event.changed else ""
    return f"Branched from {event.name or 'another run'} {after}{other}."


def _named(settings: Sequence[str]) -> str:
    """Settings as the form calls them."""
    known = {info.name: info.label for info in Recipe.settings()}
    return ", ".join(f"“{known.get(name) or name.replace('_', ' ')}”" for name in settings)


def _iterations(number: int) -> str:
    return "1 iteration" if number == 1 else f"{number} iterations"
