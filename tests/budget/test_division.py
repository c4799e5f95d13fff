"""A target goes to the kinds that cost least, and what no division meets is refused in words."""

from __future__ import annotations

import pytest

from pip_core.budget.budget import budget_of
from pip_core.budget.division import STEPS, CostCurve, divide, divided
from pip_core.budget.targets import most_of_width
from pip_core.core.errors import UserError
from pip_core.core.settings import MEASURED
from pip_core.planning.estimate import anatomy_for
from pip_core.structure.vocabulary import MULTIPLE

from ..tiny import recipe_for


def curve(kind: str, *points: tuple[float, float], most: float = 100) -> CostCurve:
    return CostCurve(kind, points, most)


def squares(kind: str, factor: float, **given) -> CostCurve:
    return curve(kind, *((n, factor * n * n) for n in (10, 20, 40)), **given)


def test_marginal_costs_are_level_where_the_division_ends():
    # Of a x² and b y² with x + y = 40 the sum is least at x = 40 b / (a + b).
    parts = divide([squares("tokens", 1), squares("channels", 3)], 40)
    assert parts["tokens"] == pytest.approx(30, abs=0.5)
    assert sum(parts.values()) == pytest.approx(40)


def test_what_costs_nothing_pays_for_everything_as_far_as_it_goes():
    free = curve("tokens", (10, -0.001), (40, -0.004))
    assert divide([squares("channels", 1), free], 40) == pytest.approx({"channels": 0, "tokens": 40})
    short = curve("tokens", (10, 0.0), (25, 0.0), most=25)
    assert divide([squares("channels", 1), short], 40) == pytest.approx(
        {"channels": 15, "tokens": 25}, abs=0.1
    )


def test_the_first_of_a_kind_is_not_called_free_because_its_later_ones_cost_much():
    """Gemma 3 270M at 40 %, in millions of parameters: no channel is as cheap as the tokens that are left."""
    tokens = curve("tokens", (26.8, 0.0), (53.6, 0.0), (107.2, 0.0257), most=150)
    channels = curve("channels", (35.4, 0.0932), (70.7, 0.9776), most=150)
    assert divide([tokens, channels], 107.2) == pytest.approx({"tokens": 107.2, "channels": 0})


def test_a_cost_that_was_measured_to_fall_is_smoothed():
    noisy = curve("tokens", (10, 0.3), (20, 0.2), (40, 2.0))
    slopes = [noisy.marginal(n) for n in range(0, 50, 5)]
    assert slopes == sorted(slopes)
    assert [noisy.cost(n) for n in (10, 20, 40)] == pytest.approx([0.3, 0.2, 2.0])


def test_settings_remove_what_was_decided(llama_folder):
    anatomy = anatomy_for(str(llama_folder))
    recipe = recipe_for(llama_folder, units=("heads", "channels"), vocabulary=MEASURED)
    wanted = recipe.target * anatomy.parameters
    settled = divided(recipe, anatomy, {"tokens": wanted / 2, "heads": 0, "channels": wanted / 2})
    assert settled == {"units": ("channels",), "vocabulary": 0.5}
    alone = divided(recipe, anatomy, {"tokens": wanted, "channels": 3})
    assert alone["vocabulary"] == 1
    assert divided(recipe, anatomy, {"heads": 3000, "channels": 9000})["head_share"] == 0.25
    joined = divided(recipe, anatomy, {"channels": 1e4, "blocks": 2e4})
    assert joined["units"] == ("blocks", "channels")
    assert joined["depth_share"] == pytest.approx(2 / 3, 1e-5)


def test_a_kind_that_may_lose_no_more_is_taken_up_to_that(llama_folder):
    """Half a step of the division beyond it, as where experts hold little of a model."""
    recipe, anatomy = recipe_for(llama_folder, units=("channels",)), anatomy_for(str(llama_folder))
    most = most_of_width(anatomy, "channels")
    tokens = 2 * MULTIPLE * anatomy.row_parameters
    target = (most + tokens) / anatomy.parameters
    beyond = most + target * anatomy.parameters / STEPS / 2
    settled = divided(recipe, anatomy, {"channels": beyond, "tokens": tokens})
    budget = budget_of(recipe.replace(target=target, vocabulary_limit=0.9, **settled), anatomy)
    assert budget.width_units["channels"] * sum(b.widths["channels"].cost for b in anatomy.blocks) == most
    with pytest.raises(UserError, match="out of reach"):
        budget_of(recipe.replace(target=target, vocabulary=0.0), anatomy)


def test_tokens_alone_meet_a_target_up_to_their_limit(llama_folder):
    recipe = recipe_for(llama_folder, units=("channels",), vocabulary=1, target=0.1, vocabulary_limit=0.9)
    anatomy = anatomy_for(recipe.model)
    budget = budget_of(recipe, anatomy)
    assert (budget.iterations, budget.width_units) == (0, {})
    assert budget.tokens * anatomy.row_parameters / anatomy.parameters == pytest.approx(0.1, abs=0.003)
    with pytest.raises(UserError, match="Vocabulary limit"):
        budget_of(recipe.replace(vocabulary_limit=0.01), anatomy)


def test_a_target_beyond_every_kind_is_refused_with_the_most_that_can_go(llama_folder):
    recipe = recipe_for(llama_folder, units=("channels",), vocabulary=MEASURED, target=0.98)
    with pytest.raises(UserError, match=r"out of reach: at most.*tokens \d+\.\d %, channels \d+\.\d %"):
        budget_of(recipe, anatomy_for(recipe.model))
    with pytest.raises(UserError, match=r"^A target of [^:]* is too little"):
        budget_of(recipe.replace(target=1e-7), anatomy_for(recipe.model))
