"""Divide: what each kind of units costs is measured, and the target is divided among them by that."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import TypeVar

import torch

from ...budget.aims import DOES
from ...budget.budget import divides, joining
from ...budget.division import TOKENS, most_tokens, title_of
from ...budget.pruning_budget import prunable_sites
from ...core.decisions import Decided
from ...core.errors import UserError
from ...core.events import Event, Warned, event, value
from ...core.figures import percent
from ...core.settings import MEASURED, Settings, switch, whole
from ...data.calibration import check_finite
from ...data.feeding import feed
from ...data.perturbation import Pair
from ...data.rows import count_tokens, first_batches
from ...reporting.description import Description
from ...structure.families import blocks_of
from ...structure.shape import Shape
from ...structure.sites import Site, sites_of
from ...structure.vocabulary import Vocabulary
from ..context import Context
from ..costs_of_kinds import Kind, drawn, most_of
from ..stage import Cost, Stage
from ..state import RunState
from ..weighing import SHOWN, Speed, Weighing, looking_work, planned_passes
from .aim import Aimed, pause, worth
from .prune_vocabulary import vocabulary_of

Found = TypeVar("Found")
# Tokens per input of the widest projection on which it is looked at what a refit gives back.
LOOKED = 2


class DivideSettings(Settings):
    """On how much text it is measured what each kind of units costs."""

    division_windows: int = whole(
        12,
        1,
        100_000,
        "where the division of the target is measured: calibration windows that nothing was scored on, on "
        "which the cost of each kind is measured",
        "Windows to divide on",
        "Passages on which blocks, channels and tokens are weighed against each other",
    )
    show_division: bool = switch(
        False,
        "where the run measures how the target is divided, or what a speed-up takes: pause with what was "
        "found, before anything is removed; resuming goes on from there and measures nothing anew",
        "Show the division first",
        "Pauses after weighing the kinds, before anything is removed",
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
    `others` are kinds that the recipe does not name and that could have joined: what each would have saved,
    in nats per byte, the standard error of that, and whether it joined. `passes` is the work it took, in
    scoring passes, beside the scores that the first removal goes by as well; an older run has neither. Where
    the target is a speed-up, `speed` is what is to be faster, and how many times as fast a model of this
    shape was measured to be. `given_back` are (kind, share of what it costs that a refit gives back, as it
    was found in a few blocks); the costs are what is left. An older run has none, and went by a constant.
    """

    shares: tuple[Share, ...]
    bytes: int
    held_back: bool
    without_tokens: str
    seconds: float
    others: tuple[tuple[str, float, float, bool], ...] = ()
    passes: float | None = None
    speed: tuple[str, float] | None = None
    given_back: tuple[tuple[str, float], ...] = ()

    def sentence(self) -> str:
        work = "" if self.passes is None else f", the work of {self.passes:.1f} scoring passes"
        return (
            f"{self.words()} It took {self.seconds:.0f} s{work}. So {self.goal} will go: "
            f"{percent(self.planned_share)}."
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
        why = _given_back(self.given_back)
        why += f" No token goes: {self.without_tokens}" if self.without_tokens else ""
        why += "".join(map(_joined_or_not, self.others))
        if self.speed:
            why += f" A model of this shape {DOES[self.speed[0]]} {self.speed[1]:.2f} times as fast here."
        return (
            f"Of {_millions(whole_)} parameters to remove: {' and '.join(parts)}. Measured on {self.bytes:,} "
            f"bytes of {text}, this costs about {chosen}; {', '.join(costs)}.{why}"
        )


def _given_back(found: tuple[tuple[str, float], ...]) -> str:
    if not found:
        return ""
    shares = [(f"about {percent(share, 0)}" if share else "nothing", title_of(kind)) for kind, share in found]
    parts = " and ".join(f"{share} of what {kind} cost" for share, kind in shares)
    return f" The repair gives back {parts}, which is counted in."


def _joined_or_not(other: tuple[str, float, float, bool]) -> str:
    kind, saved, error, joined = other
    name = title_of(kind)[:1].upper() + title_of(kind)[1:]
    if saved <= 0:
        return f" {name} would not have made it cheaper."
    figure = f"{saved:.4f} ± {error:.4f}"
    if joined:
        return f" {name} joined, which saves {figure}."
    return f" {name} would have saved {figure}, which is too little or too uncertain to take them too."


def _headline(divided: Divided) -> str:
    """What went beside, or in place of, the units that the recipe names."""
    going = [share.kind for share in divided.shares if share.size]
    joined = [kind for kind, _, _, joins in divided.others if joins and kind in going]
    if not joined:
        return ""
    instead = set(going) <= {TOKENS, *joined}
    return f"{' and '.join(map(title_of, joined))} went {'instead' if instead else 'too'}, which costs less"


def _named(kind: str) -> str:
    return "tokens that the text needs least" if kind == TOKENS else title_of(kind)


def _millions(count: float) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,.0f}"


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

    @property
    def idle(self) -> Collection[str]:
        return () if divides(self.recipe) else tuple(DivideSettings.model_fields)

    def check(self, context: Context) -> None:
        if context.decided:
            raise UserError(
                "How the target is divided is measured before the first removal, and this run has made some. "
                "Enter a share of rare tokens to remove, or keep no removals.",
                "vocabulary",
            )

    def estimate(self, context: Context) -> Cost:
        recipe, sizes, depth = self.recipe, context.sizes, context.depth(0)
        others = joining(recipe, context.anatomy, context.scorer)
        each = recipe.windows * recipe.window_tokens
        scoring = each * context.scorer.cost(len(_sites(context, (*recipe.units, *others))))
        passes = planned_passes(len(recipe.units), len(others), context.scorer.scores_tokens)
        measuring = recipe.division_windows * recipe.window_tokens * passes
        memory = sizes.resident + 2 * 4 * recipe.window_tokens * sizes.vocabulary
        looking = 0.0
        if recipe.refit:
            read, blocks = LOOKED * sizes.widest_inputs, 1 + int(depth * max(SHOWN))
            looking = looking_work(read, blocks, len(SHOWN) * len(recipe.units))
        return Cost(
            {"scoring": scoring * depth, "dividing": measuring * depth + looking}, memory={"dividing": memory}
        )

    def run(self, state: RunState) -> Iterator[Event]:
        began = time.monotonic()
        pairs, texts, held_back = drawn(state)
        vocabulary, without = _vocabulary(state)
        if without:
            yield Warned(f"The target is divided among {', '.join(self.recipe.units)} alone. {without}")
        kinds, scored = yield from self._scored(state, pairs, vocabulary)
        weighing = Weighing(state, texts, vocabulary, _speed(state))
        if rows := first_batches(state.refit_rows, LOOKED * state.sizes.widest_inputs):
            yield from weighing.look(kinds, rows, count_tokens(state.refit_rows))
        taking, others = yield from weighing.compared(kinds)
        if weighing.speed is not None:
            yield from weighing.checked(taking)
        parts = weighing.divided(taking)
        settled = weighing.settled(parts)
        yield from weighing.points(taking, parts)
        budget = state.budget_by(settled)
        scoring_pass = len(pairs) * state.scorer.cost(len(_sites(state, self.recipe.units)))
        scoring_pass *= self.recipe.window_tokens * state.depth_left
        measured = weighing.work / (scoring_pass or math.inf)
        yield Divided(
            0,
            tuple(settled.items()),
            budget.description,
            budget.iterations,
            budget.share,
            tuple(Share(k.name, parts[k.name], *weighing.costs(k, parts[k.name])) for k in taking),
            sum(weighing.sizes),
            held_back,
            without,
            time.monotonic() - began,
            others,
            scored + measured,
            (weighing.speed.what, weighing.reached) if weighing.speed else None,
            tuple(weighing.given_back.items()),
        )
        if self.recipe.show_division:
            yield from pause()

    def _scored(
        self, state: RunState, pairs: list[Pair], vocabulary: Vocabulary | None
    ) -> Generator[Event, None, tuple[list[Kind], float]]:
        """Every kind with the scores of the dense model's; and the work of it, in scoring passes, beside what
        the first removal takes over."""
        own, others = self.recipe.units, joining(self.recipe, state.anatomy, state.scorer)
        sites = _sites(state, (*own, *others))
        begun = state.scorer.begin_every_kind(state.loaded.model, list(blocks_of(state.loaded.model)), sites)
        if begun is not None:
            steps = feed(begun, pairs, state.calibration.device)
            scores, tokens = yield from _followed(state, steps, len(pairs), state.scorer.cost(len(sites)))
            check_finite([*scores, *tokens.values()])
            extra = 0.0
        else:
            scores, tokens, extra = yield from self._one_by_one(state, pairs, vocabulary, (*own, *others))
        found = []
        if vocabulary is not None:
            most = most_tokens(self.recipe, state.anatomy, len(vocabulary.fixed))
            found.append(Kind(TOKENS, most, scores=tokens))
        pairs_ = list(zip(sites, scores, strict=True))
        # Another method may score a kind otherwise in other company: only its first kind is taken over.
        taken_over = pairs_ if begun is not None else [p for p in pairs_ if p[0].kind == own[0]]
        state.dense_scores = {(site.kind, site.block): one for site, one in taken_over}
        for name in (*own, *others):
            mine = [site for site in sites if site.kind == name]
            of_it = dict(enumerate(one for site, one in pairs_ if site.kind == name))
            found.append(Kind(name, most_of(name, mine, state.anatomy), name in others, mine, of_it))
        return found, extra

    def _one_by_one(
        self, state: RunState, pairs: list[Pair], vocabulary: Vocabulary | None, kinds: Sequence[str]
    ) -> Generator[Event, None, tuple[list[torch.Tensor], dict[int, torch.Tensor], float]]:
        """Where the method takes a pass for each kind: scores of the sites of `kinds`, of tokens by domain,
        and the work beside the first kind's."""
        calibration, scorer, model = state.calibration, state.scorer, state.loaded.model
        by_site: dict[tuple[str, int], torch.Tensor] = {}
        tokens: dict[int, torch.Tensor] = {}
        costs = [scorer.cost(len(_sites(state, (kind,)))) for kind in kinds]
        for kind, cost in zip(kinds, costs, strict=True):
            sites = _sites(state, (kind,))
            steps = calibration.score(scorer, model, list(blocks_of(model)), sites, pairs)
            scores = yield from _followed(state, steps, len(pairs), cost)
            by_site |= {(site.kind, site.block): one for site, one in zip(sites, scores, strict=True)}
        for domain in sorted({pair.domain for pair in pairs}) if vocabulary is not None else ():
            part = [pair for pair in pairs if pair.domain == domain]
            rows = calibration.score_tokens(scorer, model, part)
            tokens[domain] = len(part) * (yield from _followed(state, rows, len(part), scorer.token_cost()))
        extra = sum(costs[1:]) + (scorer.token_cost() if tokens else 0.0)
        found = [by_site[site.kind, site.block] for site in _sites(state, kinds)]
        return found, tokens, extra / costs[0] if costs[0] else 0.0

    @classmethod
    def describe(cls, result: Divided) -> Description:
        return Description(result.sentence(), "", (result.words(),), headline=_headline(result))


