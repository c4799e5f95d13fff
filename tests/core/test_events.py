"""Events: each is one line of JSON, and comes back as it was."""

from __future__ import annotations

import json

import pytest

from pip_core.core import events as ev
from pip_core.core.curve import CurvePoint
from pip_core.core.errors import UserError
from pip_core.core.sample import Sampled
from pip_core.core.units import Units
from pip_core.engine.stages.aim import Aimed
from pip_core.engine.stages.divide import Divided, Share
from pip_core.engine.stages.prune_vocabulary import VocabularyPruned
from pip_core.engine.stages.recover_result import Paced, Recovered
from pip_core.engine.stages.refit import Refitted
from pip_core.engine.stages.speed import Timed

TASK = ev.TaskResult("facts", 0.5, 0.35, 2, 0.25, "10", "acc", 0.5, 0.35, 0.0, 0.0, "abc", 1, 1)
TEXT = ev.TextResult("wikitext", 30.5, 1.9, 0.9, 2, 900, 1200, 1024)
OLD = ("name", "accuracy", "se", "items", "chance", "hits")
EVERY = (
    ev.Loading("loading x"),
    ev.Loading("downloading x", 5, 10),
    ev.Started(
        model="a/b",
        origin="folder",
        model_type="llama",
        blocks=3,
        parameters=99,
        method="pip",
        units=("heads", "channels"),
        target=0.2,
        goal="1 of 3 blocks",
        planned=1,
        planned_share=0.2,
        dtype="float32",
        device="cpu",
        resumed=2,
    ),
    ev.Progress("scoring", 1, 2, 3, 0.5, 1.5),
    ev.Evaluated(0, 3, 99, 12.5, 0.3, 8, 256, 0.5, 0.02, (TASK, TASK), 3.0, (TEXT,)),
    ev.Scored(1, "blocks", (0.1, None, 0.3), 2.0),
    ev.Removed(1, (Units("blocks", 0, (0,)),), 0.1, 0.33, 79, "1 of 3 blocks"),
    ev.Exported("/x/model", 1234, 2, 1e-6, 20, 4.0),
    ev.Finished(2, "2 of 3 blocks", 79, 60.0, 10**9),
    ev.Stopped(1),
    ev.Stopped(0),
    ev.Failed('No.\nSecond line with "quotes" and ü.'),
    ev.Scored(2, "channels", (0.1, None, 0.3), 2.0),
    ev.Removed(
        2,
        (Units("heads", 2, (1,)), Units("channels", 0, (3, 5)), Units("channels", 2, (0, 1, 63))),
        0.2,
        0.5,
        70,
        "1 of 12 groups of heads and 5 of 192 channels",
    ),
    ev.Exported("/x/model", 1234, 2, 1e-6, 20, 4.0, "2 of its blocks' halves are gone"),
    ev.Removed(1, (Units("blocks", 4, (0,)),), 0.0, 0.0, 79, "1 of 3 blocks", forced=True),
    ev.RemovalUndone(2, (Units("heads", 2, (1,)), Units("channels", 0, (3, 5)))),
    ev.TargetExtended(0.2, 0.3),
    ev.Forked("mine", 2, ("target", "per_parameter")),
    ev.Forked("", 1, ()),
    ev.SettingsChanged(("recover", "recover_text")),
    CurvePoint(2, "Learning", "tokens", "nats", 1024.0, (("held out", 0.4),), "9 tokens/s"),
    Sampled(2, "The sky is", " blue\n", 2, True, True),
    Timed(2, (1.2, 1.1, 1.3), (1.1, 1.0, 1.2), 400, 300, 5, "cpu", 2),
    Timed(2, skipped="memory ran out."),
    Paced(2, 5, 4096, 0.004, 0.001, 0.003),
    Recovered(2, 4096, 2048, "'mixed'", 0.4, 0.3, 24, -1.2, -1.1, 9.5),
    ev.Paused(1),
    ev.Evaluated(2, 3, 99, 12.5, 0.3, 8, 256, 0.5, 0.02, (TASK,), 3.0, (), True),
    VocabularyPruned(
        2, 24, 64, (" rare",), ("odd", " new"), ("é",), 29300, "2 of 6 blocks and 24 of 64 tokens", 0.5
    ),
    Refitted(2, 4096, 5, 6, "1 MLP (why)", 0.4, 0.2, 9.5),
    Aimed(
        *(0, (("target", 0.25), ("target_speedup", "")), "6 of 30 blocks", 6, 0.25),
        *("decode", 1.3, (("all", 0.25, 1.31, 1.3, 1.33),)),
    ),
    Divided(
        0,
        (("units", ("channels",)), ("vocabulary", 0.5)),
        "9 of 24 channels in every block, then 8 of 64 tokens",
        2,
        0.2,
        (Share("tokens", 512.0, 0.01, None), Share("channels", 512.0, 0.02, 0.1)),
        1024,
        True,
        "",
        9.5,
    ),
    ev.Skipped("facts", "The task facts cannot be measured: no."),
    ev.Warned("2 of 60 items of facts are the same as an earlier one; each counts."),
)


