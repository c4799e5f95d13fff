"""Finding a model: by a part of its name on the Hub, or among those that are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from typing import Any

import huggingface_hub
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from ..core.errors import UserError
from ..core.network import HUB_TIMEOUT, hub_token, is_unreachable
from ..core.recipe import DEMO
from . import bundled

MOST = 8
# Characters of a name; more are no name.
LONGEST = 100
# Searches under way at once. One that the Hub does not answer keeps its place for a few seconds.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="search")
_KNOWN: Any = ["downloads", "likes", "gated", "safetensors", "config"]


@dataclass(frozen=True)
class Found:
    """A model that was found.

    Attributes:
        downloads, likes: of the last month, and all; None for a model on this machine.
        parameters: as its weights state them; None where that is not known.
        family: its `model_type`; empty where that is not known.
        gated: whether its licence must be accepted first.
    """

    repo: str
    downloads: int | None = None
    likes: int | None = None
    parameters: int | None = None
    family: str = ""
    gated: bool = False


def find_models(text: str) -> list[Found]:
    """Models on the Hub whose name holds `text`, those that are downloaded most first. No file of any is
    fetched.

    Raises:
        UserError: the Hub does not answer in time, or refuses.
    """
    wanted = text.strip()[:LONGEST]
    asked: Future[list[Found]] = _THREADS.submit(_ask, wanted)
    try:
        return asked.result(HUB_TIMEOUT)
    except NotInTime:
        asked.cancel()
        raise UserError("The Hub does not answer.") from None
    except Exception as error:
        if is_unreachable(error):
            raise UserError("The Hub does not answer.") from None
        if isinstance(error, huggingface_hub.errors.HfHubHTTPError):
            status = error.response.status_code
            raise UserError(f"The Hub refuses the search (HTTP status {status}).") from None
        raise


def _ask(text: str) -> list[Found]:
    # As `HfApi.list_models`, which would ask again and again, for longer than anybody waits.
    answer = get_session().get(
        f"{huggingface_hub.constants.ENDPOINT}/api/models",
        params={
            "search": text,
            "pipeline_tag": "text-generation",
            "filter": "safetensors",
            "sort": "downloads",
            "limit": MOST,
            "expand": _KNOWN,
        },
        headers=build_hf_headers(token=hub_token()),
        timeout=HUB_TIMEOUT,
    )
    hf_raise_for_status(answer)
    listed = [huggingface_hub.ModelInfo(**found) for found in answer.json()]
    return [
        Found(
            info.id,
            info.downloads,
            info.likes,
            info.safetensors.total if info.safetensors else None,
            str((info.config or {}).get("model_type", "")),
            bool(info.gated),
        )
        for info in listed
    ]


def local_models(text: str, recent: Sequence[str] = ()) -> list[Found]:
    """Models on this machine whose name holds `text`: those that are shipped, `recent` ones, and those that
    were fetched from the Hub for all."""
    try:
        cached = [r.repo_id for r in huggingface_hub.scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        cached = []
    names = dict.fromkeys((DEMO, bundled.NAME, *recent, *sorted(cached)))
    return [Found(name) for name in names if text.strip().lower() in name.lower()][:MOST]
