"""From a target to a budget, and from scores to units."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pip_core.budget.allocation import choose
from pip_core.budget.budget import budget_of
from pip_core.core.errors import UserError
from pip_core.core.recipe import GLOBAL, Recipe
from pip_core.core.units import group
from pip_core.structure.anatomy import Anatomy, anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of

from .. import zoo

LLAMA = anatomy_of(zoo.CONFIGS["llama"]())
BLOCK = LLAMA.blocks[0].parameters
HEAD, CHANNEL = (LLAMA.blocks[0].widths[k].cost for k in ("heads", "channels"))


def share(parameters: float) -> float:
    return parameters / LLAMA.parameters


def recipe(target: float, *units: str, **changes) -> Recipe:
    return Recipe(target=target, units=units or ("blocks",), **changes)


def greedy(recipe: Recipe, anatomy: Anatomy, scores, most: int = 100) -> list[list[tuple]]:
    """What goes, iteration by iteration; `scores(site)` gives a site's scores."""
    budget, shape, rounds = budget_of(recipe, anatomy), Shape.dense(anatomy), []
    for iteration in range(1, most):
        sites = sites_of(anatomy, shape, recipe.units)
        removed = anatomy.parameters - shape.parameters(anatomy)
        chosen = choose(recipe, budget, iteration, removed, sites, [scores(s) for s in sites])
        if not chosen:
            return rounds
        shape = shape.without(group(chosen))
        rounds.append(chosen)
    raise AssertionError("it never ends")


def by_number(site) -> torch.Tensor:
    """Late blocks and high unit numbers matter least."""
    return torch.tensor([100.0 - 10 * site.block - 0.1 * n for n in site.numbers])


@pytest.mark.parametrize(
    ("wanted", "count"), [(1, 1), (0.6, 1), (1.4, 1), (1.6, 2), (2, 2), (3.7, 4), (4.4, 4)]
)
def test_nearest_count_of_blocks(wanted, count):
    budget = budget_of(recipe(share(wanted * BLOCK)), LLAMA)
    assert (budget.iterations, budget.description, budget.uneven) == (count, f"{count} of 5 blocks", "")
    assert budget.share == pytest.approx(share(count * BLOCK))
    rounds = greedy(recipe(share(wanted * BLOCK)), LLAMA, by_number)
    assert rounds == [[("blocks", 4 - n, 0)] for n in range(count)]


@pytest.mark.parametrize(
    ("target", "units", "message"),
    [
        (share(0.4 * BLOCK), ("blocks",), "less than half a block: one block is"),
        (share(4.6 * BLOCK), ("blocks",), "would leave no block: the blocks hold"),
        (0.99, ("blocks",), "at least one must stay. Choose at most"),
        (0.99, ("channels",), "out of reach: the channels of this model hold"),
        (0.99, ("heads", "channels"), "out of reach: the groups of heads and channels"),
        (1e-6, ("channels",), "too little: choose at least"),
    ],
)
def test_impossible_targets(target, units, message):
    with pytest.raises(UserError) as refused:
        budget_of(recipe(target, *units), LLAMA)
    assert message in str(refused.value)


@pytest.mark.parametrize("units", [("blocks",), ("channels",), ("heads", "channels")])
def test_what_an_error_recommends_is_possible(units):
    with pytest.raises(UserError) as refused:
        budget_of(recipe(0.99, *units), LLAMA)
    most = int(str(refused.value).rsplit("at most ", 1)[1].split(" ")[0]) / 100
    assert budget_of(recipe(most, *units), LLAMA).share <= 0.99
    with pytest.raises(UserError) as refused:
        budget_of(recipe(1e-6, *units), LLAMA)
    least = float(str(refused.value).rsplit("at least ", 1)[1].split(" ")[0]) / 100
    assert budget_of(recipe(least, *units), LLAMA).share > 0


@pytest.mark.parametrize("step", [0.0, 1.0, 3.0, 0.02, 0.5])
@pytest.mark.parametrize("target", [0.05, 0.131, 0.2])
def test_equal_channels_hit_the_budget_to_within_one_of_each_block(target, step):
    asked = recipe(target, "channels", step=step)
    budget = budget_of(asked, LLAMA)
    rounds = greedy(asked, LLAMA, by_number)
    gone = [unit for chosen in rounds for unit in chosen]
    assert len(gone) == len(set(gone)) == 5 * budget.width_units["channels"]
    assert abs(len(gone) * CHANNEL - target * LLAMA.parameters) <= 5 * CHANNEL / 2
    assert len(rounds) == budget.iterations
    assert budget.uneven == ""
    if step >= 1:
        assert max(len(chosen) for chosen in rounds) <= 5 * step
    # The lowest scores of every block: its highest numbers.
    for block in range(5):
        kept = 64 - budget.width_units["channels"]
        assert {n for _, b, n in gone if b == block} == set(range(kept, 64))


