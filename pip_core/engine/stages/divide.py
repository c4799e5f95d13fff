"""Divide: what each kind of units costs is measured, and the target is divided among them by that."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...budget.division import TOKENS, CostCurve, divide, divided, most_tokens, title_of
from ...budget.pruning_budget import prunable_sites
from ...core.curve import CurvePoint
from ...core.decisions import Decided
from ...core.errors import UserError
from ...core.events import Event, Warned, event, value
from ...core.process_group import current
from ...core.recipe import EQUAL
from ...core.settings import MEASURED, Settings, whole
from ...core.units import DEPTH, HEADS
from ...data.perturbation import Pair
from ...reporting.description import Description
from ...scoring.removal_cost import lowest, masked, nats, nats_without
from ...structure.families import blocks_of
from ...structure.shape import Shape
from ...structure.sites import Site, sites_of
from ...structure.vocabulary import Vocabulary, VocabularySubset
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState
from .prune_vocabulary import vocabulary_of

CHART = "What removing costs"
# Shares of the target, or of what can go of a kind where that is less, at which its cost is measured.
SIZES = (0.25, 0.5, 1.0)
# Windows that tokens are scored on, for each that units are scored on.
TOKEN_WINDOWS = 2
# Share of a kind's cost that the refit gives back, measured on two models: see docs/research-log.md.
GIVEN_BACK = {"channels": 0.35, "heads": 0.35, "blocks": 0.5}


class DivideSettings(Settings):
    """On how much text it is measured what each kind of units costs."""

    division_windows: int = whole(
        16,
        1,
        100_000,
        "where the division of the target is measured: calibration windows that nothing was scored on, on "
        "which the cost of each kind is measured",
        "Windows to divide on",
        "Passages on which blocks, channels and tokens are weighed against each other",
    )


@value
class Share:
    """What one kind makes up of the target: `size` parameters, which cost `cost` in nats per byte. `alone` is
    what the whole target would cost of this kind, None where it cannot make it up."""

    kind: str
    size: float
    cost: float
    alone: float | None


@event
class Divided(Decided):
    """The target was divided among kinds of units, by their costs on `bytes` of calibration text. `held_back`
    says whether nothing was scored on that text, `without_tokens` why no token may go; empty where some may.
    """

    shares: tuple[Share, ...]
    bytes: int
    held_back: bool
    without_tokens: str
    seconds: float

    def sentence(self) -> str:
        return (
            f"{self.words()} It took {self.seconds:.0f} s. So {self.goal} will go: {self.planned_share:.1%}."
        )

    def words(self) -> str:
        whole_ = sum(share.size for share in self.shares)
        parts = [f"{_millions(s.size)} from {_named(s.kind)}" for s in self.shares if s.size]
        costs = [
            f"all of it in {title_of(s.kind)} would cost {s.alone:.4f}"
            for s in self.shares
            if s.alone is not None
        ]
        chosen = f"{sum(share.cost for share in self.shares):.4f} nats per byte"
        text = "text that nothing was scored on" if self.held_back else "the calibration text itself"
        why = f" No token goes: {self.without_tokens}" if self.without_tokens else ""
        return (
            f"Of {_millions(whole_)} parameters to remove: {' and '.join(parts)}. Measured on {self.bytes:,} "
            f"bytes of {text}, this costs about {chosen}; {', '.join(costs)}.{why}"
        )


def _named(kind: str) -> str:
    return "tokens that the text needs least" if kind == TOKENS else title_of(kind)


def _millions(count: float) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,.0f}"


@dataclass
class _Kind:
    """One kind under measurement.

    Attributes:
        most: parameters that may go.
        scores: of each site; or, by domain of the text they were scored on, of the rows of the vocabulary,
            added up over its windows.
    """

    kind: str
    most: float
    sites: Sequence[Site] = ()
    scores: Mapping[int, torch.Tensor] = field(default_factory=dict)
    points: list[tuple[float, float]] = field(default_factory=list)


class Divide(Stage):
    """Measure what each kind of units costs, and divide the target among them."""

    name = "divide"
    title = "Divide the target"
    Settings = DivideSettings
    Result = Divided
    invalidated_by = ()

    @property
    def enabled(self) -> bool:
        return self.recipe.vocabulary == MEASURED

    def check(self, context: Context) -> None:
        if context.decided:
            raise UserError(
                "How the target is divided is measured before the first removal, and this run has made some. "
                "State the vocabulary's share of the target (vocabulary), or keep no removals."
            )

    def estimate(self, context: Context) -> Cost:
        recipe, sizes, depth = self.recipe, context.sizes, context.depth(0)
        each = recipe.windows * recipe.window_tokens
        scoring = each * (context.scorer.cost(1) * len(recipe.units))
        if context.scorer.scores_tokens:
            scoring += each * TOKEN_WINDOWS * context.scorer.token_cost()
        measuring = (
            recipe.division_windows * recipe.window_tokens * (1 + len(SIZES) * (1 + len(recipe.units)))
        )
        memory = sizes.resident + 2 * 4 * recipe.window_tokens * sizes.vocabulary
        return Cost({"scoring": scoring * depth, "dividing": measuring * depth}, memory={"dividing": memory})

    def run(self, state: RunState) -> Iterator[Event]:
        began, wanted = time.monotonic(), self.recipe.target * state.anatomy.parameters
        pairs, texts, held_back = _drawn(state)
        vocabulary, without = _vocabulary(state)
        if without:
            yield Warned(f"The target is divided among {', '.join(self.recipe.units)} alone. {without}")
        kinds = yield from self._scored(state, pairs, vocabulary, wanted)
        yield from self._measure(state, kinds, vocabulary, texts, wanted)
        curves = [CostCurve(k.kind, tuple(k.points), k.most) for k in kinds]
        parts = divide(curves, wanted)
        settled = divided(state.recipe, state.anatomy, parts)
        if settled["vocabulary"]:
            share = most_tokens(self.recipe, state.anatomy, len(vocabulary.fixed) if vocabulary else 0)
            settled["vocabulary_limit"] = round(
                share / state.anatomy.row_parameters / state.anatomy.vocabulary, 6
            )
        yield from _points(curves, parts)
        budget = state.budget_by(settled)
        yield Divided(
            0,
            tuple(settled.items()),
            budget.description,
            budget.iterations,
            budget.share,
            tuple(
                Share(
                    c.kind, parts[c.kind], c.cost(parts[c.kind]) if parts[c.kind] else 0.0, _alone(c, wanted)
                )
                for c in curves
            ),
            sum(len(pair.clean.text.encode()) for pair in texts),
            held_back,
            without,
            time.monotonic() - began,
        )

    def _scored(
        self, state: RunState, pairs: list[Pair], vocabulary: Vocabulary | None, wanted: float
    ) -> Generator[Event, None, list[_Kind]]:
        """Every kind, with the scores of the dense model's units."""
        recipe, anatomy, model = self.recipe, state.anatomy, state.loaded.model
        found = []
        depth = state.depth_left
        if vocabulary is not None:
            domains = sorted({pair.domain for pair in pairs})
            by_domain: dict[int, torch.Tensor] = {}
            for domain in domains:
                own = [pair for pair in pairs if pair.domain == domain]
                work = len(own) * recipe.window_tokens * state.scorer.token_cost() * depth
                rows = state.calibration.score_tokens(state.scorer, model, own)
                by_domain[domain] = len(own) * (yield from state.follow(rows, "scoring", len(own), work))
            most = most_tokens(recipe, anatomy, len(vocabulary.fixed))
            found.append(_Kind(TOKENS, most, scores=by_domain))
        first = pairs[: recipe.windows]
        for name in recipe.units:
            sites = prunable_sites(recipe, sites_of(anatomy, Shape.dense(anatomy), (name,)))
            work = len(first) * recipe.window_tokens * state.scorer.cost(len(sites)) * depth
            scoring = state.calibration.score(state.scorer, model, list(blocks_of(model)), sites, first)
            scores = yield from state.follow(scoring, "scoring", len(first), work)
            found.append(_Kind(name, _most(name, sites, anatomy), sites, dict(enumerate(scores))))
        return [kind for kind in found if kind.most > 0 and wanted > 0]

    def _measure(
        self,
        state: RunState,
        kinds: Sequence[_Kind],
        vocabulary: Vocabulary | None,
        texts: Sequence[Pair],
        wanted: float,
    ) -> Iterator[Event]:
        """Measure the cost of each kind at some sizes, the smallest first."""
        model, recipe = state.loaded.model, self.recipe
        size = sum(len(pair.clean.text.encode()) for pair in texts)
        work = len(texts) * recipe.window_tokens * state.depth_left
        dense = yield from state.follow(
            _total(nats(model, _ids(current().share(texts))), len(texts)), "dividing", len(texts), work
        )
        back = GIVEN_BACK if recipe.refit else {}
        trials: dict[tuple[int, int], Generator[int, None, float]] = {}
        for n, kind in enumerate(kinds):
            for share in SIZES:
                parameters = share * min(wanted, kind.most)
                if kind.kind == TOKENS:
                    assert vocabulary is not None
                    count = int(parameters / state.anatomy.row_parameters)
                    removed, steps = (
                        count * state.anatomy.row_parameters,
                        _without(model, vocabulary, kind.scores, count, texts),
                    )
                else:
                    units, removed = _units(recipe.allocation == EQUAL, kind, parameters)
                    steps = _silenced(model, kind.sites, units, texts)
                if removed:  # not fewer than the least that can go
                    trials[removed, n] = steps
        for (removed, n), steps in sorted(trials.items(), key=lambda trial: trial[0]):
            kind = kinds[n]
            found = yield from state.follow(steps, "dividing", len(texts), work)
            cost = (found - dense) / size * (1 - back.get(kind.kind, 0.0))
            kind.points.append((float(removed), cost))
            yield _point(removed, [(title_of(kind.kind), cost)], "measured")

    @classmethod
    def describe(cls, result: Divided) -> Description:
        return Description(result.sentence(), "", (result.words(),))


