"""How much of the machine the page may take: every limit, its variable, and what it is when none is set.

A limit is set by an environment variable, `PIP_STUDIO_` and the limit's name in capitals. Where none is set,
it suits one person at their own machine, or, where Hugging Face Spaces run the page (they set `SPACE_ID`), a
page that is open to strangers.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError

PREFIX = "PIP_STUDIO_"
LOCAL_FILES = "PIP_STUDIO_LOCAL_FILES"
GB, MB = 1e9, 1e6
WHOLE, ABOVE_ZERO = "a whole number, 1 or more", "a number above 0"
# Those that are larger for a visitor who signed in, see `Limits.signed_in_times`.
LARGER = ("runs_per_owner", "run_hours", "run_gb")


def on_space() -> bool:
    """Whether this is a public Space, where visitors must not read the machine's files nor use its keys."""
    return bool(os.environ.get("SPACE_ID"))


def can_sign_in() -> bool:
    """Whether visitors can sign in with their account on the Hub: on a Space whose README says `hf_oauth`."""
    return on_space() and bool(os.environ.get("OAUTH_CLIENT_ID"))


def local_files() -> bool:
    """Whether files and folders of this machine may be named. Not on a Space, nor on a page that others can
    reach, unless PIP_STUDIO_LOCAL_FILES says `yes`."""
    said = os.environ.get(LOCAL_FILES, "").strip().lower()
    return not on_space() if said not in ("yes", "no") else said == "yes"


def _limit(here: float | None, space: float | None, doc: str, unset: str = "no limit") -> Any:
    """A limit's field.

    Args:
        here, space: what it is on a machine of one's own, and on a Space; None where there is none.
        unset: what None stands for, in words.
    """
    return Field(
        None, description=doc, json_schema_extra={"here": here, "space": space, "unset": unset}, gt=0
    )


class Limits(BaseModel):
    """The limits of the page and of what it starts; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    workers: int = _limit(1, 1, "runs at a time; each needs the memory of a run")
    runs_per_owner: int = _limit(50, 4, "runs of one browser that may wait or run at once")
    runs_waiting: int = _limit(200, 20, "runs that may wait or run at once, of all together")
    run_hours: float | None = _limit(
        None,
        3,
        "a run that would take longer is refused, and one that takes longer is stopped; it can be resumed",
    )
    run_gb: float | None = _limit(
        None, None, "a run that needs more memory is refused", "all that this machine or its container has"
    )
    signed_in_times: int = _limit(
        1,
        2,
        "a visitor who signed in has so many times the runs of one browser, and the hours and GB of a run",
    )
    zero_gpu_seconds: int = _limit(
        60,
        60,
        "seconds of its GPU that a run asks ZeroGPU for at a time; it asks again as often as it needs",
    )
    model_workers: int = _limit(
        1,
        1,
        "processes that hold two models for chat, predictions and latency; each needs the memory of both",
    )
    model_seconds: float = _limit(300, 120, "time limit of one of their answers")
    model_gb: float | None = _limit(
        None, None, "memory that such a process may hold", "80 % of what is free when it starts"
    )
    model_idle_seconds: float = _limit(300, 300, "such a process ends after so long without a question")
    look_seconds: float = _limit(60, 20, "time limit for looking at a model or text before a run")
    look_gb: float = _limit(4, 2, "memory that the process may hold that looks at models and texts")
    followers: int = _limit(64, 32, "programs that may follow runs at once")
    sessions: int = _limit(1000, 200, "open pages whose state is remembered; the oldest are forgotten first")
    upload_mb: float = _limit(1000, 20, "largest file that may be uploaded")
    uploads_gb: float = _limit(20, 2, "uploaded files that are kept, of all together; more are refused")
    keep_days: float | None = _limit(
        None, 7, "runs that ended longer ago are deleted; never one that runs, waits or is paused"
    )
    keep_gb: float | None = _limit(None, 20, "the oldest finished runs are deleted until the rest fits")
    hub_cache_gb: float | None = _limit(
        None, 20, "models fetched from the Hub are deleted, least used first, until the rest fits"
    )
    pushes: int = _limit(2, 1, "models that may be pushed to the Hub at once; each needs the memory of one")
    verify_seconds: float = _limit(1800, 900, "time limit of the verification of an export")


def variable(name: str) -> str:
    """The environment variable of a limit."""
    return PREFIX + name.upper()


def setting(name: str) -> str:
    """A limit's variable in brackets, for whoever has reached it; nothing on a Space, whose visitors cannot
    set it."""
    return "" if on_space() else f" ({variable(name)})"


def limits(signed_in: bool = False) -> Limits:
    """The limits as the environment sets them now.

    Args:
        signed_in: whether they are those of a visitor who signed in.

    Raises:
        UserError: a variable holds no number above 0 (no whole one where things are counted).
    """
    values: dict[str, object] = {}
    for name, field in Limits.model_fields.items():
        text = os.environ.get(variable(name), "").strip()
        values[name] = text or _usual(field, on_space())
    try:
        found = Limits(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise UserError(f"{variable(name)} must be {_takes(name)}, not '{values[name]}'.") from None
    if not signed_in:
        return found
    set_ = {name: getattr(found, name) for name in LARGER}
    larger = {name: value * found.signed_in_times for name, value in set_.items() if value is not None}
    return found.model_copy(update=larger)


def rows() -> list[tuple[str, str, str, str]]:
    """(variable, meaning, usual value, usual value on a Space) of every limit, for the documentation."""
    return [
        (variable(name), field.description or "", _words(field, False), _words(field, True))
        for name, field in Limits.model_fields.items()
    ]


def _usual(field: Any, space: bool) -> float | None:
    return field.json_schema_extra["space" if space else "here"]


def _words(field: Any, space: bool) -> str:
    value = _usual(field, space)
    return field.json_schema_extra["unset"] if value is None else f"{value:g}"


def _takes(name: str) -> str:
    return WHOLE if Limits.model_fields[name].annotation is int else ABOVE_ZERO
