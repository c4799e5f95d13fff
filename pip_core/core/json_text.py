"""Reading JSON that somebody else wrote: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value that `text` holds as JSON.

    Raises:
        ValueError: it is not JSON, is nested too deeply to be read, or holds a number that is not finite or
            half a character, which can be written nowhere.
    """
    try:
        found = json.loads(text, parse_float=_finite, parse_constant=_refuse)
        if ("\\u" if isinstance(text, str) else b"\\u") in text:  # type: ignore[operator]
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number")
