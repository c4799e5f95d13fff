"""Several processes at one run, as torchrun starts them."""

from __future__ import annotations

import signal
import socket
import tempfile

import pytest
from safetensors.torch import load_file

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.process_group import ProcessGroup, shared
from pip_core.core.settings import MEASURED
from pip_core.engine.run import check
from pip_core.engine.stages.recover_result import Recovered
from pip_core.runs.run_directory import read_events

from ..processes import run_code, start
from ..tiny import only, recipe_for, write_lines

# Meets the first process, hears of its run, and is killed while that waits for what it would add.
GONE = """
import os, signal
from pip_core.core.process_group import joined
with joined() as group:
    group.told_by_first(None)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def pair_of() -> dict[str, str]:
    """The environment of two processes, as torchrun sets it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}


@pytest.fixture(scope="module")
def recipe_file(llama_folder, tasks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    rows = [{"prompt": "The dog ran to the " * n, "answer": "tree"} for n in range(1, 20)]
    written = write_lines(folder / "written.jsonl", rows)
    # Blocks are scored by what their substitutes cannot give back, and all kinds share the target.
    recipe = recipe_for(llama_folder, [*tasks, written], units=("blocks", "channels"), refit=True)
    changes = {"vocabulary": MEASURED, "division_windows": 4, "refit_tokens": 4096, "windows": 4}
    changes |= {"recover": "short", "recover_tokens": 2048, "recover_text": "written", "recover_rate": 5e-3}
    path = folder / "recipe.json"
    path.write_text(recipe.replace(**changes, items=0, speed="off", sample="off").to_json())
    return path


def test_two_processes_do_what_one_does(recipe_file, pair_of, tmp_path):
    with tempfile.TemporaryFile("w+") as said:
        command = "prune", "--recipe", recipe_file, "--out"
        alone = start(*command, tmp_path / "one", stderr=said)
        both = [
            start(
                "prune", "--recipe", recipe_file, "--out", tmp_path / "two", RANK=rank, stderr=said, **pair_of
            )
            for rank in "01"
        ]
        codes = [process.wait(240) for process in (alone, *both)]
        said.seek(0)
        assert codes == [0, 0, 0], said.read()
    one, two = (read_events(tmp_path / name) for name in ("one", "two"))
    assert [e.units for e in ev.removals(one)] == [e.units for e in ev.removals(two)]
    assert {e.result_of for e in one} == {e.result_of for e in two}
    assert only(one, ev.Evaluated)[-1].tasks == only(two, ev.Evaluated)[-1].tasks
    assert only(one, ev.Evaluated)[-1].perplexity == pytest.approx(
        only(two, ev.Evaluated)[-1].perplexity, 1e-4
    )
    learnt, shared_out = (only(events, Recovered)[-1] for events in (one, two))
    assert learnt.kept == shared_out.kept > 0
    assert shared_out.after == pytest.approx(learnt.after, 1e-4)
    weights, same = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert weights.keys() == same.keys()
    for name, weight in weights.items():
        assert same[name].allclose(weight, rtol=1e-4, atol=1e-5), name


def test_a_process_that_ends_ends_the_run_in_a_sentence(recipe_file, pair_of, tmp_path):
    with tempfile.TemporaryFile("w+") as said:
        first = start(
            "prune", "--recipe", recipe_file, "--out", tmp_path / "run", stderr=said, RANK="0", **pair_of
        )
        assert run_code(GONE, RANK="1", **pair_of).returncode == -signal.SIGKILL
        assert first.wait(240) == 2
        said.seek(0)
        assert "Another process of this run has ended" in said.read()
    assert isinstance(read_events(tmp_path / "run")[-1], ev.Failed)


def test_what_cannot_be_shared_is_refused(recipe_file):
    recipe = recipe_for("demo")
    with shared(ProcessGroup(0, 8)), pytest.raises(UserError, match="8 processes cannot share 3"):
        check(recipe)
    with shared(ProcessGroup(0, 2)), pytest.raises(UserError, match="several processes"):
        check(recipe.replace(target_speedup="decode:1.3"))
