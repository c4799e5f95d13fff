"""A job on the Hub prunes: the same engine, in the image of a Space, on hardware that is rented.

`on_hub` makes an engine that works on no model itself. It puts recipe and events into a private repository of
whoever asks, starts a job that goes on from there, passes on what the job says, and fetches the model. `main`
is what the job runs.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..checkpoints.hub import hub_failure
from ..core import events as ev
from ..core.errors import UserError, shortened
from ..core.network import own_login
from ..core.recipe import Recipe
from . import run_directory
from .files import EVENTS, MODEL, RECIPE, write
from .recorded import DECIDED

# Begins the name of the place; the hardware follows.
JOB = "hf-job:"
# Names the Space whose image a job runs in.
SPACE = "PIP_STUDIO_JOB_SPACE"
# Begins a line of a job that holds an event; its number among those of the job follows, then the event.
MARK = "pip-studio-event"
# Says which job works on a run; in the folder of what stages continue from.
NOTE = "job.json"
# A job is ended after so many hours, where the page's limit is no smaller. It costs while it runs.
MOST_HOURS = 12.0
LOOK_SECONDS = 0.5
# The repository gets the events after a decision, at most so often; a progress is said at most once a second.
KEEP_SECONDS, SAY_SECONDS = 60.0, 1.0


def hardware_of(place: str) -> str:
    """The hardware that a place names (`hf-job:a10g-small`).

    Raises:
        UserError: it names no place.
    """
    if not re.fullmatch(JOB + r"[a-z0-9-]+", place):
        raise UserError(f"A run is worked on elsewhere by '--on {JOB}HARDWARE', such as '{JOB}a10g-small'.")
    return place.removeprefix(JOB)


def on_hub(hardware: str, token: str = "") -> run_directory.Engine:
    """An engine as `engine.run.run` whose work a job does.

    Args:
        token: of whoever pays; where it is empty, that of this machine's login.
    """

    def engine(
        recipe: Recipe,
        out: Path | None,
        history: Sequence[ev.Event],
        stop: Callable[[], bool],
        prune_on: bool,
        scratch: Path,
    ) -> Generator[ev.Event, None, None]:
        try:
            given = token or huggingface_hub.get_token()
            if not given:
                raise UserError(f"A job is paid by an account on the Hub: {own_login()}, then try again.")
            _refuse_files(recipe)
            job = _begin(HfApi(token=given), hardware, recipe, history, prune_on, scratch)
            yield from _follow(job, out, history, stop, scratch)
        except Exception as error:
            told = _told(error)
            if told is None:
                raise
            yield ev.Failed(f"{told} What was removed is kept: resume the run to go on.")

    return engine


@dataclass(frozen=True)
class Job:
    """A job, and the repository that it works in; `before` events were there when it began."""

    api: HfApi
    id: str
    owner: str
    repo: str
    before: int


def _begin(
    api: HfApi, hardware: str, recipe: Recipe, history: Sequence[ev.Event], prune_on: bool, scratch: Path
) -> Job:
    """The job that works on a run: the one that was begun before, where it is not over, or a new one."""
    note = scratch / NOTE
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    owner = api.whoami()["name"]
    mine = known.get("owner") == owner
    followed = mine and known.get("id") and known["before"] <= len(history)
    if followed and _goes_on(api, known["id"], owner):
        return Job(api, known["id"], owner, known["repo"], known["before"])
    repo = known["repo"] if mine else f"{owner}/pip-studio-run-{secrets.token_hex(4)}"
    api.create_repo(repo, private=True, exist_ok=True)
    lines = "".join(ev.to_line(event, time.time()) + "\n" for event in history)
    for name, text in ((RECIPE, recipe.to_json()), (EVENTS, lines)):
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo)
    space = os.environ.get(SPACE, "").strip() or os.environ.get("SPACE_ID", "") or f"{owner}/pip-studio"
    hours = run_directory.hours_of(scratch.parent) or MOST_HOURS
    job = api.run_job(
        image=f"hf.co/spaces/{space}",
        command=["python", "-m", __name__, repo, "resume" if prune_on else "export"],
        secrets={"HF_TOKEN": api.token},
        flavor=hardware,
        timeout=int(min(hours, MOST_HOURS) * 3600),
        namespace=owner,
    )
    scratch.mkdir(exist_ok=True)
    write(note, json.dumps({"id": job.id, "owner": owner, "repo": repo, "before": len(history)}))
    return Job(api, job.id, owner, repo, len(history))


def _goes_on(api: HfApi, job: str, owner: str) -> bool:
    """Whether a job can still be followed to the end of the run; one that the Hub has forgotten cannot."""
    try:
        found = api.inspect_job(job_id=job, namespace=owner)
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            return False
        raise
    return _stage(found.status) in ("RUNNING", "SCHEDULING", "COMPLETED")


def _follow(
    job: Job, out: Path | None, history: Sequence[ev.Event], stop: Callable[[], bool], scratch: Path
) -> Generator[ev.Event, None, None]:
    """What the job says, but for what is known; the model is fetched before the end is said."""
    decided, said, known = len(ev.removals(history)), 0, list(history[job.before :])
    yield ev.Loading(f"waiting for the job {job.id} on the Hub")
    for line in _lines(job):
        if stop():
            job.api.cancel_job(job_id=job.id, namespace=job.owner)
            _forget(job, scratch)
            yield ev.Stopped(decided)
            return
        if not line.startswith(MARK):
            continue
        _, number, text = line.split(" ", 2)
        if int(number) != said:
            raise UserError("A part of what the job said did not arrive.")
        said += 1
        event = ev.from_line(text)[0]
        if event in known:  # in their order, with what was noted here between
            known = known[known.index(event) + 1 :]
            continue
        decided += isinstance(event, ev.Removed)
        if isinstance(event, ev.Finished) and out is not None:
            yield ev.Loading("fetching the pruned model")
            job.api.snapshot_download(job.repo, allow_patterns=f"{MODEL}/*", local_dir=out.parent)
        if isinstance(event, ev.Finished | ev.Failed | ev.Stopped):
            _forget(job, scratch)
            yield event
            return
        yield event
    _forget(job, scratch)
    status = job.api.inspect_job(job_id=job.id, namespace=job.owner).status
    reason = f": {shortened(status.message)}" if status.message else ""
    raise UserError(f"The job ended before the run did ({_stage(status)}{reason}).")


def _stage(status: huggingface_hub.JobStatus) -> str:
    """The stage of a job in a word; the client knows some, and passes on others."""
    return str(getattr(status.stage, "value", status.stage))


def _forget(job: Job, scratch: Path) -> None:
    """A job that is over is not followed again; its repository serves the next."""
    write(scratch / NOTE, json.dumps({"owner": job.owner, "repo": job.repo}))


def _lines(job: Job) -> Iterable[str]:
    """The lines that the job prints, as they come; an empty one where none comes for a while."""
    arrived: queue.Queue[str | BaseException | None] = queue.Queue()

    def listen() -> None:
        try:
            for line in job.api.fetch_job_logs(job_id=job.id, namespace=job.owner, follow=True):
                arrived.put(line.strip())
            arrived.put(None)
        except Exception as error:
            arrived.put(error)

    threading.Thread(target=listen, name="job", daemon=True).start()
    while True:
        try:
            line = arrived.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            line = ""
        if isinstance(line, BaseException):
            raise line
        if line is None:
            return
        yield line


def _told(error: Exception) -> UserError | None:
    """What went wrong, in a sentence; None where it is a fault of this program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, HfHubHTTPError):
        match error.response.status_code:
            case 401:
                return UserError(
                    f"The Hub does not know your token (401): it has expired or was revoked. To go on, "
                    f"{own_login()}."
                )
            case 402:
                return UserError("A job costs, and your account on the Hub has no credit left (402).")
            case 403:
                return UserError(
                    "Your token may not start jobs and make repositories (403): use one that may."
                )
            case 404:
                return UserError(
                    f"The Hub has no such job, or no Space for it (404). {SPACE} names a Space of PIP Studio."
                )
    return hub_failure("the job", error)


