"""The small files of a run: their names, reading them with clear errors, and writing them whole.

A file that others depend on is written beside its place, flushed to the disk and renamed, so that a crash
leaves the old file or the new one. A file that cannot be read makes its run unreadable and no other.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from ..core import paths
from ..core.device import user_message
from ..core.errors import UserError
from ..core.json_text import parse_json
from ..core.recipe import FORMAT, Recipe

# Model references need the first three too.
RECIPE, EVENTS, MODEL = paths.RECIPE, paths.EVENTS, paths.MODEL
LOCK, LOG = "worker.lock", "worker.log"
# Bytes of a small file: a recipe may hold a text that was pasted.
LONGEST = 64 * 2**20
DIGITS = 9
# What the page notes of a run: its name, its owner, when it was made.
ABOUT = "about.json"
# Requests to the worker; `undo` holds the number of the iteration to undo.
STOP, PAUSE, UNDO = "stop", "pause", "undo"
# A run that waits for a worker; a worker that was launched; how often a run went on after a restart.
QUEUED, LAUNCHED, RESTARTED = "queued", "launched", "restarted"
# Folder of what stages continue from; deleted when the run is finished.
SCRATCH = "scratch"
# Folder of what anybody may read of a run on a page that is open to others.
PUBLIC = "public"
# The exported model as llama.cpp reads it, in one of `gguf_export.FORMATS`.
GGUF = "pruned-*.gguf"


class UnreadableRun(UserError):
    """A run that this version cannot read in full, and so never changes.

    Attributes:
        newer: whether a newer version (or one with other plugins) wrote it; otherwise it is damaged.
    """

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


def newer_version(what: str) -> UnreadableRun:
    """The refusal of a run that another version wrote. `what` names what is unknown here."""
    return UnreadableRun(
        f"This run was written by a newer version of PIP Studio, or by one with other plugins: {what}. "
        "It can be viewed but not changed. Upgrade PIP Studio to continue it.",
        newer=True,
    )


def write(path: Path, text: str) -> None:
    """Write a small file whole or not at all, also where the machine fails meanwhile.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = user_message(error) or f"'{path.parent}' cannot be written: {error.strerror}."
        raise UserError(reason) from None


def _flush_folder(folder: Path) -> None:
    """Make a rename last. Some systems cannot flush a folder, and then the rename lasts by itself, later."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableRun: it is not text, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # nobody may ever write to a pipe
            raise damaged(path, "it is not a file")
        if status.st_size > LONGEST:
            raise damaged(path, "it is too long")
        return path.read_text(encoding="utf-8-sig")  # a file may have been through an editor
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise damaged(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None


def read_object(path: Path, **types: type | tuple[type, ...]) -> dict:
    """A JSON object from a small file.

    Args:
        types: fields that must be there, and of which type.

    Raises:
        FileNotFoundError: there is none.
        UnreadableRun: it is something else.
    """
    text = read_text(path)
    try:
        found = parse_json(text)
    except ValueError:
        raise damaged(path, "it is empty" if not text.strip() else "it is not valid JSON") from None
    if not isinstance(found, dict):
        raise damaged(path, "it is not a JSON object")
    for name, kind in types.items():
        if not isinstance(found.get(name), kind) or isinstance(found.get(name), bool):
            raise damaged(path, f"its field '{name}' is missing or of the wrong type")
    return found


def gguf_file(format: str) -> str:
    """The name of the exported model's GGUF file in a format."""
    return GGUF.replace("*", format)


def damaged(path: Path, reason: str) -> UnreadableRun:
    return UnreadableRun(f"The run is damaged: '{path.name}' cannot be read ({reason}).")


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableRun: it is damaged, or of a newer version.
    """
    text = read_text(path)
    try:
        return Recipe.from_json(text)
    except UserError as error:
        if _format(text) > FORMAT:
            raise newer_version(f"its recipe has format {_format(text)}") from None
        raise UnreadableRun(f"The run is damaged: '{path.name}' cannot be used. {error}") from None


def _format(text: str) -> int:
    """The format that a recipe names; 0 where it names none."""
    try:
        found = parse_json(text)
    except ValueError:
        return 0
    number = found.get("format") if isinstance(found, dict) else None
    return number if type(number) is int else 0


def read_about(folder: Path) -> dict:
    """What the page noted of a run: "name", "created", "owner" (a hash), and "signed_in", whether a visitor
    had who began or resumed it where one can; it is not there for what a program began. Empty for a run that
    the command line made.

    Raises:
        UnreadableRun: the note is damaged.
    """
    try:
        found = read_object(folder / ABOUT)
    except FileNotFoundError:
        return {}
    kinds = (("name", str), ("note", str), ("owner", str), ("created", (int, float)), ("signed_in", bool))
    for name, kind in kinds:
        if name in found and not isinstance(found[name], kind):
            raise damaged(folder / ABOUT, f"its field '{name}' is of the wrong type")
    return found


def read_queued(folder: Path) -> dict | None:
    """What a run waits for: "command" and, in seconds since 1970, "at"; None where it does not wait.

    Raises:
        UnreadableRun: the note is damaged.
    """
    try:
        found = read_object(folder / QUEUED, at=(int, float), command=str)
    except FileNotFoundError:
        return None
    if found["command"] not in ("resume", "export"):
        raise damaged(folder / QUEUED, "its command is unknown")
    return found


def read_undo(folder: Path) -> int | None:
    """The iteration that is to be undone; None where none is.

    Raises:
        UnreadableRun: the request is damaged.
    """
    try:
        text = read_text(folder / UNDO).strip()
    except FileNotFoundError:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS and int(text)):
        raise damaged(folder / UNDO, "it holds no number of an iteration")
    return int(text)


def read_launched(folder: Path) -> dict:
    """What was noted of the worker that was launched last: "pid", "began" (of its process, in seconds since
    1970), "said" (bytes of events before it), "command", and "at" (seconds of this machine's monotonic clock,
    which all of its processes share). Empty where nothing was, or the note is damaged, or that worker came to
    its end by itself."""
    try:
        return read_object(folder / LAUNCHED)
    except (FileNotFoundError, UnreadableRun):
        return {}


def drop_damaged_requests(folder: Path) -> None:
    """Delete requests that cannot be read, so that a run is not held up by them."""
    for name, read in ((UNDO, read_undo), (QUEUED, read_queued)):
        try:
            read(folder)
        except UnreadableRun:
            if not (folder / name).is_dir():
                (folder / name).unlink(missing_ok=True)
