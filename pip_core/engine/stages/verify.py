"""Verify: the card is written, a fresh process loads the checkpoint, and only then is it put in its place."""

from __future__ import annotations

from collections.abc import Iterator

from ...checkpoints.export import put_in_place, write_card
from ...checkpoints.verify import verify
from ...core.decisions import Decided
from ...core.disk_use import bytes_of
from ...core.events import Event, Exported, Progress
from ...core.progress import map_progress, once_a_second
from ...reporting.model_card import model_card
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState

SECONDS = 12.0


class Verify(Stage):
    """Prove that the checkpoint loads and answers as the model in memory does."""

    name = "verify"
    title = "Verify"
    by_one_process = True
    Result = Exported

    def estimate(self, context: Context) -> Cost:
        return Cost(seconds=SECONDS * context.exporting)

    def needed(self, state: RunState) -> bool:
        return state.out is not None

    def run(self, state: RunState) -> Iterator[Event]:
        out, iterations = state.out, len(state.removals)
        partial, uneven = state.partial, state.shape.uneven() or ""
        assert out is not None
        assert partial is not None
        write_card(partial, _card(state, uneven))
        steps = verify(state.loaded, partial, state.heldout[0])

        def step(seconds: float) -> Progress:
            left = max(0.0, SECONDS - seconds)
            return Progress("verifying", iterations, 0, 1, state.clock.elapsed, left)

        verdict = yield from map_progress(once_a_second(steps), step)
        put_in_place(partial, out)
        yield Exported(
            str(out),
            bytes_of(out),
            iterations,
            verdict.largest_difference,
            verdict.tokens,
            verdict.seconds,
            uneven,
        )


def _card(state: RunState, uneven: str) -> str:
    """The model card, with figures of the weights that were written."""
    iterations = len(state.removals)
    before = state.measured.get(iterations)
    pruned = state.final[iterations] if state.changed else state.measured[iterations]
    changing = {stage.name: stage for stage in state.stages if stage.changes_model}
    done = [changing[name].describe(r) for name, r in state.results.items() if name in changing]
    decided = [r.words() for r in state.results.values() if isinstance(r, Decided)]
    return model_card(
        recipe=state.recipe,
        started=state.started,
        licence=state.loaded.source.licence,
        removals=state.removals,
        dense=state.measured[0],
        pruned=pruned,
        removed_description=state.removed_description,
        uneven=uneven,
        reproducible=state.reproducible,
        warnings=state.warnings,
        before_stages=before if state.changed else None,
        descriptions=done,
        decisions=decided,
    )
