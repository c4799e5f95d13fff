"""What was decided and measured before: the events of earlier attempts that still count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..budget.allocation import complete
from ..budget.pruning_budget import PruningBudget, current_sites
from ..core import events as ev
from ..core.decisions import Decided, settings_of
from ..core.errors import UserError
from ..core.figures import percent
from ..core.recipe import EQUAL, GLOBAL, Recipe
from ..core.units import BLOCKS, DEPTH, TITLES, format_count
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import UnitId, sites_of
from . import identity


@dataclass(frozen=True)
class ReplayState:
    """What a run continues from.

    Attributes:
        measured: the last measurement of every iteration; `final` those of the finished model.
        pinned_units: units whose removal was undone; they stay for the rest of the run.
        operated: whether a removal was undone or taken over from another run, which the recipe does not
            state.
        extended: whether the target was changed on the way.
        changed_since: settings that were changed since the last worker began.
        decided: what the run decided that its recipe had left open.
    """

    started: tuple[ev.Started, ...] = ()
    removals: tuple[ev.Removed, ...] = ()
    measured: tuple[ev.Evaluated, ...] = ()
    final: tuple[ev.Evaluated, ...] = ()
    pinned_units: frozenset[UnitId] = frozenset()
    operated: bool = False
    extended: bool = False
    changed_since: frozenset[str] = frozenset()
    decided: tuple[Decided, ...] = ()

    @staticmethod
    def of(events: Iterable[ev.Event]) -> ReplayState:
        """Fold events, oldest first."""
        found = ev.effective_events(events)
        measured = [e for e in found if isinstance(e, ev.Evaluated)]
        return ReplayState(
            tuple(e for e in found if isinstance(e, ev.Started)),
            tuple(e for e in found if isinstance(e, ev.Removed)),
            tuple({e.iteration: e for e in measured if not e.final}.values()),
            tuple({e.iteration: e for e in measured if e.final}.values()),
            frozenset(
                (u.kind, u.block, unit)
                for e in found
                if isinstance(e, ev.RemovalUndone)
                for u in e.units
                for unit in u.units
            ),
            any(
                isinstance(e, ev.RemovalUndone) or (isinstance(e, ev.Forked) and e.iterations) for e in found
            ),
            any(isinstance(e, ev.TargetExtended) for e in found),
            _changed_since(found),
            tuple(e for e in found if isinstance(e, Decided)),
        )

    @property
    def dtype(self) -> str:
        """The number format that it was computed in; empty where nothing was."""
        return self.started[-1].dtype if self.started else ""

    def shape(self, anatomy: Anatomy) -> Shape:
        """What is left of a model of this anatomy.

        Raises:
            UserError: the removals are not of such a model.
        """
        try:
            return Shape.dense(anatomy).without(units for r in self.removals for units in r.units)
        except (ValueError, KeyError):
            raise UserError(
                "What was removed before does not belong to this model. Start a new run."
            ) from None

    def forced_blocks(self, recipe: Recipe, shape: Shape) -> list[int]:
        """The blocks of `recipe.drop` that are still to be removed, in order."""
        return [b for b in recipe.drop if b in shape.blocks and (BLOCKS, b, 0) not in self.pinned_units]

    def reproducing_recipe(
        self, recipe: Recipe, goal: PruningBudget, removals: Sequence[ev.Removed], done: bool, left: float
    ) -> Recipe | None:
        """The recipe that makes the model again which `removals` led to; None where there is none.

        Args:
            done: whether the recipe's target was met.
            left: share of the dense parameters that is left.
        """
        # One at a time, the first do not depend on how many there will be.
        early = recipe.units[-1] in DEPTH and goal.per_iteration == 1 and not goal.phases
        # What was exported early has other shares of blocks, and of tokens, than any smaller target has.
        partly = not done and bool(goal.phases or goal.tokens)
        operated = self.operated or (self.extended and not early) or partly
        if operated and recipe.units == (BLOCKS,) and not goal.tokens:
            # Scores would now come out otherwise; the blocks can be named.
            return recipe.replace(target=1 - left, drop=tuple(b for r in removals for b in r.blocks))
        if operated:
            return None
        # A run exported early says what it reached.
        return recipe if done else recipe.replace(target=1 - left)

    def check(self, recipe: Recipe, anatomy: Anatomy, goal: PruningBudget) -> None:
        """Whether a recipe can go on from here.

        Raises:
            UserError: it is of another model, removes other units, keeps a block that was removed, removes
                more blocks first than the target allows, or asks for a shape that earlier removals rule out.
        """
        for event in self.started:
            if (event.blocks, event.parameters) != (len(anatomy.blocks), anatomy.parameters):
                raise UserError(
                    f"This run began with {event.model} of {event.parameters / 1e6:.1f}M parameters, and "
                    f"'{recipe.model}' now has {anatomy.parameters / 1e6:.1f}M. Start a new run."
                )
        if not self.removals:
            return
        removed_units = {u for r in self.removals for u in r.units}
        if strange := {u.kind for u in removed_units} - set(recipe.units):
            raise UserError(
                f"{' and '.join(TITLES[k] for k in sorted(strange))} were removed already, and a run "
                f"removes one kind of units. Continue with them, or start a new run from the exported model."
            )
        if touched := sorted({u.block for u in removed_units} & set(recipe.keep)):
            raise UserError(
                f"Block {touched[0]} is to be kept, but something was removed from it already. Take it off "
                f"the list, "
                "or continue from an earlier iteration."
            )
        shape = self.shape(anatomy)
        width, uneven = recipe.units[-1] not in DEPTH, shape.uneven()
        if width and uneven and (recipe.plain or recipe.allocation == EQUAL):
            raise UserError(
                f"This cannot go on with all blocks alike: {uneven} already. Choose '{GLOBAL}' for heads and "
                "channels, and allow a model that only this project's own loader can load.",
                "allocation",
            )
        removed = anatomy.parameters - shape.parameters(anatomy)
        unit = max((s.cost for s in sites_of(anatomy, shape, recipe.units)), default=0)
        if removed > goal.parameters + unit * (len(shape.blocks) if goal.width_units else 1) / 2:
            raise UserError(
                f"{percent(removed / anatomy.parameters)} of the parameters were removed already, more than "
                f"a target of {percent(recipe.target)}. Choose a higher one, or continue from an earlier "
                "iteration."
            )
        costs = [anatomy.blocks[b].parameters for b in self.forced_blocks(recipe, shape)]
        if costs and removed + sum(costs) - costs[-1] / 2 > goal.parameters:
            raise UserError(
                f"{percent(removed / anatomy.parameters)} of the parameters were removed already, and the "
                f"{format_count(len(costs), BLOCKS)} to drop would exceed the target of "
                f"{percent(recipe.target)}. Choose a higher target, or drop fewer."
            )

    def complete(self, recipe: Recipe, anatomy: Anatomy, goal: PruningBudget) -> bool:
        """Whether nothing more would go.

        Raises:
            UserError: see `shape`.
        """
        shape = self.shape(anatomy)
        removed = anatomy.parameters - shape.parameters(anatomy)
        sites = current_sites(recipe, goal, anatomy, shape, self.pinned_units)
        return complete(recipe, goal, removed, sites, self.pinned_units)

    def check_same_settings(self, recipe: Recipe) -> None:
        """See `identity.check_settings`."""
        for event in self.started[-1:]:
            identity.check_settings(recipe, event, self.changed_since)

    def check_same_contents(self, recipe: Recipe, now: Mapping[str, str]) -> None:
        """See `identity.check_contents`."""
        for event in self.started[-1:]:
            identity.check_contents(recipe, event, now, self.changed_since)

    def check_same_model(self, now: ev.Started) -> None:
        """A resumed run must go on with the very model it began with.

        Raises:
            UserError: it does not.
        """
        for event in self.started:
            before = (event.model, event.origin, event.parameters, event.dtype)
            if before != (now.model, now.origin, now.parameters, now.dtype):
                raise UserError(
                    f"This run began with {event.model} ({event.origin}, {event.dtype}), but the same "
                    f"reference now gives {now.model} ({now.origin}, {now.dtype}). Start a new run."
                )
            weights = dict(event.pinned).get("weights"), dict(now.pinned).get("weights")
            if all(weights) and weights[0] != weights[1]:
                raise identity.weights_changed(event.model)


def _changed_since(found: Iterable[ev.Event]) -> frozenset[str]:
    """Names of settings that were changed, or decided, after the last worker began."""
    names: set[str] = set()
    for event in found:
        if isinstance(event, ev.Started):
            names = set()
        elif isinstance(event, ev.TargetExtended):
            names |= {"target", "target_bytes", "target_speedup"}
        elif isinstance(event, ev.SettingsChanged):
            names |= set(event.changed)
        elif isinstance(event, Decided):
            names |= set(settings_of(event))
    return frozenset(names)