def _refuse_files(recipe: Recipe) -> None:
    """Refuse a recipe that names files of this machine, which a job cannot read."""
    named = [str(v) for v in (recipe.model, recipe.calibration, recipe.heldout, *recipe.tasks)]
    for name in named:
        if Path(name.partition("=")[2] or name).expanduser().exists():
            raise UserError(f"A job cannot read '{name}' on this machine. Name what is on the Hub instead.")


def work_in_job(repo: str, command: str, say: Callable[[str], object]) -> None:
    """Work on the run in a repository, and say every event in a line."""
    api = HfApi()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        api.snapshot_download(repo, allow_patterns=[RECIPE, EVENTS], local_dir=folder)
        number = 0
        kept = spoken = -KEEP_SECONDS
        for event in run_directory.work(folder, command == "resume"):
            now = time.monotonic()
            if isinstance(event, ev.Finished):
                api.upload_folder(repo_id=repo, folder_path=folder / MODEL, path_in_repo=MODEL)
            ending = isinstance(event, ev.Finished | ev.Failed | ev.Stopped)
            if ending or (isinstance(event, DECIDED) and now - kept > KEEP_SECONDS):
                kept = now
                api.upload_file(path_or_fileobj=folder / EVENTS, path_in_repo=EVENTS, repo_id=repo)
            if isinstance(event, ev.Progress) and now - spoken < SAY_SECONDS:
                continue
            spoken = now
            say(f"{MARK} {number} {ev.to_line(event, time.time())}")
            number += 1


def main() -> None:
    """What a job runs: its arguments are the repository, and `resume` or `export`."""
    work_in_job(sys.argv[1], sys.argv[2], lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