def _drawn(state: RunState) -> tuple[list[Pair], list[Pair], bool]:
    """Pairs to score on, windows to measure on, and whether these are others. A short text holds none that
    could be held back; then it is measured on what was scored on."""
    recipe = state.recipe
    for times in range(TOKEN_WINDOWS, 0, -1):
        scored = times * recipe.windows
        try:
            pairs = state.calibration.pairs(1, scored + recipe.division_windows)
        except UserError:
            continue
        return pairs[:scored], pairs[scored:], True
    pairs = state.calibration.pairs(1)
    return pairs, pairs[: recipe.division_windows], False


def _vocabulary(state: RunState) -> tuple[Vocabulary | None, str]:
    """The vocabulary, where tokens may go; else None, and why none may."""
    if not state.scorer.scores_tokens:
        return None, f"The method '{state.scorer.name}' is not defined for tokens."
    try:
        return vocabulary_of(state), ""
    except UserError as error:
        return None, str(error)


def _ids(texts: Sequence[Pair]) -> list[torch.Tensor]:
    return [pair.clean.ids for pair in texts]


def _total(losses: Iterator[float], texts: int) -> Generator[int, None, float]:
    """The sum over all processes, each of which has the losses of its share of the texts; says after each how
    many are done."""
    total, group = 0.0, current()
    for done, one in enumerate(losses, 1):
        total += one
        yield min(done * group.size, texts)
    return sum(group.gather(total))


