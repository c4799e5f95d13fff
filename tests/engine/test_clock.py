"""Elapsed and remaining time, with a clock that the test turns."""

from __future__ import annotations

import pytest

from pip_core.engine.clock import Clock

MEASURING, SCORING = "measuring", "scoring"


class Hands:
    """A clock's hands: `hands.at` is what it shows."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_before_the_first_step_only_fixed_work_is_known(hands):
    clock = Clock({SCORING: 50.0}, fixed=7.0, now=hands)
    assert clock.elapsed == 0
    assert clock.remaining() == 7.0


def test_remaining_goes_by_the_measured_speed(hands):
    clock = Clock({SCORING: 100.0}, now=hands)
    hands.at += 4
    clock.step(SCORING, 20)
    assert clock.elapsed == 4
    assert clock.remaining() == pytest.approx(80 * 4 / 20)
    hands.at += 16
    clock.step(SCORING, 80)
    assert clock.remaining() == 0
    assert clock.elapsed == 20


def test_a_stage_without_a_speed_borrows_the_others(hands):
    clock = Clock({SCORING: 10.0, MEASURING: 30.0}, fixed=5.0, now=hands)
    hands.at += 2
    clock.step(MEASURING, 10)
    assert clock.remaining() == pytest.approx(10 * 0.2 + 20 * 0.2 + 5)
    hands.at += 10
    clock.step(SCORING, 5)
    assert clock.remaining() == pytest.approx(5 * 2.0 + 20 * 0.2 + 5)


def test_skipped_time_belongs_to_no_stage(hands):
    clock = Clock({SCORING: 10.0}, now=hands)
    hands.at += 1000
    clock.skip()
    hands.at += 1
    clock.step(SCORING, 5)
    assert clock.remaining() == pytest.approx(1.0)
    assert clock.elapsed == 1001


def test_more_work_than_planned_never_goes_below_zero(hands):
    clock = Clock({SCORING: 10.0}, now=hands)
    hands.at += 1
    clock.step(SCORING, 25)
    assert clock.remaining() == 0


def test_work_that_was_not_planned(hands):
    clock = Clock({}, now=hands)
    hands.at += 1
    clock.step(SCORING, 25)
    assert clock.remaining() == 0


def test_uses_a_clock_of_its_own_accord():
    clock = Clock({SCORING: 1.0})
    assert clock.elapsed >= 0
    clock.step(SCORING, 0.5)
    assert clock.remaining() >= 0
