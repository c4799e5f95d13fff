"""Questions about two models are answered by few processes, which load the models once and end alone."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pip_core.core.errors import UserError
from pip_core.core.paths import ASSETS
from pip_core.core.recipe import DEMO
from pip_core.inspection.processes import MOST_WAITING, ModelProcesses
from pip_core.inspection.server import Status, memory_limit

from ..processes import warm_server


@pytest.fixture
def processes() -> Iterator[ModelProcesses]:
    found = ModelProcesses(1, 120, warm_server())
    yield found
    found.close()


@pytest.fixture
def models(checkpoints) -> tuple[str, str, float]:
    return str(checkpoints["llama"]), str(checkpoints["llama"]), 1.0


def loadings(steps: list) -> int:
    return sum(isinstance(s, Status) and "Loading" in s.text for s in steps)


def test_two_visitors_load_the_models_once(processes, models):
    """They ask at the same time; one waits for the other, and both are answered by one process."""
    found: list[list] = []

    def visit() -> None:
        found.append(list(processes.ask("chat", *models, prompt="The sky")))

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert sum(map(loadings, found)) == 1
    assert len(found) == 2
    for steps in found:
        dense, pruned = steps[-1]
        assert dense.text == pruned.text
    # And another question about the same run.
    places = list(processes.ask("divergence", *models, text="The sky is blue and so it was"))
    assert loadings(places) == 0
    assert all(place.divergence == 0 for place in places[-1])
    steps = list(processes.ask("latency", *models, prompt_tokens=4, new_tokens=4, rounds=2))
    assert steps[-1].decode_ratio.median > 0
    # The models of another run take their place.
    assert loadings(list(processes.ask("chat", *models[:2], 2.0, prompt="The sky"))) == 1
    assert len(processes.running) == 1


def test_what_is_wrong_is_a_sentence_and_the_process_goes_on(processes, models):
    with pytest.raises(UserError, match="Write a prompt") as refused:
        list(processes.ask("chat", *models, prompt=" "))
    assert refused.value.setting == "prompt"  # the field that the page marks
    with pytest.raises(UserError, match="does not exist"):
        list(processes.ask("chat", "./no/such/folder", models[1], 1.0, prompt="x"))
    assert list(processes.ask("chat", *models, prompt="The sky"))


def test_a_process_that_ends_hurts_one_answer(processes, models):
    steps = processes.ask("latency", *models, prompt_tokens=8, new_tokens=8, rounds=500)
    next(steps)
    processes.running[0].end()
    with pytest.raises(UserError, match="ended"):
        list(steps)
    assert list(processes.ask("chat", *models, prompt="The sky"))


def test_an_answer_that_takes_too_long(models):
    processes = ModelProcesses(1, 0.2, warm_server())
    try:
        with pytest.raises(UserError, match="PIP_STUDIO_MODEL_SECONDS"):
            list(processes.ask("latency", *models, prompt_tokens=8, new_tokens=8, rounds=500))
        assert not processes.running[0].is_alive()
    finally:
        processes.close()


def test_an_idle_process_ends_and_another_answers(models, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_MODEL_IDLE_SECONDS", "0.1")
    processes = ModelProcesses(1, 120, warm_server())
    try:
        assert list(processes.ask("chat", *models, prompt="The sky"))
        first = processes.running[0]
        until = time.monotonic() + 30
        while first.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        assert not first.is_alive()
        assert list(processes.ask("chat", *models, prompt="The sky"))
    finally:
        processes.close()


def test_whoever_leaves_makes_room(processes, models):
    steps = processes.ask("latency", *models, prompt_tokens=8, new_tokens=8, rounds=500)
    next(steps)
    steps.close()
    assert list(processes.ask("chat", *models, prompt="The sky"))


def test_too_many_questions_are_refused(processes, models):
    waiting = []
    first = processes.ask("latency", *models, prompt_tokens=8, new_tokens=8, rounds=500)
    next(first)
    for _ in range(MOST_WAITING):
        waiting.append(processes.ask("chat", *models, prompt="The sky"))
        assert isinstance(next(waiting[-1]), Status)
    with pytest.raises(UserError, match="waiting"):
        next(processes.ask("chat", *models, prompt="The sky"))
    for asked in (first, *waiting):
        asked.close()
    assert list(processes.ask("chat", *models, prompt="The sky"))


def test_memory_is_bounded(models, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_MODEL_GB", "0.05")
    processes = ModelProcesses(1, 120, warm_server())
    try:
        with pytest.raises(UserError, match=r"PIP_STUDIO_MODEL_GB|ended"):
            list(processes.ask("latency", *models, prompt_tokens=8, new_tokens=8, rounds=5000))
    finally:
        processes.close()


def test_a_template_takes_neither_all_memory_nor_all_time(checkpoints, tmp_path, monkeypatch):
    """Forty characters that ask for gigabytes, and loops that never end; whoever asks next is answered."""
    monkeypatch.setenv("PIP_STUDIO_MODEL_GB", "2")
    plain, greedy, endless = str(checkpoints["llama"]), tmp_path / "greedy", tmp_path / "endless"
    loop = "{% for i in range(99999) %}"
    for folder, template in ((greedy, "{{ 'a' * 9000000000 }}"), (endless, 4 * loop + 4 * "{% endfor %}")):
        shutil.copytree(plain, folder)
        (folder / "chat_template.jinja").write_text(template)
    processes = ModelProcesses(1, 120, warm_server())
    try:
        with pytest.raises(UserError, match=r"template.*MemoryError"):
            list(processes.ask("chat", str(greedy), plain, 1.0, prompt="The sky"))
        process = processes.running[0]
        assert _peak(process._process.pid) < 2.5e9
        list(processes.ask("divergence", str(endless), plain, 1.0, text="The sky is blue"))
        processes._seconds = 1.0
        with pytest.raises(UserError, match="PIP_STUDIO_MODEL_SECONDS"):
            list(processes.ask("chat", str(endless), plain, 1.0, prompt="The sky"))
        assert not process.is_alive()
        processes._seconds = 120
        assert list(processes.ask("chat", plain, plain, 1.0, prompt="The sky"))
    finally:
        processes.close()


def _peak(pid: int) -> int:
    """The most memory that a process has held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def test_a_page_that_reads_no_folders_of_visitors_reads_those_of_its_runs(monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "no")
    processes = ModelProcesses(1, 120, warm_server())
    try:
        found = list(
            processes.ask("divergence", DEMO, str(ASSETS / "models" / DEMO), 1.0, text="Once upon a time")
        )
    finally:
        processes.close()
    assert all(place.divergence == 0 for place in found[-1])


def test_limits_from_the_environment(monkeypatch):
    for name, bad in (("PIP_STUDIO_MODEL_WORKERS", "0"), ("PIP_STUDIO_MODEL_SECONDS", "soon")):
        monkeypatch.setenv(name, bad)
        with pytest.raises(UserError, match=name):
            ModelProcesses()
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_STUDIO_MODEL_GB", "-1")
    with pytest.raises(UserError, match="PIP_STUDIO_MODEL_GB"):
        memory_limit()
