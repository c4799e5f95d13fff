"""The runs below one folder: finding them, whose they are, renaming, deleting and cleaning.

Everything is kept on disk, so that it survives a restart and other processes see it. Whoever changes
anything holds the lock of the root folder. Beside what `run_directory` keeps there, a run's folder holds
`about.json` (its name, when it was made, a hash of its owner's token) and, while it waits for a worker,
`queued`. A run that cannot be read is left alone, and no other run is affected by it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.device import user_message
from ..core.errors import UserError
from ..core.limits import GB, limits
from ..core.recipe import Recipe
from ..reporting.run_summary import RunSummary
from . import retention, worker
from .files import ABOUT, EVENTS, RECIPE, UnreadableRun, read_about, read_object, write
from .index import RunIndex, RunInfo, last_change
from .retention import ENDED, StoredRun

LOCK = "studio.lock"
# How many runs began on each day.
USED = "used.json"
ID = re.compile(r"[0-9a-f]{24}")
LONGEST_NAME, LONGEST_NOTE = 80, 300
PATIENCE_SECONDS = 30.0
# Folders that are being made or deleted; a crash may leave them behind.
MAKING, DELETING = ".making-", ".leaving-"
# A run that its owner threw away, which can be brought back for so long; and the note of when that was.
ASIDE, ASIDE_SECONDS, THROWN = ".aside-", 60.0, "thrown-away"
# Folders beside the runs: uploaded texts, and tables of several runs that are offered for download.
UPLOADS, TABLES = "uploads", "tables"
# Uploads that have arrived, and that no handler has taken yet.
ARRIVING = ".arriving"


@dataclass
class RunStore:
    """The runs below `root`.

    Ids cannot be guessed: whoever knows one may see that run. A list shows an owner's own runs only.
    """

    root: Path
    _mutex: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _index: RunIndex = field(default_factory=RunIndex, repr=False)

    def __post_init__(self) -> None:
        with _writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.root / LOCK, thread_local=False)

    def check_writable(self) -> None:
        """Check that runs can be made.

        Raises:
            UserError: the folder cannot be written.
        """
        with _writing(self.root), tempfile.TemporaryFile(dir=self.root):
            pass

    # Finding runs

    def folder(self, run_id: str) -> Path | None:
        """The directory of a run, or None where there is no such run."""
        if not isinstance(run_id, str) or not ID.fullmatch(run_id):
            return None
        folder = self.root / run_id
        return folder if _is_run(folder) else None

    def summary(self, run_id: str) -> tuple[RunSummary, str]:
        """A snapshot of a run, and its state (see `worker.STATES`); "none" where there is no such run. Of a
        run that is damaged or newer the snapshot holds what can be read, and a message as its ending."""
        folder = self.folder(run_id)
        if folder is None:
            return RunSummary(), "none"
        try:
            return self._index.summary(folder)
        except FileNotFoundError:  # just deleted
            return RunSummary(), "none"

    def recipe(self, run_id: str) -> Recipe:
        """The recipe of a run.

        Raises:
            UserError: there is no such run.
            UnreadableRun: it is damaged, or of a newer version.
        """
        return self._index.recipe(self._existing(run_id))

    def listed(self, owner: str) -> list[RunInfo]:
        """The runs of an owner, newest first. Whoever is nobody (an empty text, or no text) has none."""
        return self._infos([f for f in self._folders() if self._owned(f, owner)])

    def everybodys(self) -> list[RunInfo]:
        """All runs, newest first. For who runs this program; no visitor of the page may see it."""
        return self._infos(self._folders())

    def named(self, ids: Iterable[str]) -> list[RunInfo]:
        """Those runs of these ids that there are, newest first."""
        return self._infos([folder for folder in map(self.folder, ids) if folder is not None])

    def _infos(self, folders: Iterable[Path]) -> list[RunInfo]:
        waiting, infos = [f.name for f in self._waiting()], []
        for folder in folders:
            with suppress(FileNotFoundError):  # just deleted
                infos.append(self._index.info(folder, waiting))
        return sorted(infos, key=lambda i: (-i.created, i.id))

    def owns(self, run_id: str, owner: str) -> bool:
        """Whether a run is this owner's."""
        folder = self.folder(run_id)
        return folder is not None and self._owned(folder, owner)

    def may_change(self, run_id: str, owner: str) -> bool:
        """Whether an owner may change a run: it is theirs, or has no owner, as a run of the command line."""
        folder = self.folder(run_id)
        try:
            return bool(folder and (self.owns(run_id, owner) or not self._index.about(folder).get("owner")))
        except UnreadableRun:  # it is not known whose it is
            return False

    def is_changeable(self, run_id: str) -> bool:
        """Whether a run can be read, but for its requests, which `resume` does without."""
        try:
            return bool(self._readable(run_id))
        except UserError:
            return False

    def place(self, run_id: str) -> int | None:
        """A waiting run's place in the queue, 1 being next; None for a run that does not wait."""
        waiting = [f.name for f in self._waiting()]
        return waiting.index(run_id) + 1 if run_id in waiting else None

    def used(self) -> dict[str, int]:
        """How many runs began on each day (UTC) that any did; nothing tells whose they were."""
        try:
            return read_object(self.root / USED)
        except (FileNotFoundError, UnreadableRun):
            return {}

    def count_use(self) -> None:
        """Count a run that begins. Where that cannot be written the run begins all the same."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        with suppress(UserError, OSError), self._locked():
            found = self.used()
            before = found.get(day)
            write(self.root / USED, json.dumps({**found, day: 1 + (before if type(before) is int else 0)}))

    # Changing runs

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name; an empty name restores the one that its recipe gives it."""
        with self._locked():
            folder = self._readable(run_id)
            name = " ".join(name.split())[:LONGEST_NAME]
            write(folder / ABOUT, json.dumps({**read_about(folder), "name": name}))

    def annotate(self, run_id: str, note: str) -> None:
        """Keep a note of the owner's with a run; an empty one is none."""
        with self._locked():
            folder = self._readable(run_id)
            note = " ".join(note.split())[:LONGEST_NOTE]
            write(folder / ABOUT, json.dumps({**read_about(folder), "note": note}))

    def delete(self, run_id: str) -> None:
        """Throw a run away: it is gone from every list, and for ASIDE_SECONDS `restore` brings it back.

        Raises:
            UserError: a worker holds it.
        """
        with self._locked():
            folder = self._existing(run_id)
            if worker.working(folder):
                raise UserError("The run is still running: stop it first, then delete it.")
            write(folder / THROWN, repr(time.time()))
            aside = folder.with_name(f"{ASIDE}{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            self._index.forget(folder)

    def restore(self, run_id: str, owner: str) -> None:
        """Bring back a run that its owner threw away.

        Raises:
            UserError: it is gone for good, or somebody else's.
        """
        with self._locked():
            for aside in self._aside():
                if aside.name == f"{ASIDE}{run_id}" and self._owned(aside, owner):
                    self._index.forget(aside)
                    (aside / THROWN).unlink(missing_ok=True)
                    aside.rename(self.root / run_id)
                    return
        raise UserError("The run is gone: it can be brought back for a minute only.")

    def thrown_away(self, owner: str) -> list[tuple[str, str]]:
        """(id, name) of the runs that an owner threw away and can still bring back."""
        found = []
        for aside in self._aside():
            with suppress(FileNotFoundError):  # brought back, or gone, at this moment
                if self._owned(aside, owner):
                    info = self._index.info(aside, [])
                    found.append((aside.name.removeprefix(ASIDE), info.name))
        return found

    def forget_thrown_away(self) -> None:
        """Really delete what was thrown away too long ago, also by a process that has ended since."""
        with self._locked():
            for aside in self._aside():
                if not 0 <= time.time() - _thrown_at(aside) < ASIDE_SECONDS:
                    self._discard(aside)

    def _aside(self) -> list[Path]:
        return sorted(self.root.glob(f"{ASIDE}*"))

    def clean(self, max_age_seconds: float | None = None, max_bytes: float | None = None) -> list[str]:
        """Delete old finished runs and files that can be made again, see `retention.clean`.

        Without arguments the limits are `Limits.keep_days` and `Limits.keep_gb`.
        """
        set_ = limits()
        if max_age_seconds is None and set_.keep_days is not None:
            max_age_seconds = set_.keep_days * 86400
        if max_bytes is None and set_.keep_gb is not None:
            max_bytes = set_.keep_gb * GB
        with self._locked():
            folders, infos = self._folders(), []
            stored = []
            for folder in folders:
                with suppress(FileNotFoundError):
                    info = self._index.info(folder, [])
                    infos.append(info)
                    stored.append(StoredRun(folder, info.name, info.state, last_change(folder)))
            # As bytes: a recipe that cannot be read may name an upload too.
            recipes = b"".join(_bytes_of(folder / RECIPE) for folder in (*folders, *self._aside()))
            unused = [p for p in self.root.glob(f"{UPLOADS}/*") if p.name.encode() not in recipes]
            leftovers = [
                p for name in (f"{MAKING}*", f"{DELETING}*", ".*.partial") for p in self.root.glob(name)
            ]
            if set_.hub_cache_gb is not None:
                models = {
                    i.recipe.model.partition("@")[0] for i in infos if i.recipe and i.state not in ENDED
                }
                retention.clean_hub_cache(self.root, set_.hub_cache_gb * GB, models)
            spare = [*unused, *self.root.glob(f"{TABLES}/*"), *self.root.glob(f"{ARRIVING}/*")]
            return retention.clean(
                self.root, stored, leftovers, spare, max_age_seconds, max_bytes, self._discard
            )

    def _discard(self, folder: Path) -> None:
        """Remove a run's folder from every list at once, then from the disk."""
        deleting = folder.with_name(f"{DELETING}{folder.name}")
        shutil.rmtree(deleting, ignore_errors=True)
        folder.rename(deleting)
        self._index.forget(folder)
        shutil.rmtree(deleting, ignore_errors=True)

    # What is kept on disk

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the root folder, so that nobody else changes anything below it."""
        with self._mutex:
            try:
                self._lock.acquire(timeout=PATIENCE_SECONDS)
            except Timeout:
                raise UserError("Another process is busy with the runs. Try again in a moment.") from None
            try:
                yield
            finally:
                self._lock.release()

    def _folders(self) -> list[Path]:
        """All runs, also those whose folder the command line named."""
        return [f for f in sorted(self.root.iterdir()) if f.name[0] != "." and _is_run(f)]

    def _waiting(self) -> list[Path]:
        """Runs that wait for a worker, in order: the first of each owner, then the second of each, so that
        nobody waits for all that somebody else asked for. One that cannot be read does not wait."""
        found = []
        for folder in self._folders():
            with suppress(UnreadableRun):
                queued = self._index.queued(folder)
                if queued is not None and self._is_readable(folder):
                    found.append((queued["at"], folder, self._index.about(folder).get("owner", "")))
        before: Counter[str] = Counter()
        turns = []
        for at, folder, owner in sorted(found):
            turns.append((before[owner], at, folder))
            before[owner] += 1
        return [folder for _, _, folder in sorted(turns)]

    def _is_readable(self, folder: Path) -> bool:
        try:
            return self._index.fault(folder) is None
        except FileNotFoundError:  # just deleted
            return False

    def _existing(self, run_id: str) -> Path:
        folder = self.folder(run_id)
        if folder is None:
            raise UserError("There is no such run. It may have been deleted.")
        return folder

    def _readable(self, run_id: str) -> Path:
        """The folder of a run that may be changed: there is one, and it can be read but for its requests."""
        folder = self._existing(run_id)
        try:
            fault = self._index.fault(folder, requests=False)
        except FileNotFoundError:
            raise UserError("There is no such run. It may have been deleted.") from None
        if fault is not None:
            raise fault
        return folder

    def _owned(self, folder: Path, owner: str) -> bool:
        """Whether a run is this owner's. What is no text, or an empty one, owns nothing: a run without an
        owner is not that of whoever has no name."""
        if not isinstance(owner, str) or not owner:
            return False
        try:
            return hmac.compare_digest(
                self._index.about(folder).get("owner", "").encode(), hashed(owner).encode()
            )
        except UnreadableRun:
            return False


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (
            user_message(error) or f"The folder of the runs, '{root}', cannot be written: {error.strerror}."
        )
        raise UserError(f"{reason} PIP_STUDIO_RUNS names another folder.") from None


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a run, be it a damaged one."""
    try:
        return any((folder / name).is_file() for name in (RECIPE, EVENTS))
    except OSError:
        return False


def _thrown_at(aside: Path) -> float:
    """When a run was thrown away, in seconds since 1970; long ago where that cannot be read."""
    try:
        return float((aside / THROWN).read_text("utf-8"))
    except (OSError, ValueError):
        return 0.0


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def hashed(owner: str) -> str:
    """A hash of an owner's token. The token is a secret of the owner's browser and is not stored."""
    return hashlib.sha256(owner.encode(errors="surrogatepass")).hexdigest() if owner else ""
