"""The check of an export in a fresh process: what it notices, that it can be stopped, and its time limit."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from pip_core.checkpoints import reload_check
from pip_core.checkpoints import verify as verification
from pip_core.checkpoints.export import write_checkpoint
from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import Loaded, load_folder
from pip_core.checkpoints.verify import verify
from pip_core.core.errors import UserError
from pip_core.core.progress import Halted, drain, stoppable

from .. import tiny

FRESH = verification.start_check  # before other tests' stand-in takes its place
PROBE = "The dog ran around the tree. Then it slept, and the cat sat on the mat for a while."


@pytest.fixture(autouse=True)
def _in_a_fresh_process(monkeypatch) -> None:
    monkeypatch.setattr(verification, "start_check", FRESH)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, llama_folder) -> tuple[Loaded, Path]:
    """A tiny Llama without its blocks 1 and 3, written and not verified."""
    folder = tmp_path_factory.mktemp("export") / "model"
    loaded = load_folder(Source(llama_folder, "test/llama", "made for the tests", "mit"))
    write_checkpoint(loaded, tiny.without_blocks(loaded, [1, 3]), folder, {"removed": [1, 3]})
    return loaded, folder


def corrupted(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] + 0.05
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_changed_weight_is_noticed(exported, tmp_path):
    loaded, folder = exported
    with pytest.raises(UserError, match=r"answers differently: logits differ by .* It was not kept"):
        drain(verify(loaded, corrupted(folder, tmp_path / "bad"), PROBE))
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_a_folder_that_does_not_load_is_noticed(exported, tmp_path):
    loaded, folder = exported
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "config.json").unlink()
    with pytest.raises(UserError, match="did not load") as refused:
        drain(verify(loaded, tmp_path / "bad", PROBE))
    assert "\n" not in str(refused.value)


def answering(monkeypatch, **answer) -> None:
    """Let the fresh process answer `answer`."""

    def run(*_):
        yield 0.0
        return {"largest_difference": 0.0, "cache_gap": 0.0, "tokens": 20, **answer}

    monkeypatch.setattr(verification, "_run", run)


def test_a_difference_between_cache_and_none_is_noticed(exported, monkeypatch):
    loaded, folder = exported
    answering(monkeypatch)
    assert drain(verify(loaded, folder, PROBE)).tokens == 20
    answering(monkeypatch, cache_gap=0.5)
    with pytest.raises(UserError, match="key-value cache"):
        drain(verify(loaded, folder, PROBE))


@pytest.mark.parametrize("field", ["largest_difference", "cache_gap"])
def test_no_number_is_a_difference(exported, monkeypatch, field):
    loaded, folder = exported
    answering(monkeypatch, **{field: float("nan")})
    with pytest.raises(UserError, match="It was not kept"):
        drain(verify(loaded, folder, PROBE))


def test_the_fresh_process_compares_cache_and_none(exported, tmp_path, capsys, monkeypatch):
    loaded, folder = exported
    ids = tiny.token_rows(1, 10)
    probe = tmp_path / "probe.safetensors"
    with torch.inference_mode():
        save_file({"ids": ids, "logits": loaded.model(ids).logits}, probe)
    reload_check.main(str(folder), str(probe), 12)
    found = json.loads(capsys.readouterr().out)
    assert found == {"largest_difference": 0.0, "cache_gap": 0.0, "tokens": 12}

    def wrong(self, ids, use_cache, max_new_tokens, **_):
        return torch.cat([ids, torch.full((1, max_new_tokens), 5 if use_cache else 6)], dim=1)

    monkeypatch.setattr(type(loaded.model), "generate", wrong)
    reload_check.main(str(folder), str(probe), 12)
    assert json.loads(capsys.readouterr().out)["cache_gap"] > 0.01


SLEEPER = "import sys, time; print('x' * 200_000, flush=True); time.sleep(60)"


@pytest.fixture
def sleeping(monkeypatch, tmp_path) -> None:
    """A fresh process that prints more than a pipe holds and then never ends."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{SLEEPER}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def children() -> list[psutil.Process]:
    """The sleeping process, where it is there; a browser of other tests may be a child too."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if SLEEPER in child.cmdline():
                found.append(child)
    return found


def test_it_can_be_stopped(exported, sleeping):
    loaded, folder = exported
    work = verify(loaded, folder, PROBE)
    seen = []

    def read() -> None:
        for seconds in stoppable(work, lambda: bool(children()), lambda: -1.0):
            seen.append(seconds)

    with pytest.raises(Halted):
        read()
    assert seen[-1] == -1.0
    assert seen[:-1] == sorted(seen[:-1])
    assert not children()
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_process_that_the_system_ended_is_no_model_that_does_not_load(exported, sleeping, monkeypatch):
    """As where memory runs out."""
    loaded, folder = exported

    def kill() -> None:
        for _ in verify(loaded, folder, PROBE):
            for child in children():
                child.kill()

    with pytest.raises(UserError, match=r"ended from outside \(SIGKILL\).*memory.*resume"):
        kill()


def test_it_is_killed_at_the_time_limit(exported, sleeping, monkeypatch):
    loaded, folder = exported
    monkeypatch.setenv("PIP_STUDIO_VERIFY_SECONDS", "0.5")
    with pytest.raises(UserError, match=r"longer than .*PIP_STUDIO_VERIFY_SECONDS"):
        drain(verify(loaded, folder, PROBE))
    assert not children()
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_time_limit_must_be_a_number(monkeypatch, text):
    monkeypatch.setenv("PIP_STUDIO_VERIFY_SECONDS", text)
    with pytest.raises(UserError, match="PIP_STUDIO_VERIFY_SECONDS"):
        verification.time_limit()


def test_logits_that_are_not_finite_are_refused(llama_folder, exported):
    loaded = load_folder(Source(llama_folder, "x", "y", None))
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="logits"):
        drain(verify(loaded, exported[1], PROBE))