def _speed(state: RunState) -> Speed | None:
    """The speed-up that is the target, as it was measured what gains it."""
    aimed = state.results.get("aim")
    # The target may be a share by now, see `runs.operations.extended`.
    if not isinstance(aimed, Aimed) or not state.recipe.target_speedup:
        return None
    return Speed(aimed.what, aimed.times, worth(aimed))


def _sites(context: Context, kinds: Sequence[str]) -> list[Site]:
    """The dense model's sites that may lose something."""
    return prunable_sites(context.recipe, sites_of(context.anatomy, Shape.dense(context.anatomy), kinds))


def _followed(state: RunState, steps: Generator[int, None, Found], pairs: int, cost: float):
    """What scoring `pairs` pairs finds, at `cost` forward passes over a view each."""
    work = pairs * state.recipe.window_tokens * cost * state.depth_left
    return (yield from state.follow(steps, "scoring", pairs, work))


def _vocabulary(state: RunState) -> tuple[Vocabulary | None, str]:
    """The vocabulary, where tokens may go; else None, and why none may."""
    if not state.scorer.scores_tokens:
        return None, f"The method '{state.scorer.name}' is not defined for tokens."
    try:
        found = vocabulary_of(state)
        found.check_written(state.loaded.tokenizer)
    except UserError as error:
        return None, str(error)
    return found, ""
