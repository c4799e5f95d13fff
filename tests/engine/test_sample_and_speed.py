"""What is shown beside the point of a run: the model's answers on the way, and its speed at the end."""

from __future__ import annotations

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.sample import Sampled
from pip_core.engine.run import run
from pip_core.engine.stages import describe
from pip_core.engine.stages.speed import Timed
from pip_core.planning.estimate import anatomy_for
from pip_core.reporting.run_summary import RunSummary
from pip_core.ui.inspection import speed_of_run
from pip_core.ui.slider import marked, slider

from .. import tiny


@pytest.fixture(scope="module")
def planned() -> list[float]:
    """Work of answers that the clock of the run counted on, whenever it was told what is left."""
    return []


@pytest.fixture(scope="module")
def asked(recipe, tmp_path_factory, planned) -> tuple[Recipe, list[ev.Event]]:
    changed = recipe.replace(sample="The harbour was", speed="on")

    with tiny.noting_plans("answering", planned):
        return changed, list(run(changed, tmp_path_factory.mktemp("asked") / "model"))


def test_the_model_answers_before_and_after_every_removal(asked):
    recipe, events = asked
    answers = tiny.only(events, Sampled)
    assert [(a.iteration, a.final) for a in answers] == [(0, False), (1, False), (2, False)]
    assert all(a.prompt == "The harbour was" and a.text and a.tokens for a in answers)
    assert len({a.text for a in answers}) > 1  # it is the model as it stands that answers
    # What was answered is not asked again, and nothing else about the run is changed by asking.
    kinds = (ev.Started, ev.Removed, ev.Evaluated, Sampled)
    again = list(run(recipe, history=[e for e in events if isinstance(e, kinds)]))
    assert not tiny.only(again, Sampled)
    quiet = list(run(recipe.replace(sample="off"), None))
    assert [e.units for e in tiny.only(quiet, ev.Removed)] == [e.units for e in tiny.only(events, ev.Removed)]


def test_answers_that_were_given_are_not_counted_on_again(asked, planned):
    assert planned[0] > 0
    assert planned[-1] == 0


def test_speed_is_a_ratio_with_its_spread_and_stands_in_the_headline(asked):
    (timed,) = tiny.only(asked[1], Timed)
    for median, low, high in (timed.reading, timed.writing):
        assert 0 < low <= median <= high
    assert timed.pruned_bytes < timed.dense_bytes
    assert f"{timed.writing[0]:.2f} times" in speed_of_run(timed)
    assert describe(Timed(1, writing=(1.2, 1.1, 1.3))).headline == "1.20x faster"
    assert describe(Timed(1, writing=(0.8, 0.7, 0.9))).headline == "1.25x slower"
    assert "faster" not in describe(Timed(1, writing=(1.2, 0.9, 1.3))).headline
    skipped = Timed(1, skipped="memory ran out.")
    assert describe(skipped).headline == ""
    assert "memory ran out" in describe(skipped).sentence
    assert "memory ran out" in speed_of_run(skipped)


def test_the_slider_has_a_place_for_every_answer(asked):
    recipe, events = asked
    summary = RunSummary()
    summary.apply([(event, float(at)) for at, event in enumerate(events)])
    found = slider(summary, anatomy_for(recipe.model))
    points = found["points"]
    assert len(points) == found["planned"] == 3
    assert [sum(1 for pair in p["blocks"] if not any(pair)) for p in points] == [0, 1, 2]
    assert ["".join(piece for piece, _ in p["answer"]) for p in points] == [
        summary.samples[i, False].text.strip() for i in range(3)
    ]
    assert points[0]["left"] > points[1]["left"] > points[2]["left"]
    assert slider(RunSummary(), None) == {"points": []}


def test_words_that_differ_are_marked():
    assert marked("the red kite flew", "the blue kite flew") == [
        ("the ", False),
        ("blue ", True),
        ("kite flew", False),
    ]
    assert marked("a b", "a b") == [("a b", False)]


def test_a_prompt_that_the_model_cannot_read_is_refused(recipe):
    with pytest.raises(UserError, match="Sample"):
        recipe.replace(sample="a" * 3000)
    (failed,) = tiny.only(list(run(recipe.replace(sample="harbour " * 200))), ev.Failed)
    assert "Sample" in failed.message