def _without(
    model, vocabulary: Vocabulary, scores: Mapping[int, torch.Tensor], count: int, texts: Sequence[Pair]
) -> Generator[int, None, float]:
    """The loss without `count` tokens. A text of a domain is judged on tokens that were chosen on the others,
    where there are others: tokens are needed or not by what a text is about, and the model will read more
    than its calibration text."""
    whole_ = torch.stack(list(scores.values())).sum(dim=0)
    shared = current().share(texts)

    def losses() -> Iterator[float]:
        for domain in sorted({pair.domain for pair in shared}):
            yield from nats_without(model, without(domain), _ids([p for p in shared if p.domain == domain]))

    def without(domain: int) -> VocabularySubset:
        known = whole_ - scores[domain] if len(scores) > 1 and domain in scores else whole_
        return VocabularySubset(vocabulary, vocabulary.keep(known, vocabulary.rows - count))

    return (yield from _total(losses(), len(texts)))


def _silenced(model, sites: Sequence[Site], units, texts: Sequence[Pair]) -> Generator[int, None, float]:
    """The loss with units masked."""

    def losses() -> Iterator[float]:
        for ids in _ids(current().share(texts)):
            with masked(list(blocks_of(model)), sites, units):
                found = sum(nats(model, [ids]))
            yield found

    return (yield from _total(losses(), len(texts)))


