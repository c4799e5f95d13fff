"""The finished runs that are shipped: everybody may look at them, and nobody changes them."""

from __future__ import annotations

import shutil

import pytest

from pip_core.core.paths import ASSETS, EVENTS
from pip_core.runs import gallery
from pip_core.runs.queue import RunQueue
from pip_core.ui import examples, refresh
from pip_core.ui.handlers import PageHandlers

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
