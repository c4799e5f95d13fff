"""ZeroGPU: Spaces whose GPU is lent to calls of the page's process, one by one.

There the package `spaces` forks the page's process for each call, and makes torch say in the page itself that
there is a GPU, which nothing can be computed on. So outside of such a call nothing may be asked of the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Set by Spaces; so the package `spaces` reads it.
VARIABLE = "SPACES_ZERO_GPU"
# Of the GPU that is lent (half an H200): operations a second that a model's matrices reach in bfloat16, and
# seconds that a block takes however few tokens pass through it, in windows of `FEW_TOKENS`. Assumed, not
# measured: there is no GPU before a run is made.
OPERATIONS_PER_SECOND, SECONDS_PER_BLOCK, FEW_TOKENS = 1e14, 6e-4, 128
_lent = False


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "t", "true")


def elsewhere() -> bool:
    """Whether the GPU that computes is not this process's: it is lent to calls alone."""
    return on_zero_gpu() and not _lent


@contextmanager
def lent() -> Iterator[None]:
    """The GPU is lent to this process for the time being."""
    global _lent
    _lent = True
    try:
        yield
    finally:
        _lent = False


def seconds_per_token(parameters: float, blocks: int) -> float:
    """Seconds that a forward pass takes on the GPU that is lent, for a token of a usual window; estimated."""
    return 2 * parameters / OPERATIONS_PER_SECOND + blocks * SECONDS_PER_BLOCK / FEW_TOKENS
