"""Comparing two measurements: against counting by hand, enumeration and simulation."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import replace

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.evaluation.statistics import mcnemar, mean_accuracy, paired_comparison, retained, share

CHANCE = 0.5


def measured(*hits: str, chance: float = CHANCE) -> ev.Evaluated:
    tasks = tuple(
        ev.TaskResult(f"task{i}", *share(h), len(h), chance, h, digest=str(len(h)))
        for i, h in enumerate(hits)
    )
    return ev.Evaluated(0, 5, 99, 20.0, 1.0, 8, 256, *mean_accuracy(tasks), tasks, 1.0)


def test_share_has_the_standard_error_of_a_mean():
    hits = "1101000110"
    values = [int(h) for h in hits]
    assert share(hits) == pytest.approx((0.5, statistics.stdev(values) / math.sqrt(10)))
    assert share("1") == (1.0, 0.0)


def test_mean_accuracy():
    results = [ev.TaskResult("a", 0.5, 0.03, 10, 0.5, ""), ev.TaskResult("b", 0.7, 0.04, 90, 0.25, "")]
    assert mean_accuracy(results) == pytest.approx((0.6, 0.025))


def test_the_difference_is_paired():
    found = paired_comparison(measured("1100", "1111"), measured("1010", "0111"))
    assert found.mean.difference == pytest.approx((0 - 0.25) / 2)
    # Gains 0 -1 1 0, and -1 0 0 0: sample variances 2/3 and 1/4, over four items each.
    assert found.mean.se == pytest.approx(math.sqrt((2 / 3) / 4 + (1 / 4) / 4) / 2)
    assert (found.mean.gained, found.mean.lost) == (1, 2)
    assert [(t.name, t.difference, t.gained, t.lost) for t in found.tasks] == [
        ("task0", 0.0, 1, 1),
        ("task1", -0.25, 0, 1),
    ]


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    # By counting tosses: 2 * (1 + 5) / 2**5, 2 / 2**6, 2 * (1 + 10 + 45) / 2**10.
    [(0, 0, 1.0), (3, 3, 1.0), (1, 0, 1.0), (1, 4, 0.375), (0, 6, 0.03125), (8, 2, 0.109375)],
)
def test_mcnemar(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_many_items_are_counted_exactly():
    assert 0 < mcnemar(4000, 4400) < 1e-4


def test_a_task_is_tested_by_mcnemar():
    found = paired_comparison(measured("1" * 20), measured("1" * 14 + "0" * 6))
    assert found.tasks[0].p == pytest.approx(0.03125)
    assert not found.tasks[0].noise
    assert found.mean.p == found.tasks[0].p


def test_the_mean_is_tested_by_tossing_coins():
    """Against all tosses there are."""
    first, second = ("111100", "11110000"), ("100111", "11111100")
    found = paired_comparison(measured(*first), measured(*second)).mean
    differing = [sum(a != b for a, b in zip(x, y, strict=True)) for x, y in zip(first, second, strict=True)]
    weights = [1 / len(h) for h, n in zip(first, differing, strict=True) for _ in range(n)]
    sums = [
        sum(s * w for s, w in zip(t, weights, strict=True))
        for t in itertools.product((-1, 1), repeat=len(weights))
    ]
    exact = sum(abs(s) >= abs(2 * found.difference) - 1e-9 for s in sums) / len(sums)
    assert found.p == pytest.approx(exact, abs=0.015)
    assert paired_comparison(measured(*first), measured(*second)).mean == found


def test_no_difference_has_a_p_value_of_one():
    """Differences that cancel exactly, though not in floating point."""
    cancelling = paired_comparison(measured("0" * 7, "1" * 7), measured("1" * 3 + "0" * 4, "0" * 3 + "1" * 4))
    assert cancelling.mean.p == 1.0


def test_noise_is_called_noise_as_often_as_it_should_be():
    """Two models of equal skill differ significantly in about one of twenty comparisons, not more."""
    draw, calls = random.Random(1), 0
    for _ in range(120):
        a, b = (["".join(draw.choice("0111") for _ in range(60)) for _ in range(2)] for _ in range(2))
        calls += not paired_comparison(measured(*a), measured(*b)).mean.noise
    assert calls <= 14


def test_noise_and_signal():
    dense = measured("1" * 100, "1" * 100)
    assert paired_comparison(dense, dense).mean == replace(
        paired_comparison(dense, dense).mean, difference=0.0, se=0.0, p=1.0
    )
    assert paired_comparison(dense, measured("1" * 98 + "00", "1" * 100)).mean.noise
    assert not paired_comparison(dense, measured("1" * 60 + "0" * 40, "1" * 100)).mean.noise


def test_one_item_shows_nothing():
    assert paired_comparison(measured("1"), measured("0")).mean.noise


def test_two_pruned_models_are_compared_like_dense_and_pruned():
    a, b = measured("1100" * 10), measured("1110" * 10)
    assert paired_comparison(a, b).mean.difference == 0.25
    assert paired_comparison(b, a).mean.difference == -0.25
    assert paired_comparison(a, b).mean.p == paired_comparison(b, a).mean.p < 0.01


def test_what_was_not_measured_on_the_same_items_is_not_compared():
    a = measured("1100")
    other = replace(a, tasks=(replace(a.tasks[0], digest="else"),))
    for b in (measured("11001"), measured("1100", "1"), other):
        with pytest.raises(UserError, match="same items"):
            paired_comparison(a, b)
        with pytest.raises(UserError, match="same items"):
            retained(a, b)


def test_retained():
    found = retained(measured("1" * 80 + "0" * 20), measured("1" * 65 + "0" * 35))
    assert found.share == pytest.approx(65 / 80)
    assert found.above_chance == pytest.approx(15 / 30)
    assert found.above_chance_se > found.se > 0
    dense = measured("1" * 80 + "0" * 20, "1110" * 5)
    same = retained(dense, dense)
    assert (same.share, same.se, same.above_chance) == (1.0, 0.0, 1.0)


def test_above_guessing_every_task_counts_alike_and_those_without_signal_not_at_all():
    dense = measured("1" * 80 + "0" * 20, "1" * 10, "1010" * 5)
    found = retained(dense, measured("1" * 65 + "0" * 35, "1" * 10, "1" * 20))
    assert found.above_chance == pytest.approx((15 / 30 + 1) / 2)
    assert found.left_out == ("task2",)  # half right where guessing is half right: any model keeps that
    alone = retained(measured("1" * 80 + "0" * 20), measured("1" * 65 + "0" * 35))
    assert found.above_chance_se == pytest.approx(alone.above_chance_se / 2)


def test_retained_has_the_spread_of_resampled_items():
    """The delta method against drawing the items again, both answers together."""
    draw = random.Random(0)
    pairs = [(draw.choice("0111"), draw.choice("0011")) for _ in range(200)]
    found = retained(measured("".join(a for a, _ in pairs)), measured("".join(b for _, b in pairs)))
    shares = []
    for _ in range(400):
        again = draw.choices(pairs, k=len(pairs))
        shares.append(sum(b == "1" for _, b in again) / sum(a == "1" for a, _ in again))
    assert found.se == pytest.approx(statistics.stdev(shares), rel=0.15)


def test_nothing_to_retain():
    found = retained(measured("000"), measured("111"))
    assert (found.share, found.above_chance) == (0.0, None)
    assert retained(measured("1100"), measured("1000")).above_chance is None
