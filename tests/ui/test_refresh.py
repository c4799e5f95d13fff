"""What a refresh shows: stages of plugins, damaged runs, packing. And what pressing Prune does not do."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.planning.estimate import anatomy_for, make_plan
from pip_core.runs import files, run_directory
from pip_core.ui import download, fields, form, page, refresh
from pip_core.ui.follow import Followers
from pip_core.ui.handlers import PageHandlers
from pip_core.ui.layout import Services

from .. import tiny
from ..engine.toy_stage import Scaled, Toy
from ..reporting.test_messages import measured
from ..run_queues import BLOCK, FINISHED, STARTED, ended

ME = {"owner": "me"}


def exported(path: str = "x") -> ev.Exported:
    return ev.Exported(path, 1000, 1, 0.0, 20, 1.0)


def test_a_stage_of_a_plugin_is_shown_by_itself(queue, workers, monkeypatch, llama_folder):
    monkeypatch.setenv("PIP_STUDIO_STAGES", "tests.engine.toy_stage:Toy")
    recipe = Recipe(model=str(llama_folder), toy_factor=1.5)
    run_id = queue.start(recipe, "me")
    final = replace(measured("1110", iteration=1), final=True)
    events = [
        STARTED,
        measured("1111"),
        BLOCK,
        measured("1110", iteration=1),
        Scaled(1, 1.5),
        final,
        FINISHED,
    ]
    workers.end(queue.folder(run_id), *events)
    changes = refresh.refresh(queue, ME, run_id, [], ())
    assert Scaled(1, 1.5).sentence() in changes["log"]["value"]
    assert Toy.describe(Scaled(1, 1.5)).summary in changes["measurements"]["value"]
    assert Toy.describe(Scaled(1, 1.5)).heading in changes["maps"]["value"]
    assert "--toy-factor 1.5" in changes["command"]["value"]
    found = {control.name: control for control in fields.controls()}
    assert (found["setting_toy_factor"].group, found["setting_toy_factor"].kind) == (Toy.title, "number")


def test_settings_of_every_kind_have_a_field(queue, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_STAGES", "tests.ui.play_stage:Play")
    found = {control.name: control for control in fields.controls()}
    assert found["setting_play"].group == "Playing"
    assert found["setting_play"].label == "Play with toys"
    assert [value for _, value in found["setting_play"].choices] == ["auto", "yes", "no"]
    assert (found["setting_play_share"].kind, found["setting_play_share"].label) == (
        "number",
        "Play share, %",
    )
    assert found["setting_play_count"].kind == "whole"
    recipe = Recipe(play=False, play_share=0.4, play_count=7)
    values = [change["value"] for change in fields.to_form(recipe).values()]
    assert fields.from_form(*values) == recipe
    values[fields.fields().index("setting_play_count")] = 99
    with pytest.raises(UserError, match="Play count: enter"):
        fields.from_form(*values)


def test_without_the_plugin_its_fields_are_gone():
    assert not [name for name in fields.fields() if "toy" in name or "play" in name]


@pytest.mark.parametrize("name", [files.RECIPE, files.EVENTS, files.ABOUT, files.QUEUED, files.UNDO])
def test_a_damaged_run_does_not_break_a_refresh(queue, workers, name):
    bad = ended(queue, workers, STARTED, measured("1111"), BLOCK, ev.Stopped(1))
    good = ended(queue, workers, STARTED, measured("1111"), FINISHED)
    (queue.folder(bad) / name).write_bytes(b"\xff\n")
    changes = refresh.refresh(queue, ME, good, [], [bad, good])
    assert "Finished" in changes["status"]["value"]
    assert good in changes["summary"]["value"] or "demo" in changes["summary"]["value"]
    changes = refresh.refresh(queue, ME, bad, [], ())
    assert "data-state='damaged'" in changes["status"]["value"]
    assert name in changes["status"]["value"]
    assert not changes["undo"]["visible"] or name in (files.QUEUED, files.UNDO)
    assert changes["resume"]["visible"] == (name in (files.QUEUED, files.UNDO))
    handlers = PageHandlers(queue)
    assert handlers.choose(ME, bad)["run"] == {"value": bad}
    assert "notice" in handlers.act("resume", ME, bad)


def test_a_run_of_a_newer_version_is_shown_without_buttons(queue, workers):
    run_id = ended(queue, workers, STARTED, BLOCK)
    with (queue.folder(run_id) / files.EVENTS).open("a") as file:
        file.write('{"event": "Later", "at": 1}\n')
    changes = refresh.refresh(queue, ME, run_id, [], ())
    assert "newer version" in changes["status"]["value"]
    for name in ("stop", "pause", "resume", "undo", "export_now", "get", "onward"):
        assert not changes[name]["visible"]


def test_a_refresh_does_not_wait_for_packing(queue, workers, monkeypatch):
    run_id = ended(queue, workers, STARTED, measured("1111"), BLOCK, exported(), FINISHED)
    model = queue.folder(run_id) / files.MODEL
    model.mkdir()
    (model / "weights").write_bytes(bytes(10**6))
    from pip_core.checkpoints import packing

    pack, go_on = packing.pack, threading.Event()

    def slowly(*arguments) -> None:
        go_on.wait(20)
        pack(*arguments)

    monkeypatch.setattr(packing, "pack", slowly)
    changes = refresh.refresh(queue, ME, run_id, [], ())
    assert changes["zip"]["visible"]
    assert not changes["zip"]["interactive"]
    assert "Packing" in changes["zip"]["label"]
    assert changes["timer"]["value"] == refresh.BUSY_SECONDS
    go_on.set()
    until = time.monotonic() + 20
    while not changes.get("zip", {}).get("interactive"):
        assert time.monotonic() < until
        time.sleep(0.1)
        changes = refresh.refresh(queue, ME, run_id, changes.get("seen", {}).get("value", []), ())
    assert changes["zip"]["value"].endswith(".zip")


def test_who_owns_the_machine_is_told_how_to_push(queue, workers, monkeypatch):
    run_id = ended(queue, workers, STARTED, measured("1111"), BLOCK, exported(), FINISHED)
    line = download.push_line(queue.folder(run_id))
    assert line.startswith("python -m pip_core push ")
    assert line in refresh.refresh(queue, ME, run_id, [], ())["command"]["value"]
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    shown = refresh.refresh(queue, ME, run_id, [], ())["command"]["value"]
    assert "push" not in shown
    assert str(queue.folder(run_id)) not in shown


def test_nothing_changed_nothing_sent(queue, workers):
    run_id = ended(queue, workers, STARTED, BLOCK, FINISHED)
    changes = refresh.refresh(queue, ME, run_id, [], ())
    assert refresh.refresh(queue, ME, run_id, changes["seen"]["value"], ()) == {}
    # What a page of an older version remembers is not understood, and not trusted.
    assert refresh.refresh(queue, ME, run_id, changes["seen"]["value"][:-2], ())


def test_prune_downloads_nothing(queue, workers, llama_folder, looks):
    """Datasets of the Hub are the worker's to fetch; this process never asks for them."""
    recipe = Recipe(
        model=str(llama_folder), calibration="hub:nobody/nothing", tasks=("arc_easy",), vocabulary=0
    )
    values = [change["value"] for change in fields.to_form(recipe).values()]
    handlers = PageHandlers(queue, looks)
    changes = handlers.preview_form("", *values)
    assert "Will remove" in changes["plan"]["value"]
    run_id = handlers.start(ME, *values)["run"]["value"]
    assert queue.recipe(run_id).calibration == "hub:nobody/nothing"
    assert queue.recipe(handlers.launch(recipe.to_dict(), "x")).tasks == ("arc_easy",)


