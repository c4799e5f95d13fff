"""Export: the weights are rounded to the number format they are stored in, and written beside the final
folder."""

from __future__ import annotations

from collections.abc import Iterator

from ...checkpoints.export import check_space, prepare_folder, round_to_stored, write_checkpoint
from ...core.events import Event, Progress
from ...core.process_group import current
from ...data.private import shareable
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState

SECONDS = 3.0


class Export(Stage):
    """Write the model as it stands. What is measured from here on are exactly the weights that are
    written."""

    name = "export"
    title = "Export"

    def estimate(self, context: Context) -> Cost:
        return Cost(seconds=SECONDS * context.exporting)

    def prepare(self, state: RunState) -> None:
        if state.out is not None and current().first:
            check_space(state.loaded, state.out.parent, 1 - state.budget.share)

    def needed(self, state: RunState) -> bool:
        return state.finishing or state.out is not None

    def run(self, state: RunState) -> Iterator[Event]:
        # A run without an export rounds too: its figures are those that an export of it would have.
        state.changed |= round_to_stored(state.loaded.model, state.loaded.stored)
        if state.out is None or not current().first:
            return
        iterations, elapsed = len(state.removals), state.clock.elapsed
        yield Progress("exporting", iterations, 0, 1, elapsed, state.clock.remaining())
        left = state.parameters / state.anatomy.parameters
        again = state.past.reproducing_recipe(
            state.recipe, state.budget, state.removals, state.complete, left
        )
        state.reproducible = again is not None and not state.cut_short and not state.left_out
        recipe, left_out = shareable((again or state.recipe).to_dict())
        facts = {
            "recipe": recipe,
            "left_out": left_out,
            "removed": state.removed_description,
            **state.shape.to_dict(),
        }
        state.partial = prepare_folder(state.out)
        write_checkpoint(state.loaded, state.shape, state.partial, facts)
        state.clock.skip()
