"""What is told of a run: sentences, comparisons, and the story that the page draws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pip_core.core import events as ev
from pip_core.core.units import Units
from pip_core.reporting.messages import clock, plan_sentence, sentence
from pip_core.reporting.run_summary import RunSummary

from ..core.test_events import EVERY


def task(name: str, hits: str) -> ev.TaskResult:
    share = hits.count("1") / len(hits)
    return ev.TaskResult(name, share, 0.1, len(hits), 0.5, hits)


def measured(*hits: str, iteration: int = 0) -> ev.Evaluated:
    tasks = tuple(task(f"task{i}", h) for i, h in enumerate(hits))
    mean = sum(t.accuracy for t in tasks) / len(tasks)
    return ev.Evaluated(iteration, 5, 99, 20.0, 1.0, 8, 256, mean, 0.1, tasks, 1.0)


@pytest.mark.parametrize("event", EVERY, ids=lambda e: type(e).__name__)
def test_every_event_has_a_sentence(event):
    text = sentence(event)
    assert text[0].isupper() or text[0].isdigit() or text.startswith("a/b")
    assert text.rstrip().endswith((".", "ü."))
    assert "None" not in text


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        (ev.Loading("downloading x", 5 * 10**6, 10**7), ["Downloading x: 5 of 10 MB."]),
        (
            EVERY[2],
            [
                "a/b: 3 blocks",
                "1 of 3 blocks will go: 20.0% of all parameters.",
                "Decided before: 2 iterations.",
            ],
        ),
        (EVERY[3], ["Scoring, iteration 1: 2 of 3", "0:00 elapsed, about 0:02 left"]),
        (EVERY[4], ["The dense model has perplexity 12.50 ± 0.30", "50.0% ± 2.0%"]),
        (replace(EVERY[4], iteration=2), ["What is left has perplexity 12.50 ± 0.30", "50.0% ± 2.0%"]),
        (EVERY[5], ["Scored the blocks in 2 s."]),
        (EVERY[12], ["Scored the channels in 2 s."]),
        (EVERY[6], ["Block 0 went: its score was the lowest (33.0% of the largest).", "0.0M parameters are"]),
        (replace(EVERY[6], score=-0.5, relative=-0.25), ["was the lowest (-0.5; the largest is 2)."]),
        (
            EVERY[13],
            [
                "1 group of heads in 1 block and 5 channels in 2 blocks went: their scores were the lowest",
                "(at most 50.0% of the largest of their kind)",
            ],
        ),
        (
            replace(EVERY[6], units=(Units("attention", 3, (0,)), Units("mlp", 2, (0,)))),
            ["The attention of block 3 and the mlp of block 2 went: their scores"],
        ),
        (EVERY[7], ["verified: a fresh process loaded it plainly", "agree to 1e-06", "same 20 tokens"]),
        (EVERY[14], ["verified: a fresh process loaded it with this project's loader"]),
        (replace(EVERY[7], largest_difference=0.0), ["verified", "its logits are equal"]),
        (EVERY[8], ["Finished in 1:00: 2 of 3 blocks removed", "peak memory 1.00 GB"]),
        (EVERY[9], ["Stopped. What was decided in 1 iteration is kept"]),
        (EVERY[11], ["No."]),
    ],
)
def test_sentences_say_the_numbers(event, parts):
    assert all(part in sentence(event) for part in parts)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_target_that_is_not_met_exactly_is_said():
    whole = "2 of 10 blocks will go: 20.0% of all parameters."
    assert plan_sentence(0.2, "2 of 10 blocks", 0.2) == whole
    assert "the nearest to 20.0%" in plan_sentence(0.2, "2 of 10 blocks", 0.19)
    least = plan_sentence(0.2, "the channels that matter least", 0.2)
    assert least == "The channels that matter least will go: 20.0% of all parameters."


def told(*events: ev.Event) -> RunSummary:
    story = RunSummary()
    story.tell((event, 10.0 + i) for i, event in enumerate(events))
    return story


def test_story_of_a_run():
    dense, after = measured("11"), measured("10", iteration=1)
    story = told(
        ev.Loading("loading x"), EVERY[2], EVERY[3], dense, EVERY[5], EVERY[6], after, EVERY[7], EVERY[8]
    )
    assert story.started == EVERY[2]
    assert story.dense == dense
    assert story.latest == after
    assert story.scored == {(1, "blocks"): EVERY[5]}
    assert story.removals == [EVERY[6]]
    assert story.exported == EVERY[7]
    assert story.ending == EVERY[8]
    assert story.planned == 1
    assert (story.first_at, story.last_at) == (10.0, 18.0)
    assert story.steps == 7  # progress and loading redraw no chart
    assert len(story.sentences) == 8


def test_scores_are_kept_by_kind():
    story = told(EVERY[12], replace(EVERY[12], kind="heads"), replace(EVERY[12], scores=(0.5, None, 0.3)))
    assert list(story.scored) == [(2, "channels"), (2, "heads")]
    assert story.scored[2, "channels"].scores == (0.5, None, 0.3)


def test_an_empty_story():
    story = RunSummary()
    assert (story.dense, story.latest, story.ending, story.planned) == (
        None,
        None,
        None,
        0,
    )


def test_loading_keeps_one_sentence():
    story = told(*(ev.Loading("downloading x", i, 10) for i in range(5)), ev.Loading("loading x"))
    assert [text for _, text in story.sentences] == ["Loading x."]


def test_a_resumed_run_has_not_ended():
    story = told(EVERY[2], ev.Stopped(0))
    assert story.ending == ev.Stopped(0)
    story.tell([(EVERY[2], 20.0)])
    assert story.ending is None
