"""From a target to a count, from scores to a block."""

from __future__ import annotations

import pytest

from pip_core.allocate import Budget, budget, lowest
from pip_core.errors import UserError


@pytest.mark.parametrize(
    ("costs", "parameters", "target", "count"),
    [
        ([10] * 10, 100, 0.2, 2),
        ([10] * 10, 200, 0.2, 4),
        ([10] * 10, 100, 0.24, 2),
        ([10] * 10, 100, 0.26, 3),
        ([10] * 10, 100, 0.06, 1),
        ([10] * 10, 100, 0.9, 9),
        ([5, 15, 10, 10], 50, 0.4, 2),
        ([10, 10], 40, 0.25, 1),
    ],
)
def test_nearest_count(costs, parameters, target, count):
    each = sum(costs) / len(costs)
    assert budget(costs, parameters, target) == Budget(count, count * each / parameters)
    gaps = {n: abs(n * each / parameters - target) for n in range(1, len(costs))}
    assert gaps[count] == min(gaps.values())


@pytest.mark.parametrize(
    ("costs", "parameters", "target", "message"),
    [
        ([10] * 10, 100, 0.04, "less than half a block: one block is 10.0 %"),
        ([10] * 10, 1000, 0.001, "Choose at least 1.0 %"),
        ([10] * 10, 100, 0.97, "would leave no block: the blocks hold 100 %"),
        ([10] * 10, 100, 0.999, "Choose at most 90 %"),
        ([10] * 10, 200, 0.6, "the blocks hold 50 % of the parameters"),
        ([10, 10], 40, 0.45, "Choose at most 25 %"),
    ],
)
def test_impossible_targets(costs, parameters, target, message):
    with pytest.raises(UserError) as refused:
        budget(costs, parameters, target)
    assert message in str(refused.value)


@pytest.mark.parametrize("costs", [[7] * 12, [3, 9, 4, 8], [1000, 1000, 1000]])
def test_what_an_error_recommends_is_possible(costs):
    parameters = round(sum(costs) * 1.4)
    with pytest.raises(UserError) as refused:
        budget(costs, parameters, 0.99)
    most = int(str(refused.value).rsplit("at most ", 1)[1].split(" ")[0]) / 100
    assert budget(costs, parameters, most).count >= 1
    with pytest.raises(UserError) as refused:
        budget(costs, parameters, 1e-6)
    least = float(str(refused.value).rsplit("at least ", 1)[1].split(" ")[0]) / 100
    assert budget(costs, parameters, least).count == 1


@pytest.mark.parametrize(
    ("scores", "index"),
    [
        ([3.0, 1.0, 2.0], 1),
        ([None, 5.0, 4.0], 2),
        ([0.5, None, None], 0),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2),
        ([1.0, 2.0, 2.0, 2.0, 1.0], 0),
        ([2.0, 1.0, 2.0, 1.0], 1),
        ([1.0, 0.0, -1.0], 2),
    ],
)
def test_lowest(scores, index):
    assert lowest(scores) == index


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers(bad):
    with pytest.raises(UserError, match="not finite numbers"):
        lowest([1.0, bad, None])
