"""Kinds of units are weighed against each other: what each costs at some sizes, and how a target is divided
by that.

A target is counted in shares of the parameters; or, where it is a speed-up, in shares of the time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..budget.aims import DOES, time_saved
from ..budget.division import TOKENS, CostCurve, divide, divided, most_tokens, saving, title_of
from ..core.curve import CurvePoint
from ..core.errors import UserError
from ..core.events import Event
from ..core.figures import percent
from ..core.process_group import current
from ..core.recipe import EQUAL
from ..core.units import BLOCKS, DEPTH, MLP
from ..data.perturbation import Pair
from ..data.rows import count_tokens
from ..reconstruction.given_back import Look, shares_given_back
from ..scoring.removal_cost import masked
from ..structure.vocabulary import Vocabulary
from .costs_of_kinds import Kind, Losses, Steps, chosen_units, without_tokens, without_units
from .speed_of_shapes import speed_with
from .state import RunState

CHART = "What removing costs"
# Shares of the target, or of what can go of a kind where that is less, at which its cost is measured. That of
# tokens bends, the others rise almost in a straight line; what may join is looked at half way, and at all of
# it only where it would give more than that.
TOKENS_NEAR, NEAR, FAR = (0.25, 0.5), 0.5, 1.0
# Part of the windows that come first: for a size that the division may not reach, and for a kind that may not
# join. On the others it is measured where it does, or may.
FIRST_WINDOWS = 1 / 3
# Of the cost of the target: what another kind of units has to save to join.
LEAST_SAVED = 0.1
# Where in the model it is looked at what a refit gives back, as parts of the blocks that lose something:
# early, since the text has to be read as far as that; of blocks, so many of those that would go first.
SHOWN, SHOWN_BLOCKS = (1 / 6, 1 / 4), 2
# Forward passes of a block that looking at it takes.
LOOKING_PASSES = 3
# As close to a speed-up as a division has to come, as a part of the time it saves.
CLOSE = 0.05

Other = tuple[str, float, float, bool]


@dataclass(frozen=True)
class Speed:
    """A speed-up to divide.

    Attributes:
        what: what is to be faster, and how many `times` as fast.
        worth: kind -> share of the time that goes with each share of all parameters that is removed of it; of
            kinds that gain anything.
    """

    what: str
    times: float
    worth: Mapping[str, float]


@dataclass(frozen=True)
class Saving:
    """What another kind would save, were it to join.

    Attributes:
        saved: in nats per byte, give or take the standard `error`.
        enough: whether it is enough to join.
        possible: whether it may be, within two standard errors.
    """

    saved: float
    error: float
    enough: bool
    possible: bool


def planned_passes(own: int, others: int, tokens: bool) -> float:
    """Forward passes over all windows that weighing is likely to take: of `own` kinds of units, of `others`
    that may join them, and of tokens."""
    return 1 + 2 * own + others + tokens * (len(TOKENS_NEAR) + FIRST_WINDOWS)


def looking_work(tokens: int, blocks: int, looks: int) -> float:
    """Token-blocks that it takes to look at what a refit gives back, on so many tokens that are read through
    the first `blocks` blocks."""
    return tokens * (blocks + LOOKING_PASSES * looks)


class Weighing:
    """Measures the costs of kinds at some sizes, and divides the target among them.

    Attributes:
        speed: the speed-up that is the target; None where it is a share of the parameters.
        reached: how many times as fast a model of the division was measured to be.
        given_back: kind -> share of its cost that a refit gives back, as `look` found it; of the recipe's own
            kinds.
        work: what all this took so far, in token-blocks.
    """

    def __init__(
        self,
        state: RunState,
        texts: Sequence[Pair],
        vocabulary: Vocabulary | None,
        speed: Speed | None = None,
    ) -> None:
        self.state, self.texts, self.vocabulary, self.speed = state, texts, vocabulary, speed
        self.model, self.recipe = state.loaded.model, state.recipe
        self.sizes = [len(pair.clean.text.encode()) for pair in texts]
        self.dense: list[float] = []
        self.work, self.reached = 0.0, 0.0
        self.given_back: dict[str, float] = {}
        self._wanted = time_saved(speed.times) if speed else self.recipe.target

    # What is measured

    def look(self, kinds: Sequence[Kind], rows: Sequence[torch.Tensor], tokens: int) -> Iterator[Event]:
        """Find out what a refit on `tokens` tokens gives back of the recipe's own kinds, on `rows`."""
        kinds = [k for k in kinds if k.sites and not k.joins and k.most > 0 and self._worth(k.name) > 0]
        looks = {kind.name: self._looks(kind) for kind in kinds}
        each = [look for found in looks.values() for look in found]
        if not each or not rows:
            return
        count = 1 + max(look.position for look in each)
        work = looking_work(count_tokens(rows), count, len(each))
        steps = shares_given_back(self.model, self.state.anatomy, each, rows, tokens)
        measured = yield from self.state.follow(steps, "dividing", count, work)
        self.work += work
        shares = iter(current().gather(measured)[0])
        self.given_back = {
            name: statistics.fmean(next(shares) for _ in found) for name, found in looks.items() if found
        }

    def _looks(self, kind: Kind) -> list[Look]:
        """The blocks in which it is looked at, with the units masked that would go first."""
        for share in (NEAR, FAR):
            units, _ = chosen_units(self.recipe.allocation == EQUAL, kind, self._parameters_at(kind, share))
            before = kind.name in (BLOCKS, MLP)
            places = sorted(units, key=lambda n: kind.sites[n].position)
            places = [n for n in places if not before or kind.sites[n].position]
            if places:
                break
        else:
            return []
        shown = places[:SHOWN_BLOCKS]
        if kind.name not in DEPTH:
            shown = sorted({places[int(len(places) * part)] for part in SHOWN})
        return [
            Look(kind.sites[n].position, before, partial(masked, self.model, kind.sites, {n: units[n]}))
            for n in shown
        ]

    def compared(self, kinds: Sequence[Kind]) -> Generator[Event, None, tuple[list[Kind], tuple[Other, ...]]]:
        """The kinds that take part, and what is to be said of the others. The recipe's own take part. Of the
        others those do with which the target costs less, by more than twice the standard error of that and
        by more than a tenth."""
        kinds = [kind for kind in kinds if kind.most > 0 and self._worth(kind.name) > 0]
        taking = [kind for kind in kinds if not kind.joins]
        yield from self._measure_dense(taking)
        first, every = math.ceil(len(self.texts) * FIRST_WINDOWS), len(self.texts)
        for share, windows in ((NEAR, every), (FAR, first)):
            for kind in taking:
                yield from self._measure(kind, share, windows)
        taking = [kind for kind in taking if kind.losses]
        while (further := self._not_known_as_far(taking)) is not None:
            yield from self._measure(further, FAR, every)
        said: list[Other] = []
        joined = []
        for kind in (kind for kind in kinds if kind.joins):
            yield from self._measure(kind, NEAR, first)
            if not kind.losses:
                continue
            found = self._saved(taking, kind)
            if found.possible:
                yield from self._measure(kind, NEAR, every)
                found = self._saved(taking, kind)
            if found.enough and self._taken(taking, kind) > max(kind.losses):
                yield from self._measure(kind, FAR, every)
                found = self._saved(taking, kind)
            joined += [kind] * found.enough
            said.append((kind.name, found.saved, found.error, found.enough))
        return [*taking, *joined], tuple(said)

    def checked(self, taking: Sequence[Kind]) -> Iterator[Event]:
        """Measure how fast a model of the division is, and go by that: what the kinds gain together is not
        exactly what each gains alone.

        Raises:
            UserError: as `speed_with`.
        """
        assert self.speed is not None
        budget = self.state.budget_by(self.settled(self.divided(taking)))
        found = yield from speed_with(self.state, budget, self.speed.what, self.speed.times)
        self.reached, wanted = found.median, time_saved(self.speed.times)
        saved = time_saved(found.median)
        if abs(saved - wanted) > CLOSE * wanted and saved > 0:
            self._wanted *= wanted / saved
            budget = self.state.budget_by(self.settled(self.divided(taking)))
            found = yield from speed_with(self.state, budget, self.speed.what, self.speed.times)
            self.reached = found.median

    def _measure_dense(self, taking: Sequence[Kind]) -> Iterator[Event]:
        """Measure the dense model, and with it what removing few tokens costs: most texts are written alike
        without these."""
        tokens = next((kind for kind in taking if kind.name == TOKENS), None)
        if tokens is None:
            (self.dense,) = yield from self._passed(without_units(self.model, (), {}, self.texts), self.texts)
            return
        counts = sorted({self._tokens_at(tokens, share) for share in TOKENS_NEAR} - {0})
        steps = self._without_tokens(tokens, (0, *counts), self.texts)
        self.dense, *found = yield from self._passed(steps, self.texts, 1 + len(counts))
        for count, losses in zip(counts, found, strict=True):
            yield self._noted(tokens, count * self.state.anatomy.row_parameters, losses, 0)

    def _measure(self, kind: Kind, share: float, windows: int) -> Iterator[Event]:
        """Measure a kind at a share of the target, on so many windows; nothing where that is less than the
        least that can go, or was measured."""
        if kind.name == TOKENS:
            count = self._tokens_at(kind, share)
            removed = count * self.state.anatomy.row_parameters
        else:
            parameters = self._parameters_at(kind, share)
            units, removed = chosen_units(self.recipe.allocation == EQUAL, kind, parameters)
        known = len(kind.losses.get(removed, ()))
        if not removed or known >= windows:
            return
        texts = self.texts[known:windows]
        if kind.name == TOKENS:
            steps = self._without_tokens(kind, (count,), texts)
        else:
            steps = without_units(self.model, kind.sites, units, texts)
        (losses,) = yield from self._passed(steps, texts)
        yield self._noted(kind, removed, losses, known)

    def _noted(self, kind: Kind, removed: float, losses: Sequence[float], known: int) -> CurvePoint:
        """Take in the losses on the windows from number `known` on; a point of the chart."""
        more = [a - b for a, b in zip(losses, self.dense[known:], strict=False)]
        kind.losses[removed] = [*kind.losses.get(removed, ()), *more]
        return _point(removed, [(title_of(kind.name), self._curve(kind).cost(removed))], "measured")

    def _without_tokens(self, kind: Kind, counts: Sequence[int], texts: Sequence[Pair]) -> Steps:
        assert self.vocabulary is not None
        return without_tokens(self.model, self.vocabulary, kind.scores, counts, texts)

    def _tokens_at(self, kind: Kind, share: float) -> int:
        return int(self._parameters_at(kind, share) / self.state.anatomy.row_parameters)

    def _parameters_at(self, kind: Kind, share: float) -> float:
        """Parameters of a kind that are a share of the target, or of what can go where that is less."""
        return share * min(self._wanted / self._worth(kind.name) * self.state.anatomy.parameters, kind.most)

    def _passed(
        self, steps: Steps, texts: Sequence[Pair], sizes: int = 1
    ) -> Generator[Event, None, list[Losses]]:
        """Drain a forward pass over windows for each of some sizes: the losses by size."""
        each = self.recipe.window_tokens * self.state.depth_left
        found = yield from self.state.follow(steps, "dividing", len(texts), len(texts) * sizes * each)
        self.work += found.tokens * self.state.depth_left
        return found.losses

    def _not_known_as_far(self, taking: Sequence[Kind]) -> Kind | None:
        """A kind of which the division takes more than was measured on all windows."""
        parts = self._parameters(self._divided(taking))
        return next((kind for kind in taking if parts[kind.name] > kind.known(len(self.texts))), None)

    # What follows from it

    def divided(self, taking: Sequence[Kind]) -> dict[str, float]:
        """Parameters to remove of each kind. Where whole units cannot come near to that, since so little is
        left for one kind, that kind is left out.

        Raises:
            UserError: they cannot make it as fast as is asked for.
        """
        found, kinds = self._divided(taking), list(taking)
        while len(kinds) > 1 and not self._meets(self.settled(self._parameters(found))):
            kinds.remove(min(kinds, key=lambda kind: found[kind.name] or math.inf))
            fewer = self._divided(kinds)
            if sum(fewer.values()) < sum(found.values()) * 0.99:
                break
            found = dict.fromkeys(found, 0.0) | fewer
        if self.speed and sum(found.values()) < self._wanted * 0.99:
            each = [(title_of(k.name), k.most / self.state.anatomy.parameters) for k in taking]
            worth = [self._worth(kind.name) for kind in taking]
            most = ", ".join(
                f"{t} {percent(share * w, 0)}" for (t, share), w in zip(each, worth, strict=True)
            )
            raise UserError(
                f"A model that {DOES[self.speed.what]} {self.speed.times:g} times as fast is out of reach: "
                f"{percent(self._wanted, 0)} of the time would have to go, and as measured here at most "
                f"these shares can: {most or 'none'}. Choose a smaller speed-up, or let blocks take part.",
                "target_speedup",
            )
        return self._parameters(found)

    def _divided(self, taking: Sequence[Kind]) -> dict[str, float]:
        """What of the target each kind makes up."""
        return divide([self._scaled(kind) for kind in taking], self._wanted)

    def settled(self, parts: Mapping[str, float]) -> dict[str, float | str | tuple[str, ...]]:
        """The settings that remove these parameters of each kind."""
        recipe, anatomy = self.recipe, self.state.anatomy
        found = divided(recipe, anatomy, parts)
        if found["vocabulary"]:
            fixed = len(self.vocabulary.fixed) if self.vocabulary else 0
            share = most_tokens(recipe, anatomy, fixed) / anatomy.row_parameters / anatomy.vocabulary
            found["vocabulary_limit"] = round(share, 6)
        if self.speed:
            found |= {"target": round(sum(parts.values()) / anatomy.parameters, 6), "target_speedup": ""}
        return found

    def costs(self, kind: Kind, size: float) -> tuple[float, float | None]:
        """What removing `size` parameters of a kind costs, and what the whole target would, in nats per byte;
        None where the kind cannot make it up."""
        whole = self._wanted / self._worth(kind.name) * self.state.anatomy.parameters
        curve = self._curve(kind)
        return (curve.cost(size) if size else 0.0), (curve.cost(whole) if whole <= curve.most else None)

    def points(self, taking: Sequence[Kind], parts: Mapping[str, float]) -> Iterator[Event]:
        """The chart once more, with the chosen points in it."""
        found: dict[float, list[tuple[str, float]]] = {}
        for kind in taking:
            curve, title = self._curve(kind), title_of(kind.name)
            for size, cost in curve.points:
                found.setdefault(size, []).append((title, cost))
            if chosen := parts[kind.name]:
                found.setdefault(chosen, []).append((f"{title}: chosen", curve.cost(chosen)))
        for size in sorted(found):
            chosen_here = any(name.endswith(": chosen") for name, _ in found[size])
            yield _point(size, found[size], "chosen" if chosen_here else "measured")

    def _taken(self, taking: Sequence[Kind], other: Kind) -> float:
        """Parameters that another kind would give, were it to join."""
        return self._parameters(self._divided((*taking, other)))[other.name]

    def _saved(self, taking: Sequence[Kind], other: Kind) -> Saving:
        """What another kind saves, on the windows that it was measured on."""
        windows = range(min(map(len, other.losses.values())))
        own, together = (
            [self._scaled(kind, windows, windows) for kind in kinds] for kinds in (taking, (*taking, other))
        )
        without, with_it = divide(own, self._wanted), divide(together, self._wanted)
        # What the own kinds cannot make up does not come cheaper by another, but becomes possible.
        short = sum(without.values()) < self._wanted * 0.999
        each = [[self._scaled(k, (n,), windows) for k in (*taking, other)] for n in windows]
        saved, error = saving(each, without, with_it)
        least = LEAST_SAVED * sum(curve.cost(without[curve.kind]) for curve in own)
        settled = self.settled(self._parameters(with_it))
        units = settled["units"]
        fits = isinstance(units, tuple) and other.name in units and self._meets(settled)
        return Saving(
            saved,
            error,
            fits and (short or saved > max(2 * error, least)),
            short or (saved > 0 and saved + 2 * error > least),
        )

    def _meets(self, settled: Mapping[str, object]) -> bool:
        """Whether a budget can be made of a division."""
        try:
            self.state.budget_by(settled)
        except UserError:
            return False
        return True

    def _worth(self, kind: str) -> float:
        return self.speed.worth.get(kind, 0.0) if self.speed else 1.0

    def _parameters(self, parts: Mapping[str, float]) -> dict[str, float]:
        """What a division takes of the target, in parameters."""
        return {k: part / self._worth(k) * self.state.anatomy.parameters for k, part in parts.items()}

    def _curve(
        self, kind: Kind, windows: Sequence[int] | None = None, of: Sequence[int] | None = None
    ) -> CostCurve:
        """The cost of a kind on some windows as a part of what it is `of` others; of all where they are left
        out."""
        every = range(len(self.sizes))
        whole = sum(self.sizes[n] for n in of or every)
        return kind.curve(self.sizes, self._given_back(kind), windows or every, whole)

    def _given_back(self, kind: Kind) -> float:
        """Share of a kind's cost that a refit gives back. What could join is credited with no more than the
        recipe's own kinds of units."""
        least = min(self.given_back.values(), default=0.0) if kind.sites and kind.joins else 0.0
        return self.given_back.get(kind.name, least)

    def _scaled(
        self, kind: Kind, windows: Sequence[int] | None = None, of: Sequence[int] | None = None
    ) -> CostCurve:
        """A curve (see `_curve`) by how much of the target is made up, in place of parameters."""
        curve, each = self._curve(kind, windows, of), self._worth(kind.name) / self.state.anatomy.parameters
        points = tuple((size * each, cost) for size, cost in curve.points)
        return replace(curve, points=points, most=curve.most * each)


def _point(size: float, values: Sequence[tuple[str, float]], note: str) -> CurvePoint:
    return CurvePoint(0, CHART, "parameters removed", "nats per byte", size, tuple(values), note)
