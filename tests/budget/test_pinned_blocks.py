"""Blocks to keep and to drop, units that are pinned, and a target that changes on the way."""

from __future__ import annotations

import pytest
import torch

from pip_core.budget.allocation import choose, complete
from pip_core.budget.budget import budget_of
from pip_core.budget.pruning_budget import prunable_sites
from pip_core.checkpoints.load import config_of
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.engine.run import run
from pip_core.planning import estimate
from pip_core.planning.estimate import make_plan
from pip_core.scoring import get_scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of

from .. import tiny
from ..removals import THREE, WIDTH, removed_blocks, removed_units


def budget_for_recipe(recipe: Recipe, pinned_units=frozenset()):
    return budget_of(recipe, anatomy_of(config_of(recipe.model)), pinned_units)


def refusal(recipe: Recipe) -> str:
    with pytest.raises(UserError) as refused:
        budget_for_recipe(recipe)
    return str(refused.value)


def test_kept_blocks_are_neither_scored_nor_removed(recipe):
    free = list(run(recipe))
    first = removed_blocks(free)[0]
    kept = list(run(recipe.replace(keep=(first,))))
    assert first not in removed_blocks(kept)
    assert len(removed_blocks(kept)) == len(removed_blocks(free))
    scored = tiny.only(kept, ev.Scored)[0].scores
    assert scored[first] is None
    # The others' scores are what they were, and the lowest of them went.
    before = tiny.only(free, ev.Scored)[0].scores
    assert [s for i, s in enumerate(scored) if i != first] == [s for i, s in enumerate(before) if i != first]
    assert removed_blocks(kept)[0] == min((s, i) for i, s in enumerate(before) if i != first)[1]


def test_dropped_blocks_go_first_in_the_order_asked_for(recipe):
    recipe = recipe.replace(target=THREE, drop=(3, 0))
    found = list(run(recipe))
    first, second, third = ev.removals(found)
    assert (first.blocks, second.blocks) == ((3,), (0,))
    assert (first.forced, second.forced, third.forced) == (True, True, False)
    assert (first.score, first.relative) == (0.0, 0.0)
    assert [e.iteration for e in tiny.only(found, ev.Scored)] == [3]
    assert [e.iteration for e in tiny.only(found, ev.Evaluated)] == [0, 1, 2, 3]
    assert third.score > 0
    started = tiny.only(found, ev.Started)[0]
    assert (started.planned, started.goal) == (3, "3 of 5 blocks (2 named in the recipe)")


def test_what_is_asked_for_counts_in_the_plan(recipe, monkeypatch):
    monkeypatch.setattr(estimate, "seconds_per_token", lambda *_: 1.0)
    free, asked = make_plan(recipe), make_plan(recipe.replace(drop=(0,)))
    assert asked.iterations == free.iterations == 2
    scoring = recipe.windows * recipe.window_tokens * get_scorer(recipe.method).cost(5)
    assert free.seconds - asked.seconds == pytest.approx(scoring)
    every = make_plan(recipe.replace(drop=(0, 1)))
    assert every.seconds < asked.seconds


def test_a_kept_block_makes_the_target_count_the_others(recipe):
    budget = budget_for_recipe(recipe.replace(keep=(0, 1), target=0.28))
    assert (budget.iterations, budget.description) == (3, "3 of 5 blocks")
    assert "2 of 5 blocks are kept" in refusal(recipe.replace(keep=(0, 1), target=0.4))
    # With one kept, all others may go: the last block is not at stake.
    assert budget_for_recipe(recipe.replace(keep=(0,), target=0.38)).iterations == 4
    assert removed_blocks(list(run(recipe.replace(keep=(0,), target=0.38)))) != []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": (1,), "drop": (1, 2)}, "Block 1 cannot be kept and dropped at once"),
        ({"keep": (5,)}, "There is no block 5: the blocks of this model are numbered 0 to 4."),
        ({"drop": (7,)}, "There is no block 7"),
        (
            {"drop": (0, 1, 2)},
            "3 blocks to drop would exceed a target of 20 %, which is 2 blocks. Choose at least 29",
        ),
        ({"keep": (0, 1, 2, 3, 4)}, "keeps all blocks of this model"),
        ({"drop": (0,), **WIDTH}, "only whole blocks can be dropped"),
        ({"keep": (0,), **WIDTH}, "choose 'global' for heads and channels"),
        ({"keep": (0,), "units": ("channels",), "allocation": "global"}, "Nearest to it is 2 of 5 blocks"),
    ],
)
def test_contradictions_are_refused(recipe, changes, message):
    assert message in refusal(recipe.replace(**changes))


