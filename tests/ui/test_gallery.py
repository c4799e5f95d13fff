"""The finished runs that are shipped: everybody may look at them, and nobody changes them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from pip_core.core import events as ev
from pip_core.core.curve import CurvePoint
from pip_core.core.paths import ASSETS, EVENTS
from pip_core.core.recipe import Recipe
from pip_core.planning.estimate import anatomy_for
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs import gallery, run_directory
from pip_core.runs.queue import RunQueue
from pip_core.ui import comparison, examples, form, refresh
from pip_core.ui.handlers import PageHandlers
from pip_core.ui.shown import Shown

ME = {"owner": "me"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> RunQueue:
    root = tmp_path_factory.mktemp("gallery") / "runs"
    gallery.place(root)
    return RunQueue(root)


def test_every_example_is_whole_small_and_open_to_all(shown):
    assert len(gallery.examples()) == 3
    for run_id, path in gallery.examples().items():
        assert sum(file.stat().st_size for file in path.iterdir()) < 500_000
        summary, state = shown.summary(run_id)
        assert state == "finished"
        assert summary.dense.tasks[0].items == 40
        assert len({sample.prompt for sample in summary.samples.values()}) == 1
        assert {i for i, _ in summary.samples} == set(range(len(summary.removals) + 1))
        assert not shown.may_change(run_id, "me")
        assert not shown.owns(run_id, gallery.NOBODY)
        changes = refresh.refresh(shown, ME, run_id, [], ())
        assert len(changes["slider"]["value"]["points"]) > len(summary.removals)
        assert changes["again"]["visible"]
        for name in (
            "get",
            "try_it",
            "push_it",
            "pushing",
            "gguf_make_f16",
            "stop",
            "resume",
            "undo",
            "zip",
            "measure",
        ):
            assert not changes[name]["visible"], name
        assert "notice" not in changes
        # Nothing says how to load or push what is not there.
        assert "not shipped" in changes["verdict"]["value"]
        assert not changes["load"]["value"]
        assert " push " not in changes["command"]["value"]
    assert shown.listed("me") == []


def test_the_page_offers_them(shown):
    assert all(f"?run={run_id}" in examples.cards(shown) for run_id in gallery.examples())
    listed = refresh.refresh(shown, ME, "", [], ())["runs"]["choices"]
    assert {run_id for _, run_id in listed} == {"", *gallery.examples()}
    (run_id, *_) = gallery.examples()
    assert PageHandlers(shown).open_page(dict(ME), run_id)["model"]["value"].startswith("smollm2-135m")
    assert refresh.show_comparison(shown, list(gallery.examples()))["compare_csv"]["visible"]


def test_what_is_there_to_prune_is_offered_and_said(shown, monkeypatch):
    """Shipped models first, each with what it is; then those that a visitor pruned last."""
    handlers, (run_id, *_) = PageHandlers(shown), gallery.examples()
    mine = [SimpleNamespace(recipe=None), SimpleNamespace(recipe=Recipe(model="org/mine"))]
    monkeypatch.setattr(shown, "listed", {"me": mine}.__getitem__)
    for run, chosen in ((None, False), (run_id, True)):
        model = handlers.open_page(dict(ME), run)["model"]
        assert [name for _, name in model["choices"]][:3] == [*form.MODELS, "org/mine"]
        assert ("value" in model) == chosen
    for model in form.MODELS:
        assert form.ABOUT[model] in form.model_line(Recipe(model=model))
    assert form.ABOUT["smollm2-135m"] in form.model_line(Recipe(model="smollm2-135m@pypi"))


def test_what_was_changed_by_hand_is_put_back(tmp_path):
    gallery.place(tmp_path)
    (run_id, *_) = gallery.examples()
    (tmp_path / run_id / EVENTS).write_text("{}\n", encoding="utf-8")
    gallery.place(tmp_path)
    assert (tmp_path / run_id / EVENTS).read_bytes() == (gallery.examples()[run_id] / EVENTS).read_bytes()
    shutil.rmtree(tmp_path / run_id)
    gallery.place(tmp_path)
    assert (tmp_path / run_id).is_dir()
    assert gallery.FOLDER == ASSETS / "gallery"


def test_what_shows_a_run_is_made_again_whenever_it_would_be_another(shown):
    """Each drawing says what of a run it is made from; while that is the same, so is the drawing."""
    (run_id, *_) = gallery.examples()
    events = run_directory.read_events(shown.folder(run_id))
    last = [event for event in events if isinstance(event, ev.Removed)][-1]
    point = CurvePoint(last.iteration, "Recovery", "tokens", "nats", 100.0, (("loss", 0.5),))
    events += [point, replace(point, x=200.0), ev.Stopped(last.iteration)]
    events += [ev.RemovalUndone(last.iteration, last.units), events[0]]
    summary, before, spared = RunSummary(), {}, 0
    for number, event in enumerate(events):
        summary.apply([(event, float(number))])
        now = Shown(shown, run_id, "me", summary.snapshot(), "running", lambda _: anatomy_for("smollm2-135m"))
        for one in refresh.DRAWINGS:
            version, drawn = summary.version(one.of), one.draw(now)
            known, there = before.get(one.names, (None, None))
            spared += version == known
            assert version != known or drawn == there, (one.names, event)
            before[one.names] = version, drawn
    assert spared > len(events) * len(refresh.DRAWINGS) / 2
    values = [change.get("value") for _, drawn in before.values() for change in drawn.values()]
    charts = [value for value in values if isinstance(value, dict) and "layout" in value]
    assert len(charts) == 3
    for chart in charts:
        go.Figure(chart)  # Plotly's own classes refuse what its schema does not have


def test_a_branch_is_drawn_before_its_model_is_loaded(shown):
    """It begins with what another run scored, measured and removed, and with no word of the model."""
    for run_id in gallery.examples():
        kept = (ev.Scored, ev.Evaluated, ev.Removed)
        events = [
            event for event in run_directory.read_events(shown.folder(run_id)) if isinstance(event, kept)
        ]
        summary, started = RunSummary(), shown.summary(run_id)[0].started
        summary.apply([(ev.Forked("another", 2, ("method",)), 0.0), *((event, 1.0) for event in events)])
        assert (summary.units, summary.blocks) == (started.units, started.blocks)
        now = Shown(shown, run_id, "me", summary.snapshot(), "starting")
        for one in refresh.DRAWINGS:
            assert set(one.draw(now)) == set(one.names)
        begun = comparison.Compared("a branch", shown.recipe(run_id), summary, "starting")
        assert comparison.charts([begun])
        assert "starting" in comparison.summary([begun])