@pytest.mark.parametrize("event", EVERY, ids=lambda e: type(e).__name__)
def test_round_trip(event):
    line = ev.to_line(event, 1700000000.1234)
    assert "\n" not in line
    assert ev.from_line(line) == (event, 1700000000.123)
    assert hash(ev.from_line(line)[0]) == hash(event)


def test_a_measurement_of_an_earlier_version_is_read():
    event = next(e for e in EVERY if isinstance(e, ev.Evaluated))
    values = json.loads(ev.to_line(event, 5.0))
    del values["texts"], values["final"]
    values["tasks"] = [{k: v for k, v in t.items() if k in OLD} for t in values["tasks"]]
    found, _ = ev.from_line(json.dumps(values))
    assert (found.texts, found.final) == ((), False)
    assert found.tasks[0] == ev.TaskResult("facts", 0.5, 0.35, 2, 0.25, "10")


def test_every_type_is_covered():
    own = {k for k in ev.known_events().values() if k.__module__.startswith("pip_core.")}
    assert {type(e) for e in EVERY} == own - {ev.StageResult}


def test_events_of_version_0_1_are_read():
    removed = '{"event": "Removed", "at": 1, "iteration": 1, "units": [], "score": 0.5, "relative": 1.0,'
    removed += ' "parameters": 5, "lost": "1 of 3 blocks", "asked": true}'
    found, _ = ev.from_line(removed)
    assert (found.removed_description, found.forced) == ("1 of 3 blocks", True)
    undone, _ = ev.from_line('{"event": "Undone", "at": 1, "iteration": 1, "units": []}')
    assert undone == ev.RemovalUndone(1, ())
    extended, _ = ev.from_line('{"event": "Extended", "at": 1, "before": 0.2, "target": 0.3}')
    assert extended == ev.TargetExtended(0.2, 0.3)


def test_the_schema_names_every_event():
    assert {"Removed", "Refitted", "Finished"} <= set(ev.schema()["$defs"])


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        ev.Scored(1, "blocks", (float("nan"),), 1.0)


def test_endings():
    assert set(ev.ENDINGS) == {ev.Finished, ev.Stopped, ev.Paused, ev.Failed}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        '{"event": "Removed"}',
        '{"event": "Danced", "at": 1}',
        '{"event": "Stopped", "at": 1, "iterations": 1, "mood": "good"}',
        '{"event": "Stopped", "at": 1, "removed": [1, 2]}',
        '{"event": "Removed", "at": 1, "iteration": 1, "block": 3, "score": 1.0, "parameters": 5}',
        '{"event": "Removed", "at": 1, "iteration": 1, "units": [{"kind": "heads"}], "score": 1.0,'
        ' "relative": 1.0, "parameters": 5, "lost": ""}',
        '{"event": "Evaluated", "at": 1, "tasks": [{"name": "facts"}]}',
        '{"event": "Stopped", "at": 1, "remo',
    ],
)
def test_refuses_other_lines(line):
    with pytest.raises(UserError, match="written by another version"):
        ev.from_line(line)


def test_a_line_says_what_it_is():
    values = json.loads(ev.to_line(EVERY[6], 5.0))
    assert values["event"] == "Removed"
    assert values["at"] == 5.0
    assert values["units"] == [{"kind": "blocks", "block": 0, "units": [0]}]


def test_what_a_removal_took():
    assert (EVERY[6].blocks, EVERY[6].count) == ((0,), 1)
    assert (EVERY[13].blocks, EVERY[13].count) == ((0, 2), 6)