def test_what_a_refusal_recommends_is_possible(recipe):
    assert budget_for_recipe(recipe.replace(drop=(0, 1, 2), target=0.29)).forced == 3
    wide = recipe.replace(**WIDTH, keep=(0,), allocation="global", plain=False)
    found = list(run(wide))
    assert isinstance(found[-1], ev.Finished)
    losing = {u.block for units in removed_units(found) for u in units}
    assert losing
    assert 0 not in losing


@pytest.mark.parametrize("bad", [(-1,), ("1",), (True,), (1, 1), 3, (1.0,)])
@pytest.mark.parametrize("name", ["keep", "drop"])
def test_lists_that_are_none(name, bad):
    with pytest.raises(UserError, match=f"{name.capitalize()}: enter"):
        Recipe(**{name: bad})


def test_lists_come_back_from_json():
    recipe = Recipe(keep=[3, 1], drop=[2])
    assert recipe.keep == (3, 1)
    assert Recipe.from_json(recipe.to_json()) == recipe


class Widths:
    """Sites of heads and channels of a tiny model in some shape, with scores that prefer high numbers."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.anatomy = anatomy_of(config_of(recipe.model))
        self.shape = Shape.dense(self.anatomy)
        self.pinned_units: frozenset = frozenset()
        self.iteration = 0

    @property
    def removed(self) -> int:
        return self.anatomy.parameters - self.shape.parameters(self.anatomy)

    def step(self) -> list:
        budget = budget_of(self.recipe, self.anatomy, self.pinned_units)
        sites = prunable_sites(
            self.recipe, sites_of(self.anatomy, self.shape, self.recipe.units), self.pinned_units
        )
        if complete(self.recipe, budget, self.removed, sites, self.pinned_units):
            return []
        self.iteration += 1
        scores = [100.0 - torch.tensor(s.numbers, dtype=torch.float32) + s.block / 10 for s in sites]
        found = choose(self.recipe, budget, self.iteration, self.removed, sites, scores, self.pinned_units)
        assert found
        self.shape = self.shape.without([Units(k, b, (u,)) for k, b, u in found])
        return found

    def to_the_end(self) -> list[int]:
        """Parameters that were removed, step by step."""
        before, found = self.removed, []
        while self.step():
            found.append(self.removed - before)
            before = self.removed
        return found


@pytest.mark.parametrize("allocation", ["equal", "global"])
@pytest.mark.parametrize(("first", "then"), [(0.1, 0.2), (0.12, 0.2), (0.12, 0.14), (0.05, 0.3)])
def test_another_target_leads_on_from_where_it_stands(recipe, allocation, first, then):
    recipe = recipe.replace(**{**WIDTH, "target": first}, allocation=allocation, plain=False)
    widths = Widths(recipe)
    widths.to_the_end()
    before = widths.removed
    widths.recipe = recipe.replace(target=then)
    steps = widths.to_the_end()
    pace = 0.05 * widths.anatomy.parameters
    assert before + sum(steps) == pytest.approx(then * widths.anatomy.parameters, rel=0.03)
    assert max(steps) < 1.8 * pace
    afresh = Widths(recipe.replace(target=then))
    afresh.to_the_end()
    assert afresh.removed == pytest.approx(widths.removed, rel=0.03)


@pytest.mark.parametrize("allocation", ["equal", "global"])
def test_units_that_were_taken_back_stay(recipe, allocation):
    widths = Widths(recipe.replace(**WIDTH, allocation=allocation, plain=False))
    first = widths.step()
    widths = Widths(widths.recipe)
    widths.pinned_units = frozenset(first)
    widths.to_the_end()
    left = {(k, la.block, u) for la in widths.shape.layers for k, kept in la.kept.items() for u in kept}
    assert set(first) <= left
    assert widths.removed == pytest.approx(0.1 * widths.anatomy.parameters, rel=0.05)


@pytest.mark.parametrize("allocation", ["equal", "global"])
def test_what_was_taken_back_lowers_a_target_that_cannot_be_met(recipe, allocation):
    recipe = recipe.replace(units=("channels",), target=0.25, allocation=allocation, plain=False)
    widths = Widths(recipe)
    widths.pinned_units = frozenset(("channels", b, u) for b in range(5) for u in range(32))
    widths.to_the_end()
    assert all(la.kept["channels"] == tuple(range(32)) for la in widths.shape.layers)
    everything = frozenset(("channels", b, u) for b in range(5) for u in range(64))
    with pytest.raises(UserError, match="Nothing can be removed"):
        budget_for_recipe(recipe, everything)


def test_blocks_that_were_taken_back_lower_the_target(recipe):
    back = frozenset(("blocks", b, 0) for b in (0, 1, 2, 3))
    budget = budget_for_recipe(recipe, back)
    assert (budget.description, budget.iterations) == ("1 of 5 blocks", 1)
    assert budget.share == pytest.approx(budget_for_recipe(recipe).share / 2)
