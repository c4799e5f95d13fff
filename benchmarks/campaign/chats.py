"""Many who chat with the models of one run at the same moment, and the process that holds them dies."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil

from pip_core.core.errors import UserError
from pip_core.core.paths import ASSETS
from pip_core.inspection.processes import ModelProcesses
from pip_core.inspection.server import Status

from .outcome import MB, Outcome, measured, own_memory

MODEL = str(ASSETS / "models" / "demo")
PATIENCE_SECONDS = 240.0


def chats(count: int, root: Path) -> Outcome:
    """Chat all at once, twice; the second time the process is killed while it answers."""
    processes = ModelProcesses()
    with measured("chat", "", own_memory) as outcome:
        calm, held = _ask_at_once(processes, count, outcome, killed=False)
        killed, _ = _ask_at_once(processes, count, outcome, killed=True)
        again = _ask_at_once(processes, 1, outcome, killed=False)[0]
        outcome.note = (
            f"asked the two models of one run at the same moment; the first {count}: {calm}, models loaded "
            f"in 1 process of {held / MB:.0f} MB; the second {count}, while it was killed: {killed}; one "
            f"more afterwards: {again}"
        )
        processes.close()
    return outcome


def _ask_at_once(processes: ModelProcesses, count: int, outcome: Outcome, killed: bool) -> tuple[str, float]:
    """What came of the questions, in words, and the most memory that processes with models held, in bytes."""
    ends: list[str] = []
    loads = 0

    def ask() -> None:
        nonlocal loads
        try:
            steps = list(processes.ask("chat", MODEL, MODEL, 1.0, prompt="The sky", tokens=64))
            loads += sum(isinstance(step, Status) and "oading" in step.text for step in steps)
            ends.append("answered")
        except UserError:
            ends.append("refused in a sentence")
        except Exception as error:
            ends.append(f"a fault: {error!r}")

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until, held, most, dead = time.monotonic() + PATIENCE_SECONDS, 0.0, 0, False
    while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
        running = [one for one in processes.running if one.is_alive()]
        most = max(most, len(running))
        held = max(held, *(_memory(one) for one in running), 0.0)
        if killed and not dead and ends and running:
            running[0].end()
            dead = True
        time.sleep(0.02)
    for end in ends:
        outcome.count(not end.startswith("a fault"), end)
    if len(ends) < count:
        outcome.count(False, "no answer in time", count - len(ends))
    if most > 1 or loads > 1 + killed:
        outcome.lost.append(f"{most} processes, {loads} loadings")
        outcome.survived = 0
    return ", ".join(f"{ends.count(end)} {end}" for end in dict.fromkeys(ends)), held


def _memory(process: object) -> float:
    try:
        return psutil.Process(process._process.pid).memory_info().rss  # type: ignore[attr-defined]
    except psutil.Error:
        return 0.0
