"""What a run reads, changed by somebody between two of its workers: it is refused, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.runs import files, operations, run_directory

from .. import tiny


@pytest.fixture(scope="module")
def begun(tmp_path_factory, llama_folder, tasks):
    """A run of files of its own, which ended early."""
    root = tmp_path_factory.mktemp("begun")
    model = shutil.copytree(llama_folder, root / "model")
    text = root / "text.txt"
    text.write_text("The old dog sat near the tall tree and saw the man run home. " * 20)
    held = root / "held.txt"
    held.write_text(" ".join(f"She had {n} cows and a goat in the small barn." for n in range(60)))
    task = shutil.copy(tasks[0], root / "task.jsonl")
    recipe = tiny.recipe_for(model, [str(task)], calibration=str(text), heldout=str(held), units=("blocks",))
    run_directory.create(root / "run", recipe)
    for event in run_directory.work(root / "run"):
        if isinstance(event, ev.Removed):
            run_directory.request_stop(root / "run")
    assert isinstance(run_directory.read_events(root / "run")[-1], ev.Stopped)
    return root


@pytest.fixture
def run(begun, tmp_path):
    """A copy of the run; what it reads is shared, and to be put back."""
    return shutil.copytree(begun / "run", tmp_path / "run")


def _edited(path, old: str, new: str):
    before = path.read_bytes()
    assert old.encode() in before
    path.write_bytes(before.replace(old.encode(), new.encode()))
    return before


FILES = {
    "text.txt": ("old dog", "new cat", "'text.txt' .calibration. changed"),
    "held.txt": ("a goat", "a hen.", "'held.txt' .heldout. changed"),
    "task.jsonl": ("rain", "snow", "'task' .tasks. changed"),
    "model/config.json": ('"rms_norm_eps": ', '"rms_norm_eps": 1', "config or the tokenizer of 'model'"),
    "model/tokenizer_config.json": ("{", '{"x": 1, ', "config or the tokenizer of 'model'"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_run_whose_files_changed_goes_on_only_when_they_are_put_back(begun, run, name):
    old, new, sentence = FILES[name]
    before = _edited(begun / name, old, new)
    said = run_directory.read_events(run)
    try:
        *_, last = run_directory.work(run)
        assert isinstance(last, ev.Failed)
        assert re.search(sentence, last.message)
        assert not (run / files.MODEL).exists()
        with pytest.raises(UserError, match=sentence):
            operations.extend(run, 0.3)
        with pytest.raises(UserError, match=sentence):
            operations.fork(run, run.parent / "fork", {"target": 0.3})
        assert not (run.parent / "fork").exists()
    finally:
        (begun / name).write_bytes(before)
    assert ev.removals(run_directory.read_events(run)) == ev.removals(said)
    if name == "text.txt":
        assert isinstance(list(run_directory.work(run))[-1], ev.Finished)


def test_other_weights_are_refused(begun, run, llama_folder):
    weights = begun / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    try:
        *_, last = run_directory.work(run)
        assert isinstance(last, ev.Failed)
        # Not of a recipe, whose checksum one may remove.
        assert re.search("The weights of .* have changed since this run began", last.message)
        said = run_directory.read_events(run)
        with pytest.raises(UserError, match="have changed since this run began"):
            operations.extend(run, 0.3)
        assert run_directory.read_events(run) == said
    finally:
        shutil.copy(llama_folder / "model.safetensors", weights)


def test_a_recipe_that_somebody_edited_is_refused_and_what_the_run_changed_is_not(begun, run):
    recipe = run_directory.recipe_of(run)
    files.write(run / files.RECIPE, recipe.replace(windows=4, seed=7).to_json())
    for act in (lambda: operations.extend(run, 0.3), lambda: operations.fork(run, run.parent / "fork", {})):
        with pytest.raises(UserError, match=r"windows: 4 instead of 3; seed: 7 instead of 0"):
            act()
    *_, last = run_directory.work(run)
    assert isinstance(last, ev.Failed)
    assert "windows: 4" in last.message
    # As it was asked for, before the worker wrote down what it chose.
    files.write(run / files.RECIPE, recipe.replace(weights="").to_json())
    operations.extend(run, 0.3)
    operations.fork(run, run.parent / "fork", {"seed": 1, "calibration": tiny.FOUR, "items": 5})
    for folder in (run, run.parent / "fork"):
        *_, last = run_directory.work(folder, export=False)
        assert isinstance(last, ev.Finished), last
        operations.extend(folder, 0.4)
    # Nor is a run of an earlier version, which recorded nothing.
    lines = [json.loads(line) for line in (run / files.EVENTS).read_text().splitlines()]
    for line in lines:
        line.pop("settings", None)
        line.pop("contents", None)
    (run / files.EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    files.write(run / files.RECIPE, run_directory.recipe_of(run).replace(items=3).to_json())
    operations.fork(run, run.parent / "old", {})
    assert Recipe.from_json((run.parent / "old" / files.RECIPE).read_text()).items == 3


def test_a_folder_that_is_deleted_under_its_worker_does_not_come_back(run):
    def delete() -> None:
        for event in run_directory.work(run):
            if isinstance(event, ev.Started):
                shutil.rmtree(run)

    with pytest.raises(UserError, match="deleted or moved"):
        delete()
    assert not run.exists()
