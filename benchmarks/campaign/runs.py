"""Attacks on runs: workers killed at random moments, disks that fill up, small files that are damaged."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.runs import files, run_directory
from pip_core.runs.queue import RunQueue
from tests import tiny
from tests.faults.test_small_files import NASTY, check_that_others_go_on
from tests.processes import start, warm_server
from tests.run_queues import BLOCK, STARTED, Workers, ended

from .outcome import Outcome, measured, own_memory

# Kills of one run, at most, before it is left alone to finish.
KILLS_OF_A_RUN = 12
DAMAGES = {
    "empty": b"",
    "truncated": None,
    "binary": bytes(range(256)) * 4,
    "wrong type": b'["a list", 1]',
    **NASTY,
}
SMALL = (files.RECIPE, files.EVENTS, files.ABOUT, files.QUEUED, files.UNDO, files.LAUNCHED, files.LOG)
WHOLE = {
    files.QUEUED: json.dumps({"at": 1.0, "command": "resume"}),
    files.UNDO: "1",
    files.LAUNCHED: json.dumps({"pid": 1, "began": 1.0, "said": 0}),
    files.LOG: "=== resume\n",
}
# A disk of so many bytes is filled by the run itself.
FULL_DISKS = "from benchmarks.campaign.runs import fill_disks; fill_disks({sizes}, {root!r})"


def tiny_recipe(root: Path) -> Recipe:
    """A recipe of a tiny model, whose run removes three blocks in a second or two."""
    model = tiny.save(root / "model", "llama", tiny.build_tokenizer())
    tasks = [tiny.write_lines(root / "choices.jsonl", tiny.choice_rows())]
    return tiny.recipe_for(model, tasks, target=0.3, windows=40)


def result_of(folder: Path) -> tuple[list, str]:
    """What a run removed, and the checksum of the weights that it exported."""
    events = run_directory.read_events(folder)
    if not isinstance(events[-1], ev.Finished):
        return [], f"it ended with {events[-1]}"
    weights = (folder / files.MODEL / "model.safetensors").read_bytes()
    return [e.units for e in ev.removals(events)], hashlib.sha256(weights).hexdigest()


def kills(count: int, root: Path, seed: int = 0) -> Outcome:
    """Kill workers (SIGKILL) at random moments, from their start to the end of the verification."""
    draw, recipe = random.Random(seed), tiny_recipe(root)
    warm_server()
    run_directory.create(root / "whole", recipe)
    began = time.monotonic()
    start("resume", root / "whole").wait(600)
    usual, expected = time.monotonic() - began, result_of(root / "whole")
    note = f"workers killed by SIGKILL at a random moment of a run of {usual:.0f} s, then resumed to the end"
    with measured("kill", note) as outcome:
        for number in itertools.count():
            if outcome.tried >= count:
                break
            folder = root / f"killed-{number}"
            run_directory.create(folder, recipe)
            done = 0
            for _ in range(min(draw.randint(1, KILLS_OF_A_RUN), count - outcome.tried)):
                worker = start("resume", folder)
                time.sleep(draw.uniform(0, usual))
                done += worker.poll() is None
                worker.kill()
                worker.wait(60)
            start("resume", folder).wait(600)
            found = result_of(folder)
            outcome.count(found == expected, f"{folder.name}: {found}", done)
    return outcome


def disks(count: int, root: Path) -> Outcome:
    """Runs on disks of `count` sizes that fill up, each of which then gets room and goes on."""
    # A run and its model fit into a little less.
    largest = 500_000
    sizes = [int(4096 + largest * n / max(1, count - 1)) for n in range(count)]
    note = f"a run on a file system of 4 kB to {largest / 1e3:.0f} kB, which gets room when it is full"
    with measured("full disk", note) as outcome:
        done = subprocess.run(
            ["unshare", "-Urm", sys.executable, "-c", FULL_DISKS.format(sizes=sizes, root=str(root))],
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            outcome.count(line["right"], str(line["words"]))
        if len(lines) < count:
            outcome.count(False, f"ended early: {done.stderr[-500:]}", count - len(lines))
        full = sum("disk is full" in line["words"] or "Make room" in line["words"] for line in lines)
        outcome.note += f"; {full} of them were full, the others had room"
    return outcome


def fill_disks(sizes: Sequence[int], root: str) -> None:
    """Called in a process that may mount. Prints a line of JSON for each size."""
    from pip_core.checkpoints import export

    patch = pytest.MonkeyPatch()
    # So that a disk fills up while the model is written, too.
    patch.setattr(export, "MARGIN_BYTES", 0)
    patch.setattr("pip_core.engine.stages.verify.verify", tiny.unverified)
    here = Path(root)
    recipe = tiny_recipe(here)
    run_directory.create(here / "whole", recipe)
    list(run_directory.work(here / "whole"))
    expected = result_of(here / "whole")
    for size in sizes:
        place = here / f"disk-{size}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
        words = ""
        try:
            run_directory.create(place / "run", recipe)
            last = list(run_directory.work(place / "run"))[-1]
            words = getattr(last, "message", "it finished")
        except UserError as error:
            words = str(error)
        except Exception as error:
            words = f"a traceback: {error!r}"
        told = words == "it finished" or "disk is full" in words or "Make room" in words
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        try:
            if not (place / "run" / files.EVENTS).exists():
                run_directory.create(place / "other", recipe)
                (place / "other").rename(place / "again")
            folder = next(p for p in (place / "again", place / "run") if (p / files.EVENTS).exists())
            list(run_directory.work(folder))
            found = result_of(folder)
        except Exception as error:
            found = [], f"{error!r}"
        print(
            json.dumps({"right": told and found == expected, "words": f"{size} bytes: {words}; {found[1]}"})
        )
        subprocess.run(["umount", place], check=True)


def damaged_files(root: Path) -> Outcome:
    """Every small file of a run, damaged in every way, beside runs of others."""
    patch = pytest.MonkeyPatch()
    note = f"{len(SMALL)} small files in {len(DAMAGES)} ways; lists, queue, cleaning and all pages go on"
    try:
        with measured("damaged file", note, own_memory) as outcome:
            workers = Workers(patch)
            for number, name in enumerate(SMALL):
                for damage, data in DAMAGES.items():
                    queue = RunQueue(root / f"{number}-{damage.replace(' ', '-')}")
                    bad = ended(queue, workers, STARTED, BLOCK, ev.Stopped(1))
                    path = queue.folder(bad) / name
                    if data is None:
                        if name in WHOLE:
                            path.write_text(WHOLE[name])
                        data = path.read_bytes()[: path.stat().st_size // 2]
                    path.write_bytes(data)
                    try:
                        check_that_others_go_on(queue, workers, bad)
                        outcome.count(True, "")
                    except Exception as error:
                        outcome.count(False, f"{name}, {damage}: {error!r}")
    finally:
        patch.undo()
    return outcome
