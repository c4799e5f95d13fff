"""The zip of an exported model: complete, made once, in the background."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pip_core.checkpoints import packing
from pip_core.checkpoints.packing import start_packing, zip_folder
from pip_core.core.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(3_000_000))
    return folder


def finished(folder: Path, target: Path) -> packing.Packing:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        state = start_packing(folder, target)
        if state.ready or state.error:
            return state
        time.sleep(0.01)
    raise TimeoutError


def test_zip(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 1000)
    (folder / "sub" / "more").write_text("more")
    made = zip_folder(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(made) as archive:
        assert archive.testzip() is None
        assert archive.read("model/weights") == b"x" * 1000
        assert archive.read("model/sub/more") == b"more"
    stamp = made.stat().st_mtime_ns
    assert zip_folder(folder, made).stat().st_mtime_ns == stamp
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.zip"]


def test_zip_of_a_new_export_is_made_anew(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    made = zip_folder(folder, tmp_path / "model.zip")
    old = made.stat().st_mtime
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "weights").write_text("new")
    os.utime(folder / "weights", (old + 5, old + 5))
    with zipfile.ZipFile(zip_folder(folder, made)) as archive:
        assert archive.read("model/weights") == b"new"


def test_zip_asked_for_by_several_at_once(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(20_000_000))
    target = tmp_path / "model.zip"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(zip_folder, folder, target) for _ in range(4)]
    assert [a.result() for a in asked] == [target] * 4
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.zip"]


def test_packing_blocks_nobody_and_is_done_once(folder, tmp_path, monkeypatch):
    target, go_on, packings = tmp_path / "model.zip", threading.Event(), []
    pack = packing.pack

    def slowly(*given):
        packings.append(given)
        go_on.wait(20)
        pack(*given)

    monkeypatch.setattr(packing, "pack", slowly)
    states = [start_packing(folder, target) for _ in range(5)]
    assert not any(s.ready or s.error for s in states)
    assert {s.total for s in states} == {3_000_000}
    go_on.set()
    state = finished(folder, target)
    assert (state.ready, state.done, state.total) == (True, 3_000_000, 3_000_000)
    assert len(packings) == 1
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None


def test_a_failed_packing_is_told_and_not_tried_at_every_look(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    target = tmp_path / "model.zip"
    state = finished(folder, target)
    assert "10 MB are free" in state.error
    monkeypatch.undo()
    assert start_packing(folder, target).error == state.error
    with pytest.raises(UserError, match="10 MB are free"):
        zip_folder(folder, target)
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.0)
    assert zip_folder(folder, target) == target


def test_a_model_replaced_meanwhile_is_not_packed_half_and_half(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage

    def replace_then_answer(place):
        if folder.with_name("old").exists():
            return usage(place)
        folder.rename(folder.with_name("old"))
        folder.mkdir()
        (folder / "weights").write_text("new")
        return usage(place)

    monkeypatch.setattr(shutil, "disk_usage", replace_then_answer)
    target = tmp_path / "model.zip"
    assert "exported again" in finished(folder, target).error
    assert not target.exists()
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.0)
    with zipfile.ZipFile(zip_folder(folder, target)) as archive:
        assert archive.read("model/weights") == b"new"
