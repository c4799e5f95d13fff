"""Aim: where a target is a speed-up, it is measured on this machine what it takes."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ...budget.aims import DOES, speedup_of, time_saved
from ...budget.budget import joining
from ...budget.division import TOKENS, title_of
from ...budget.pruning_budget import PruningBudget
from ...core.decisions import Decided
from ...core.errors import UserError
from ...core.events import Event, Paused, event
from ...core.figures import percent
from ...core.progress import Halted
from ...core.recipe import EQUAL
from ...core.settings import MEASURED
from ...core.units import BLOCKS, DEPTH
from ...reporting.description import Description
from ..context import Context
from ..speed_of_shapes import speed_with, timing_work
from ..stage import Cost, Stage
from ..state import RunState

# Parts of the guessed target at which a kind is timed, the first that it can make up; how often a share is
# tried until it is as fast as is asked for, and up to what part of the time that is to be saved.
PARTS, TRIES, NEAR = (1.0, 0.5, 0.25, 0.125), 3, 0.05
# A kind cannot pay whose parameters take less than this part of the time that an average one takes.
LEAST_WORTH = 0.1


@event
class Aimed(Decided):
    """It was measured what it takes to make a model `times` as fast at `what`. `timed` are (kind, share of
    all parameters that was removed of it, how many times as fast the model was then, and that in the lower
    and upper quartile of the rounds); "all" stands for everything that the recipe removes.
    """

    what: str
    times: float
    timed: tuple[tuple[str, float, float, float, float], ...]

    def sentence(self) -> str:
        return self.words()

    def words(self) -> str:
        found = "; ".join(
            f"without {percent(share)} of the parameters{'' if kind == ALL else f', all in {title_of(kind)}'}"
            f", it {DOES[self.what]} {ratio:.2f} times as fast ({low:.2f} to {high:.2f})"
            for kind, share, ratio, low, high in self.timed
        )
        then = f" So {self.goal} will go: {percent(self.planned_share)}." if self.settled else ""
        return f"Measured on this machine for {self.times:g} times: {found}.{then}"


ALL = "all"


class Aim(Stage):
    """Measure what a speed-up takes."""

    name = "aim"
    title = "Measure what gains speed"
    Result = Aimed
    invalidated_by = ()
    not_shared = True

    @property
    def enabled(self) -> bool:
        return bool(self.recipe.target_speedup)

    def check(self, context: Context) -> None:
        recipe = self.recipe
        if context.decided:
            raise UserError("A speed-up is measured before the first removal: state a share (target).")
        if recipe.allocation != EQUAL or set(recipe.units) & set(DEPTH) - {BLOCKS}:
            raise UserError(
                "A speed-up can be measured where all blocks lose the same, or go whole. Choose blocks, "
                f"heads or channels with the allocation '{EQUAL}', or state a share (target).",
                "target_speedup",
            )

    def needed(self, state: RunState) -> bool:
        return self.name not in state.results

    def estimate(self, context: Context) -> Cost:
        times = TRIES if self.recipe.vocabulary != MEASURED else 1 + len(_kinds(context))
        smaller = context.sizes.weights * (1 - self.recipe.target * min(PARTS))
        return Cost(
            {"timing": times * timing_work(context)}, memory={"timing": context.sizes.resident + smaller}
        )

    def run(self, state: RunState) -> Iterator[Event]:
        what, times = speedup_of(self.recipe.target_speedup)
        if state.offloads:
            raise UserError(
                "A speed-up cannot be measured of a model whose blocks are brought to the device one by one, "
                "since it does not fit. State a share of the parameters (target).",
                "target_speedup",
            )
        if self.recipe.vocabulary == MEASURED:
            timed = []
            for kind in _kinds(state):
                if (budget := _alone(state, kind)) is not None:
                    found = yield from speed_with(state, budget, what, times)
                    timed.append((kind, budget.share, found.median, found.low, found.high))
            settled: dict[str, float | str] = {}
            budget = state.budget
        else:
            settled, budget, timed = yield from self._found(state, what, times)
        yield Aimed(
            0,
            tuple(settled.items()),
            budget.description,
            budget.iterations,
            budget.share,
            what,
            times,
            tuple(timed),
        )
        if settled and self.recipe.show_division:
            yield from pause()

    def _found(self, state: RunState, what: str, times: float) -> Generator[Event, None, tuple]:
        """The share of the parameters with which it is as fast as is asked for: the share that was tried is
        scaled by the time that it saved."""
        target, timed, wanted = self.recipe.target, [], time_saved(times)
        closest: tuple[float, float, PruningBudget] | None = None
        for _ in range(TRIES):
            try:
                budget = state.budget_by({"target": target})
            except UserError as error:
                if closest is None and target > wanted * min(PARTS):
                    target /= 2
                    continue
                raise UserError(f"{_out_of_reach(what, times)} {error}", "target_speedup") from None
            found = yield from speed_with(state, budget, what, times)
            timed.append((ALL, budget.share, found.median, found.low, found.high))
            saved = time_saved(found.median)
            if closest is None or abs(saved - wanted) < closest[0]:
                closest = abs(saved - wanted), target, budget
            if closest[0] <= NEAR * wanted:
                break
            if saved <= LEAST_WORTH * wanted:
                raise UserError(
                    f"{_out_of_reach(what, times)} Without {budget.description} it was measured to be "
                    f"{found.median:.2f} times as fast. Choose units that gain more, such as blocks.",
                    "target_speedup",
                )
            target = min(budget.share * wanted / saved, 0.99)
        assert closest is not None
        _, target, budget = closest
        return {"target": target, "target_speedup": ""}, budget, timed

    @classmethod
    def describe(cls, result: Aimed) -> Description:
        return Description(result.sentence(), "", (result.words(),))


def pause() -> Iterator[Event]:
    """End the run before its first removal, with what was decided, so that it can be looked at.

    Raises:
        Halted: always.
    """
    yield Paused(0)
    raise Halted


def worth(aimed: Aimed) -> dict[str, float]:
    """What each kind is worth, of those that can pay: the share of the time that goes with a share of the
    parameters. It is taken to be the same at any size as at the one that was timed."""
    found = {kind: time_saved(ratio) / share for kind, share, ratio, _, _ in aimed.timed}
    return {kind: value for kind, value in found.items() if value > LEAST_WORTH}


def _kinds(context: Context) -> tuple[str, ...]:
    """Kinds whose worth is measured one by one."""
    tokens = (TOKENS,) if context.scorer.scores_tokens else ()
    return (*tokens, *context.recipe.units, *joining(context.recipe, context.anatomy, context.scorer))


def _alone(context: Context, kind: str) -> PruningBudget | None:
    """The budget with which a kind is timed; None where it cannot lose even a part of the target."""
    for part in PARTS:
        settings: dict[str, object] = {"units": (kind,), "vocabulary": 0.0}
        if kind == TOKENS:
            settings = {"vocabulary": 1.0, "vocabulary_limit": 0.999}
        try:
            return context.budget_by({**settings, "target": context.recipe.target * part})
        except UserError:
            continue
    return None


def _out_of_reach(what: str, times: float) -> str:
    return f"A model that {DOES[what]} {times:g} times as fast is out of reach."