def _units(equal: bool, kind: _Kind, parameters: float) -> tuple[dict[int, torch.Tensor], int]:
    """The lowest-scored units that make up about `parameters`, and how many parameters they are: as many from
    every site where `equal`, else wherever they are."""
    costs = [site.cost for site in kind.sites]
    if equal and kind.kind not in DEPTH:
        count = min(round(parameters / sum(costs)), min(s.size for s in kind.sites) - 1)
        if kind.kind == HEADS and not count:
            count = min(1, min(s.size for s in kind.sites) - 1)
        return lowest(list(kind.scores.values()), [count] * len(costs)), count * sum(costs)
    ranked = sorted(
        (float(score) / site.cost, n, place)
        for n, (site, found) in enumerate(zip(kind.sites, kind.scores.values(), strict=True))
        for place, score in enumerate(found.tolist())
    )
    chosen: dict[int, list[int]] = {}
    removed = 0
    for _, n, place in ranked:
        if removed + costs[n] / 2 > parameters:
            break
        chosen.setdefault(n, []).append(place)
        removed += costs[n]
    return {n: torch.tensor(places) for n, places in chosen.items()}, removed


def _most(kind: str, sites: Sequence[Site], anatomy) -> float:
    """Parameters that may go of a kind: never a block's last unit, nor the last block."""
    if kind in DEPTH:
        return float(sum(s.cost for s in sites) - (max(s.cost for s in sites) if sites else 0))
    least = min((s.size for s in sites), default=1) - 1
    if kind == HEADS and anatomy.group_counts:
        least = min(least, max(s.size for s in sites) - min(anatomy.group_counts))
    return float(least * sum(s.cost for s in sites))


def _alone(curve: CostCurve, wanted: float) -> float | None:
    return curve.cost(wanted) if curve.points and wanted <= curve.most else None


def _point(size: float, values: Sequence[tuple[str, float]], note: str) -> CurvePoint:
    return CurvePoint(0, CHART, "parameters removed", "nats per byte", size, tuple(values), note)


def _points(curves: Sequence[CostCurve], parts) -> Iterator[Event]:
    """The chart once more, with the chosen points in it."""
    found: dict[float, list[tuple[str, float]]] = {}
    for curve in curves:
        for size, cost in curve.points:
            found.setdefault(size, []).append((title_of(curve.kind), cost))
        if chosen := parts[curve.kind]:
            found.setdefault(chosen, []).append((f"{title_of(curve.kind)}: chosen", curve.cost(chosen)))
    for size in sorted(found):
        chosen_here = any(name.endswith(": chosen") for name, _ in found[size])
        yield _point(size, found[size], "chosen" if chosen_here else "measured")
