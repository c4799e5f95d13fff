"""Events as sentences, for the terminal, the log of the page, and anyone who reads aloud."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import events as ev
from ..core.units import BLOCKS, DEPTH, TITLES, WIDTH, Units, format_count
from ..evaluation.statistics import Paired


def sentence(event: ev.Event) -> str:
    """One plain sentence; blocks by their number in the dense model."""
    match event:
        case ev.Loading():
            if event.total:
                return (
                    f"{event.what[0].upper()}{event.what[1:]}: {event.done / 1e6:.0f} of "
                    f"{event.total / 1e6:.0f} MB."
                )
            return f"{event.what[0].upper()}{event.what[1:]}."
        case ev.Started():
            again = f" Decided before: {_iterations(event.resumed)}." if event.resumed else ""
            return (
                f"{event.model}: {event.blocks} blocks, {event.parameters / 1e6:.1f}M parameters. "
                f"{plan_sentence(event.target, event.goal, event.planned_share)}{again}"
            )
        case ev.Progress():
            return (
                f"{event.stage.capitalize()}, iteration {event.iteration}: {event.done} of "
                f"{event.total}; {clock(event.elapsed)} elapsed, about {clock(event.remaining)} left."
            )
        case ev.Evaluated():
            who = "The dense model" if event.iteration == 0 else "What is left"
            who = "In the end it" if event.final else who
            return (
                f"{who} has perplexity {event.perplexity:.2f} ± {event.perplexity_se:.2f} and answers "
                f"{event.accuracy:.1%} ± {event.accuracy_se:.1%} right."
                + "".join(f" {t.name} has word perplexity {t.word_perplexity:.2f}." for t in event.texts)
            )
        case ev.Skipped():
            return f"{event.reason} The run goes on without {event.task}."
        case ev.Warned():
            return event.message
        case ev.Scored():
            return f"Scored the {TITLES[event.kind]} in {event.seconds:.0f} s."
        case ev.Removed():
            return f"{_went(event)} {event.parameters / 1e6:.1f}M parameters are left."
        case ev.RemovalUndone():
            stays = "it stays" if sum(len(u.units) for u in event.units) == 1 else "they stay"
            return f"Taken back: {words(event.units)}. From here on {stays}, and something else goes instead."
        case ev.TargetExtended():
            return f"The target was changed from {event.before:.1%} to {event.target:.1%}."
        case ev.Forked():
            changed = ", ".join(name.replace("_", " ") for name in event.changed)
            another = f", and another {changed}" if changed else ""
            whose = event.name or "another run"
            return f"Goes on from {whose}: {_iterations(event.iterations)} of it taken over{another}."
        case ev.Exported():
            loaded = "with this project's loader" if event.uneven else "plainly"
            return (
                f"Exported {event.bytes / 1e6:.0f} MB and verified: a fresh process loaded it {loaded}, "
                f"{agreement(event.largest_difference)}, and it wrote the same {event.tokens} tokens with "
                "and without the cache."
            )
        case ev.Finished():
            return (
                f"Finished in {clock(event.seconds)}: {event.removed_description} removed, "
                f"{event.parameters / 1e6:.1f}M parameters left, "
                f"peak memory {event.peak_memory / 1e9:.2f} GB."
            )
        case ev.Stopped():
            return (
                f"Stopped. What was decided in {_iterations(event.iterations)} is kept; resume to go on, or "
                "export the model as it is now."
            )
        case ev.Paused():
            return f"Paused. What was decided in {_iterations(event.iterations)} is kept; resume to go on."
        case ev.Failed():
            return event.message
        case _:  # a stage's own event has words of its own
            return event.sentence()


def plan_sentence(target: float, goal: str, share: float) -> str:
    """What a target means in units, said aloud where it is not met exactly."""
    near = "" if abs(share - target) < 0.0005 else f", the nearest to {target:.1%}"
    return f"{goal[0].upper()}{goal[1:]} will go: {share:.1%} of all parameters{near}."


def removed_words(event: ev.Removed) -> str:
    """What went in one iteration, see `words`."""
    return words(event.units)


def words(units: Sequence[Units]) -> str:
    """Units in words: "block 17", "the mlp of block 3", "1,530 channels in 30 blocks"."""
    depth = [u for u in units if u.kind in DEPTH]
    names = [f"block {u.block}" if u.kind == BLOCKS else f"the {u.kind} of block {u.block}" for u in depth]
    for kind in WIDTH:
        losing = [u for u in units if u.kind == kind]
        if losing:
            number = sum(len(u.units) for u in losing)
            names.append(f"{format_count(number, kind)} in {format_count(len(losing), BLOCKS)}")
    return " and ".join(names)


def _went(event: ev.Removed) -> str:
    """What went in an iteration, and how little it mattered."""
    what = removed_words(event)
    if event.forced:
        return f"{what[0].upper()}{what[1:]} went, as you asked."
    kinds = len({unit.kind for unit in event.units})
    much = f"{event.relative:.1%} of the largest{' of their kind' if kinds > 1 else ''}"
    if event.score < 0:
        # Scores that fall below zero have no zero to measure a share from.
        much = f"{event.score:.3g}; the largest is {event.score / event.relative:.3g}"
    if event.count == 1:
        why = f"its score was the lowest ({much})"
    else:
        why = f"their scores were the lowest (at most {much})"
    return f"{what[0].upper()}{what[1:]} went: {why}."


def _iterations(number: int) -> str:
    return "1 iteration" if number == 1 else f"{number} iterations"


def agreement(largest_difference: float) -> str:
    """How well the reloaded model's logits agree with those in memory."""
    return f"its logits agree to {largest_difference:.0e}" if largest_difference else "its logits are equal"


def task_words(task: ev.TaskResult) -> str:
    """How a task's accuracy was taken: metric, items, what is odd about them, the other metric."""
    said = [task.metric, f"{task.items} items", f"chance {task.chance:.0%}"]
    if task.metric == "acc" and task.acc_norm is not None:
        said.append(f"acc_norm {task.acc_norm:.1%} ± {task.acc_norm_se:.1%}")
    if task.metric == "acc_norm" and task.acc is not None:
        said.append(f"acc {task.acc:.1%} ± {task.acc_se:.1%}")
    if task.cut:
        said.append(f"{task.cut} longer than the context, cut at the left")
    if task.duplicates:
        said.append(f"{task.duplicates} repeated")
    return ", ".join(said)


def paired_words(found: Paired) -> str:
    """A difference between two models on the same items, and whether it is one."""
    said = f"{found.difference:+.1%} ± {found.se:.1%}"
    return f"{said}, within noise" if found.noise else said


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