def test_what_can_be_checked_at_once_is(queue, workers, llama_folder, tmp_path, looks):
    handlers = PageHandlers(queue, looks)
    tiny.write_lines(tmp_path / "empty.jsonl", [])
    for changes in (
        {"target": 0.9},
        {"keep": (99,)},
        {"tasks": (str(tmp_path / "empty.jsonl"),)},
        {"calibration": "text:Too short."},
    ):
        values = fields.to_form(Recipe(model=str(llama_folder), vocabulary=0).replace(**changes)).values()
        assert "problem" in handlers.start(ME, *(c["value"] for c in values))["notice"]["value"]
    assert queue.everybodys() == []


def test_form_and_plan_state_the_same_memory(llama_folder, monkeypatch):
    for name in ("planning.estimate.available_memory", "ui.form.available_memory"):
        monkeypatch.setattr(f"pip_core.{name}", lambda: 10**6)
    for changes in ({}, {"method": "pip"}, {"window_tokens": 64}):
        recipe = Recipe(model=str(llama_folder), **changes)
        stated = re.search(r"needs [\d.]+ of", form.model_line(recipe)).group()
        assert stated in form.plan_line(make_plan(recipe), recipe)


def test_few_may_follow_at_once(queue, workers):
    run_id = queue.start(Recipe())
    followers = Followers(queue, 2)

    async def follow() -> list[str]:
        first, second = followers.follow(run_id), followers.follow(run_id)
        states = [(await anext(f))["state"] for f in (first, second)]
        with pytest.raises(UserError, match="2 programs"):
            await anext(followers.follow(run_id))
        await first.aclose()
        third = followers.follow(run_id)
        states.append((await anext(third))["state"])
        workers.end(queue.folder(run_id), FINISHED)
        states += [facts["state"] async for facts in third]
        await second.aclose()
        return states

    # In a thread of its own: a browser of other tests may have an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        states = thread.submit(asyncio.run, follow()).result()
    assert states == ["starting", "starting", "starting", "finished"]
    assert followers.count == 0


