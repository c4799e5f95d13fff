"""Targets that are no share of the parameters: bytes that the weights may take, and a speed-up."""

from __future__ import annotations

import re

from ..core.figures import stated_percent
from ..core.recipe import Recipe

READING, WRITING = "prefill", "decode"
# What people read.
DOES = {READING: "reads", WRITING: "writes"}
DOING = {READING: "reading", WRITING: "writing"}
_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
MOST_TIMES = 20.0


def bytes_of(text: str) -> float:
    """A size as people write it, such as "200MB" or "1.5 GiB", in bytes.

    Raises:
        ValueError: it is no size above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _SIZES or not float(found[1]):
        raise ValueError(f"Weights at most: enter a size above 0, such as 200MB or 1.5GB, not '{text}'.")
    return float(found[1]) * _SIZES[found[2]]


def speedup_of(text: str) -> tuple[str, float]:
    """What is to be faster, and how many times as fast, of a text such as "decode:1.3".

    Raises:
        ValueError: it is no such text, or asks for nothing faster.
    """
    what, _, times = text.strip().partition(":")
    found = re.fullmatch(r"\d+(?:\.\d+)?", times.strip().lower().removesuffix("x"))
    if what not in DOES or found is None or not 1 < float(found[0]) <= MOST_TIMES:
        raise ValueError(
            f"Speed-up: enter {WRITING}:TIMES for writing an answer or {READING}:TIMES for reading a prompt, "
            f"above 1 and at most {MOST_TIMES:g}, such as {WRITING}:1.3, not '{text}'."
        )
    return what, float(found[0])


def stated_target(recipe: Recipe) -> str:
    """What a recipe asks for, in a few words: "20 %", "at most 200MB", "1.3x faster writing"."""
    if recipe.target_bytes:
        return f"at most {recipe.target_bytes.strip()}"
    if recipe.target_speedup:
        what, times = speedup_of(recipe.target_speedup)
        return f"{times:g}x faster {DOING[what]}"
    return stated_percent(recipe.target)


def time_saved(times: float) -> float:
    """The share of the time that goes where something is `times` as fast."""
    return 1 - 1 / times
