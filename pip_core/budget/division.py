"""Dividing a target among kinds of units by what they cost: pure functions of measured costs.

The cost of a kind, `c_k(n)`, is what removing its `n` least important parameters adds to the loss. It is
measured at a few `n`; its slope, the marginal cost per parameter, rises evenly from the middle of one
segment to the next. The target is spent greedily: every step goes to the kind whose next parameters cost
least.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ..core.cached import cached_property
from ..core.errors import UserError
from ..core.figures import percent
from ..core.recipe import Recipe
from ..core.units import BLOCKS, HEADS, KINDS, TITLES, WIDTH
from ..structure.anatomy import Anatomy
from ..structure.sites import UnitId
from ..structure.vocabulary import MULTIPLE
from .pruning_budget import PruningBudget
from .targets import most_of_width, target_text, titles, unit_budget, with_vocabulary

TOKENS = "tokens"
# Shares of the vocabulary that are tried, where the division is still open, until one can be met: the plan
# speaks of the first. 0 is no tokens at all, 1 nothing else.
TRIED = (0.25, 0.5, 0.75, 1.0, 0.0)
STEPS = 2000


@dataclass(frozen=True)
class CostCurve:
    """What removing more and more of one kind costs.

    Attributes:
        kind: "tokens" or a kind of units.
        points: (parameters removed, cost in nats per byte), ascending, without the origin.
        most: parameters of this kind that may go.
    """

    kind: str
    points: tuple[tuple[float, float], ...]
    most: float

    @cached_property
    def _slopes(self) -> tuple[list[float], list[float]]:
        """Middles of the measured segments and the slopes there, which do not fall: where a measured slope
        is less than one before it, both are their mean."""
        middles, pools, before = [], list[tuple[float, float, int]](), (0.0, 0.0)  # slope, length, segments
        for size, cost in self.points:
            length = size - before[0]
            middles.append(before[0] + length / 2)
            pools.append(((cost - before[1]) / length, length, 1))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (one, long_, many), (other, length_, more) = pools[-2:]
                whole = long_ + length_
                pools[-2:] = [((one * long_ + other * length_) / whole, whole, many + more)]
            before = size, cost
        return middles, [slope for slope, _, count in pools for _ in range(count)]

    def marginal(self, size: float) -> float:
        """Cost per further parameter once `size` parameters are removed, in nats per byte."""
        middles, slopes = self._slopes
        if len(slopes) == 1:
            return slopes[0]
        # Behind the last middle the slope goes on as it ended. Before the first it is as measured there: if
        # it fell on towards the origin, the first of a kind would be free because its later ones cost much.
        size = max(size, middles[0])
        n = min(max(bisect(middles, size), 1), len(middles) - 1)
        rise = (slopes[n] - slopes[n - 1]) / (middles[n] - middles[n - 1])
        return slopes[n - 1] + rise * (size - middles[n - 1])

    def cost(self, size: float) -> float:
        """Cost of removing `size` parameters, in nats per byte: measured at the points, and between and
        behind them in straight lines."""
        (a, x), (b, y) = (0.0, 0.0), self.points[0]
        for point in self.points[1:]:
            if size > b:
                (a, x), (b, y) = (b, y), point
        return x + (y - x) * (size - a) / (b - a)


def divide(curves: Sequence[CostCurve], wanted: float) -> dict[str, float]:
    """Parameters to remove of each kind, `wanted` in all or as many as may go.

    Of kinds that cost the same the one that comes first is taken.
    """
    step, taken = wanted / STEPS, {curve.kind: 0.0 for curve in curves}
    for _ in range(STEPS):
        open_ = [c for c in curves if taken[c.kind] + step <= c.most + step / 2]
        if not open_:
            break
        cheapest = min(open_, key=lambda c: c.marginal(taken[c.kind] + step / 2))
        taken[cheapest.kind] += step
    return taken


def saving(
    windows: Sequence[Sequence[CostCurve]], before: Mapping[str, float], after: Mapping[str, float]
) -> tuple[float, float]:
    """What one division costs less than another, in nats per byte, and the standard error of that.

    Args:
        windows: the curves of each window of text, whose costs add up to those of all.
        before, after: parameters to remove of each kind.
    """
    each = [
        sum(c.cost(before.get(c.kind, 0.0)) - c.cost(after.get(c.kind, 0.0)) for c in curves)
        for curves in windows
    ]
    error = statistics.stdev(each) * math.sqrt(len(each)) if len(each) > 1 else math.inf
    return sum(each), error


def divided(
    recipe: Recipe, anatomy: Anatomy, parts: Mapping[str, float]
) -> dict[str, float | str | tuple[str, ...]]:
    """The settings that remove as near to `parts` (kind -> parameters) as whole units allow.

    What is less than half of the least that can go of a kind is left to the others.

    Returns:
        `units`, `vocabulary` and what else the division takes, by name.
    """
    least = {TOKENS: MULTIPLE * anatomy.row_parameters, BLOCKS: anatomy.blocks[0].parameters}
    for kind in WIDTH:
        widths = [b.widths[kind] for b in anatomy.blocks if kind in b.widths]
        least[kind] = sum(w.cost * w.portions for w in widths)
    found = {kind: size for kind, size in parts.items() if size >= least.get(kind, 1) / 2}
    whole = sum(found.values())
    units = tuple(kind for kind in KINDS if kind in found)
    inside = sum(found[kind] for kind in units)
    settled: dict[str, float | str | tuple[str, ...]] = {
        "units": units or recipe.units,
        "vocabulary": round(found.get(TOKENS, 0.0) / whole, 6) if units else 1.0,
    }
    if BLOCKS in units and len(units) > 1:
        settled["depth_share"] = round(found[BLOCKS] / inside, 6)
    if (both := [found[kind] for kind in WIDTH if kind in units]) and len(both) > 1:
        settled["head_share"] = round(found.get(HEADS, 0.0) / sum(both), 6)
    return settled


def most_tokens(recipe: Recipe, anatomy: Anatomy, fixed: int = 0) -> float:
    """Parameters that rows of the vocabulary may make up where the division is measured.

    Args:
        fixed: tokens that must stay; these are known once the tokenizer is read.
    """
    rows = anatomy.vocabulary
    limit = rows if isinstance(recipe.vocabulary_limit, str) else int(rows * recipe.vocabulary_limit)
    count = min(limit, rows - max(fixed, MULTIPLE)) // MULTIPLE * MULTIPLE
    return count * anatomy.row_parameters


def open_budget(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId] = frozenset()) -> PruningBudget:
    """What a recipe whose division is measured will remove, as far as that is known before: the plan counts
    on the first of some divisions that meets the target.

    Raises:
        UserError: none does; the sentence says the most that can go of each kind.
    """
    limit = recipe.vocabulary_limit
    limit = 1 - MULTIPLE / anatomy.vocabulary if isinstance(limit, str) else limit
    for share in TRIED:
        stated = recipe.replace(vocabulary=share, vocabulary_limit=limit)
        try:
            budget = (with_vocabulary if share else unit_budget)(stated, anatomy, pinned_units)
        except UserError:
            continue
        words = f"{titles(recipe)} and tokens, as many of each as is measured to cost least"
        return replace(budget, description=words)
    tokens = most_tokens(recipe, anatomy) / anatomy.parameters
    each = {kind: most_of_width(anatomy, kind) / anatomy.parameters for kind in recipe.units if kind in WIDTH}
    if len(each) == len(recipe.units) and tokens + sum(each.values()) < recipe.target:
        most = [f"{title_of(kind)} {percent(share)}" for kind, share in {TOKENS: tokens, **each}.items()]
        raise UserError(
            f"{target_text(recipe)} is out of reach: at most these shares of the parameters can go: "
            f"{', '.join(most)}. Choose a smaller one, or let whole blocks take part."
        )
    # What units alone are refused for is what the sentence about them should say.
    try:
        unit_budget(recipe.replace(vocabulary=0.0), anatomy, pinned_units)
    except UserError as error:
        if recipe.target * anatomy.parameters < MULTIPLE * anatomy.row_parameters:
            raise  # less than the least that can go, of tokens too
        raise UserError(
            f"{target_text(recipe)} is out of reach of {titles(recipe)} and tokens together. Tokens hold at "
            f"most {percent(tokens)} of the parameters, and of {titles(recipe)} alone: {error}"
        ) from None
    raise AssertionError("a division that was refused is met")


def title_of(kind: str) -> str:
    """A kind as people read it, tokens among them."""
    return TITLES.get(kind, kind)