@pytest.fixture
def one_block_less(queue, workers, llama_folder, tmp_path) -> tuple[str, Recipe]:
    """A run that has removed a block and ended: its id and its recipe. Nothing of its model is cached."""
    model = shutil.copytree(llama_folder, tmp_path / "model")
    recipe = Recipe(model=str(model), units=("blocks",), vocabulary=0.0, refit=False)
    run_id = queue.start(recipe, "me")
    anatomy = anatomy_for(str(llama_folder))
    started = replace(STARTED, blocks=len(anatomy.blocks), parameters=anatomy.parameters)
    events = started, measured("1111"), BLOCK, measured("1110", iteration=1), FINISHED
    workers.end(queue.folder(run_id), *events)
    return run_id, recipe


@pytest.mark.parametrize("act", ["refresh", "extend", "repeat", "fork"])
def test_a_foreign_models_files_are_read_by_another_process(one_block_less, queue, looks, monkeypatch, act):
    """Where that may take any time, which has an end there."""
    (run_id, recipe), handlers = one_block_less, PageHandlers(queue, looks)
    form_ = {**fields.to_form(recipe.replace(recover_tokens=5000)), "target": {"value": 30}}
    values = [form_[name]["value"] for name in fields.fields()]

    def read_here(*_) -> None:
        raise AssertionError("read by the page's process")

    monkeypatch.setattr("pip_core.checkpoints.load.config_in", read_here)
    if act == "refresh":
        wire = page.refreshing(Services(queue, handlers, None))
        changes = wire.handler(ME, run_id, [], ())
        assert "block-bar removed" in changes["maps"]["value"]
        assert len(changes["slider"]["value"]["points"]) == 2
    elif act == "extend":
        assert handlers.extend(ME, run_id, 30) == {"notice": {"value": ""}}
        assert queue.recipe(run_id).target == 0.3
    elif act == "repeat":
        assert handlers.repeat("recover", ME, run_id, *values) == {"notice": {"value": ""}}
    else:
        made = handlers.fork(ME, run_id, 1, *values)["run"]["value"]
        assert tiny.only(run_directory.read_events(queue.folder(made)), ev.Removed) == [BLOCK]


def test_what_a_run_finds_out_of_named_blocks_is_said_when_it_has_ended(one_block_less, queue, looks):
    run_id, recipe = one_block_less
    handlers = PageHandlers(queue, looks)
    free = next(n for n in range(5) if n not in BLOCK.blocks)
    values = [found["value"] for found in fields.to_form(recipe.replace(keep=(free,))).values()]
    run_directory.record(queue.folder(run_id), [ev.Scored(1, "blocks", (0.1, 0.2, 0.3, 0.4, 0.5), 1.0)])
    assert "of 5 in the run shown" in handlers.importance(run_id, *values)["locks"]["value"]
    assert "shows how important" in handlers.importance("", *values)["locks"]["value"]
    assert handlers.importance(run_id, *[found["value"] for found in fields.to_form(recipe).values()]) == {}


def test_a_run_that_was_changed_while_it_was_looked_at_is_left_alone(one_block_less, queue):
    run_id, recipe = one_block_less

    def slowly(function, *arguments):
        found = function(*arguments)
        queue.undo(run_id)
        return found

    with pytest.raises(UserError, match="changed meanwhile"):
        queue.extend(run_id, 0.3, slowly)
    assert queue.recipe(run_id).target == recipe.target


def test_a_finished_run_is_recovered_by_a_button(one_block_less, queue, looks):
    run_id, recipe = one_block_less
    folder = queue.folder(run_id)
    assert refresh.refresh(queue, ME, run_id, [], ())["repeats"] == {"visible": True}
    given = fields.to_form(recipe.replace(recover_tokens=5000))
    handlers = PageHandlers(queue, looks)
    values = [given[name]["value"] for name in fields.fields()]
    assert handlers.repeat("recover", ME, run_id, *values) == {"notice": {"value": ""}}
    changed = queue.recipe(run_id)
    assert (changed.recover, changed.recover_tokens) == ("short", 5000)
    assert tiny.only(run_directory.read_events(folder), ev.SettingsChanged)
    assert queue.summary(run_id)[1] in refresh.LIVE
    refused = handlers.repeat("recover", {"owner": "you"}, run_id, *values)
    assert "Only the browser" in refused["notice"]["value"]