def test_equal_heads_and_channels_share_the_budget():
    budget = budget_of(recipe(0.25, "heads", "channels"), LLAMA)
    removed = 5 * (budget.width_units["heads"] * HEAD + budget.width_units["channels"] * CHANNEL)
    assert budget.width_units["heads"] >= 1
    assert abs(removed - 0.25 * LLAMA.parameters) <= 5 * CHANNEL / 2
    assert budget.description.endswith(" in every block")


@pytest.mark.parametrize("units", [("channels",), ("heads",), ("heads", "channels")])
def test_global_takes_the_least_of_all_to_within_one_unit(units):
    asked = recipe(0.1, *units, allocation=GLOBAL, plain=False)
    gone = [unit for chosen in greedy(asked, LLAMA, by_number) for unit in chosen]
    costs = {"heads": HEAD, "channels": CHANNEL}
    removed = sum(costs[kind] for kind, _, _ in gone)
    assert abs(removed - 0.1 * LLAMA.parameters) <= max(costs[u] for u in units) / 2
    # Nothing goes from a block as long as a later one has units to give.
    for kind in units:
        size = LLAMA.blocks[0].widths[kind].size
        counts = [sum(u[:2] == (kind, block) for u in gone) for block in range(5)]
        assert all(later == size - 1 for now, later in pairwise(counts) if now)


def test_units_of_unequal_size_are_ranked_by_score_per_parameter():
    def scores(site):
        return torch.full((site.size,), 1.0 if site.kind == "heads" else 0.5)

    by_cost = greedy(recipe(0.05, "heads", "channels", allocation=GLOBAL, plain=False), LLAMA, scores)
    assert HEAD > 2 * CHANNEL
    assert by_cost[0][0][0] == "heads"
    plain = recipe(0.05, "heads", "channels", allocation=GLOBAL, plain=False, per_parameter=False)
    assert greedy(plain, LLAMA, scores)[0][0][0] == "channels"


def test_every_block_keeps_its_last_unit():
    asked = recipe(0.3, "channels", allocation=GLOBAL, plain=False, step=0.3)
    gone = [unit for chosen in greedy(asked, LLAMA, by_number) for unit in chosen]
    counts = [sum(b == block for _, b, _ in gone) for block in range(5)]
    assert max(counts) == 63


def test_several_blocks_at_once():
    asked = recipe(share(3 * BLOCK), step=2.0)
    assert budget_of(asked, LLAMA).iterations == 2
    assert [len(chosen) for chosen in greedy(asked, LLAMA, by_number)] == [2, 1]
    asked = asked.replace(step=share(3 * BLOCK))
    assert [len(chosen) for chosen in greedy(asked, LLAMA, by_number)] == [3]


def test_halves():
    asked = recipe(0.2, "attention", "mlp", plain=False)
    budget = budget_of(asked, LLAMA)
    assert "halves" in budget.description
    assert budget.uneven
    gone = [unit for chosen in greedy(asked, LLAMA, by_number) for unit in chosen]
    costs = dict(zip(("attention", "mlp"), LLAMA.blocks[0].half_parameters, strict=True))
    removed = sum(costs[kind] for kind, _, _ in gone)
    assert abs(removed - 0.2 * LLAMA.parameters) <= max(costs.values()) / 2


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"units": ("attention",)}, "1 of 5 blocks"),
        ({"units": ("mlp",)}, "1 of 5 blocks"),
        ({"units": ("channels",), "allocation": GLOBAL}, "of 64 channels in every block"),
    ],
)
def test_a_plain_recipe_is_offered_the_nearest_plain_shape(changes, nearest):
    asked = Recipe(target=share(BLOCK), **changes)
    with pytest.raises(UserError) as refused:
        budget_of(asked, LLAMA)
    assert "ordinary checkpoint" in str(refused.value)
    assert nearest in str(refused.value)
    assert budget_of(asked.replace(plain=False), LLAMA).uneven


def test_units_that_a_model_cannot_lose():
    gpt2 = anatomy_of(zoo.CONFIGS["gpt2"]())
    with pytest.raises(UserError, match="Groups of heads"):
        budget_of(recipe(0.1, "heads"), gpt2)


@pytest.mark.parametrize(
    ("scores", "block"),
    [([3.0, 1.0, 2.0, 4.0, 5.0], 1), ([1.0, 1.0, 1.0, 1.0, 1.0], 2), ([1.0, 2.0, 2.0, 2.0, 1.0], 0)],
)
def test_of_equal_scores_the_one_nearest_the_middle_goes(scores, block):
    asked = recipe(share(BLOCK))
    assert greedy(asked, LLAMA, lambda s: torch.tensor([scores[s.block]])) == [[("blocks", block, 0)]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers(bad):
    with pytest.raises(UserError, match="not finite numbers"):
        greedy(recipe(share(BLOCK)), LLAMA, lambda s: torch.tensor([bad if s.block == 1 else 1.0]))
