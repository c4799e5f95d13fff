"""A run in words: the sentence of every event, and the summary that the page draws."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from pip_core.core import events as ev
from pip_core.core.units import Units
from pip_core.evaluation.statistics import paired_comparison
from pip_core.reporting.messages import describe_difference, format_duration, plan_sentence, sentence
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
        (ev.Loading("downloading x", 5 * 10**6, 10**7), ["Downloading x", "5 of 10 MB"]),
        (EVERY[2], ["a/b: 3 blocks", "1 of 3 blocks: 20.0 % of all parameters.", "after 2 iterations"]),
        (EVERY[3], ["Scoring, iteration 1: 2 of 3", "0:00 elapsed", "0:02 left"]),
        (EVERY[4], ["Whole model", "perplexity 12.50 ± 0.30", "accuracy 50.0 % ± 2.0 %", "wikitext: 30.50"]),
        (replace(EVERY[4], iteration=2), ["After removal", "perplexity 12.50 ± 0.30", "50.0 % ± 2.0 %"]),
        (replace(EVERY[4], iteration=2, final=True), ["Finished model", "perplexity 12.50 ± 0.30"]),
        (EVERY[5], ["Scored the blocks in 2 s."]),
        (EVERY[12], ["Scored the channels in 2 s."]),
        (EVERY[6], ["Removed block 0: its score was the lowest (33.0 % of the largest).", "0.0M parameters"]),
        (replace(EVERY[6], forced=True), ["Removed block 0, which the recipe names"]),
        (replace(EVERY[6], score=-0.5, relative=-0.25), ["the lowest (-0.5; the largest is 2)."]),
        (
            EVERY[13],
            [
                "1 group of heads in 1 block and 5 channels in 2 blocks: their scores were the lowest",
                "(at most 50.0 % of the largest of their kind)",
            ],
        ),
        (
            replace(EVERY[6], units=(Units("attention", 3, (0,)), Units("mlp", 2, (0,)))),
            ["Removed the attention of block 3 and the MLP of block 2: their scores"],
        ),
        (EVERY[7], ["verified", "loaded it with transformers", "agree to 1e-06", "same 20 tokens"]),
        (EVERY[14], ["verified", "loaded it with PIP Studio's loader"]),
        (replace(EVERY[7], largest_difference=0.0), ["verified", "its logits are equal"]),
        (EVERY[8], ["Finished in 1:00: 2 of 3 blocks removed", "peak memory 1.00 GB"]),
        (ev.Stopped(1), ["Stopped after 1 iteration, ", "export"]),
        (ev.Stopped(0), ["Stopped before the first removal."]),
        (ev.Paused(2), ["Paused after 2 iterations, "]),
        (ev.RemovalUndone(1, (Units("blocks", 3, (0,)),)), ["Undone: block 3 was put back"]),
        (ev.RemovalUndone(1, (Units("channels", 3, (0, 1)),)), ["Undone: 2 channels in 1 block were put"]),
        (ev.TargetExtended(0.2, 0.3), ["from 20.0 % to 30.0 %"]),
        (
            ev.Forked("mine", 2, ("target", "per_parameter")),
            ["from mine after 2 iterations", "another “How much”, “Score per parameter”"],
        ),
        (ev.Forked("", 0, ()), ["from another run before its first removal."]),
        (EVERY[11], ["No."]),
    ],
)
def test_sentences_say_the_numbers(event, parts):
    assert [part for part in parts if part not in sentence(event)] == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_a_target_that_is_not_met_exactly_is_mentioned():
    exact = plan_sentence(0.2, "2 of 10 blocks", 0.2)
    assert "2 of 10 blocks: 20.0 % of all parameters" in exact
    assert "nearest" not in exact
    near = plan_sentence(0.2, "2 of 10 blocks", 0.19)
    assert "19.0 % of all parameters, the nearest possible to 20.0 %" in near


def test_differences_that_chance_could_have_made_are_marked():
    measured_twice = measured("1" * 40 + "0" * 60), measured("1" * 60 + "0" * 40)
    mean = paired_comparison(*measured_twice).mean
    assert describe_difference(mean).startswith("+20.0 ± ")
    assert "measurable" not in describe_difference(mean)
    same = paired_comparison(measured_twice[0], measured_twice[0]).mean
    assert describe_difference(same) == "+0.0 ± 0.0 points (no measurable change)"


def summary_of(*events: ev.Event) -> RunSummary:
    summary = RunSummary()
    summary.apply((event, 10.0 + i) for i, event in enumerate(events))
    return summary


def test_summary_of_a_run():
    dense, after = measured("11"), measured("10", iteration=1)
    summary = summary_of(
        ev.Loading("loading x"), EVERY[2], EVERY[3], dense, EVERY[5], EVERY[6], after, EVERY[7], EVERY[8]
    )
    assert summary.started == EVERY[2]
    assert summary.dense == dense
    assert summary.latest == after
    assert summary.scored == {(1, "blocks"): EVERY[5]}
    assert list(summary.removals) == [EVERY[6]]
    assert summary.exported == EVERY[7]
    assert summary.ending == EVERY[8]
    assert summary.planned == 1
    assert (summary.first_at, summary.last_at) == (10.0, 18.0)
    assert summary.steps == 7  # progress and loading redraw no chart
    assert len(summary.sentences) == 8


def test_scores_are_kept_by_kind():
    summary = summary_of(
        EVERY[12], replace(EVERY[12], kind="heads"), replace(EVERY[12], scores=(0.5, None, 0.3))
    )
    assert list(summary.scored) == [(2, "channels"), (2, "heads")]
    assert summary.scored[2, "channels"].scores == (0.5, None, 0.3)


def test_an_empty_summary():
    summary = RunSummary()
    assert (summary.dense, summary.latest, summary.ending, summary.planned) == (
        None,
        None,
        None,
        0,
    )


def test_loading_keeps_one_sentence():
    summary = summary_of(*(ev.Loading("downloading x", i, 10) for i in range(5)), ev.Loading("loading x"))
    assert [text for _, text in summary.sentences] == ["Loading x."]


def test_a_resumed_run_has_not_ended():
    summary = summary_of(EVERY[2], ev.Stopped(0))
    assert summary.ending == ev.Stopped(0)
    summary.apply([(EVERY[2], 20.0)])
    assert summary.ending is None


def test_a_snapshot_does_not_change():
    summary = summary_of(EVERY[2], measured("11"), EVERY[5], EVERY[6])
    snapshot, steps = summary.snapshot(), summary.steps
    summary.apply([(measured("10", iteration=1), 20.0), (ev.RemovalUndone(1, EVERY[6].units), 21.0)])
    assert (snapshot.steps, list(snapshot.removals), len(snapshot.sentences)) == (steps, [EVERY[6]], 4)
    assert (len(summary.removals), len(summary.undone), len(summary.sentences)) == (0, 1, 6)
    with pytest.raises(TypeError):
        snapshot.apply([(EVERY[6], 22.0)])
    with pytest.raises(TypeError):
        snapshot.evaluated[5] = measured("11")


def test_a_snapshot_may_be_read_while_the_summary_grows():
    """One thread applies events; another goes through snapshots of the same summary."""
    summary, failures, done = RunSummary(), [], threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                snapshot = summary.snapshot()
                assert sum(1 for _ in snapshot.scored.items()) <= 500
                assert [e.iteration for e in snapshot.measured] == sorted(snapshot.evaluated)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(500):
        summary.apply([(replace(EVERY[5], iteration=n), float(n)), (measured("1", iteration=n), float(n))])
    done.set()
    reader.join()
    assert failures == []
