"""Fixtures: tiny checkpoints on disk and in memory, their tokenizer, small tasks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import Loaded, load_folder
from pip_core.checkpoints.verify import verify
from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.runs import run_directory
from pip_core.runs.queue import RunQueue
from pip_core.ui.looking import Looks

from . import tiny, zoo
from .processes import VERIFY, cli, start_check, warm_server
from .run_queues import Workers

logging.set_verbosity_error()
logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _speed_is_guessed() -> Iterator[None]:
    """A plan measures a model's speed for half a second, so as to be right; here any speed will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pip_core.planning.estimate.PROBE_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.build_tokenizer()


@pytest.fixture(scope="session")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    return tiny.build_tokenizer(bos=True)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, tokenizer) -> dict[str, Path]:
    """Model of the zoo -> a checkpoint folder on disk. Do not write there."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: tiny.save(root / name, name, tokenizer) for name in tiny.SAVED}


@pytest.fixture(scope="session")
def llama_folder(checkpoints) -> Path:
    return checkpoints["llama"]


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> tuple[str, str]:
    """A multiple-choice and a last-word task."""
    root = tmp_path_factory.mktemp("tasks")
    return (
        tiny.write_lines(root / "choices.jsonl", tiny.choice_rows()),
        tiny.write_lines(root / "words.jsonl", tiny.word_rows()),
    )


@pytest.fixture(scope="session")
def recipe(llama_folder, tasks) -> Recipe:
    return tiny.recipe_for(llama_folder, tasks)


@pytest.fixture(params=["llama", "gpt2"])
def model(request) -> PreTrainedModel:
    return zoo.build(request.param)


@pytest.fixture
def opened(checkpoints) -> Callable[..., Loaded]:
    """Load a tiny checkpoint afresh: `opened("llama", "float32")`."""

    def open_(family: str, dtype: str = "auto") -> Loaded:
        folder = checkpoints[family]
        return load_folder(Source(folder, f"test/{family}", "made for the tests", "mit"), dtype)

    return open_


@dataclass(frozen=True)
class CommandRun:
    """A run made by the command line: what it said, and its folder."""

    process: subprocess.CompletedProcess
    folder: Path
    recipe: Recipe


@pytest.fixture(scope="session")
def command_run(tmp_path_factory, recipe) -> CommandRun:
    """`prune --recipe FILE --out FOLDER`, undisturbed."""
    root = tmp_path_factory.mktemp("command")
    (root / "recipe.json").write_text(recipe.to_json())
    done = cli("prune", "--recipe", root / "recipe.json", "--out", root / "run", **{VERIFY: "1"})
    return CommandRun(done, root / "run", recipe)


@pytest.fixture
def workers(monkeypatch) -> Workers:
    return Workers(monkeypatch)


@pytest.fixture
def queue(tmp_path, monkeypatch) -> RunQueue:
    for name in ("PIP_STUDIO_WORKERS", "PIP_STUDIO_KEEP_DAYS", "PIP_STUDIO_KEEP_GB"):
        monkeypatch.delenv(name, raising=False)
    return RunQueue(tmp_path / "runs")


@pytest.fixture(scope="session", autouse=True)
def _exports_are_trusted() -> Iterator[None]:
    """A run in this process exports without verification; a test whose point it is takes `verified`, and the
    process that verifies is forked from one that has its libraries loaded, which takes seconds, but in
    `test_verify.py` and `command_run`. For runs in processes of their own see `cheaper`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pip_core.engine.stages.verify.verify", tiny.unverified)
        patch.setattr("pip_core.checkpoints.verify.start_check", start_check)
        yield


@pytest.fixture(scope="session")
def looks() -> Iterator[Looks]:
    """Another process that looks at models and texts."""
    looking = Looks(warm_server)
    yield looking
    looking.close()


@pytest.fixture
def verified(monkeypatch) -> None:
    """Runs in this process verify what they export."""
    monkeypatch.setattr("pip_core.engine.stages.verify.verify", verify)


@pytest.fixture
def finished(tmp_path, recipe) -> Path:
    """A finished run of two blocks."""
    folder = tmp_path / "run"
    run_directory.create(folder, recipe)
    assert isinstance(list(run_directory.work(folder))[-1], ev.Finished)
    return folder
