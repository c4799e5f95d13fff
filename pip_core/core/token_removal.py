"""Tokens that a run took out of the vocabulary, as its record keeps them.

Whoever shows a run finds them without knowing the stage that removed them.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable

from .errors import UserError
from .events import Event, StageResult, value


@value
class TokensRemoved(StageResult):
    """`tokens` of the dense model's `rows` were removed."""

    tokens: int
    rows: int

    def removed(self) -> list[int]:
        """Ids of the removed rows, ascending; empty where the record does not hold them.

        Raises:
            UserError: the record is damaged.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which tokens were removed")


def removal_in(events: Iterable[Event]) -> TokensRemoved:
    """The last of the events that removed tokens.

    Raises:
        UserError: none did.
    """
    found = [event for event in events if isinstance(event, TokensRemoved)]
    if not found:
        raise UserError("This run has removed no token.")
    return found[-1]


def packed(ids: Iterable[int], rows: int) -> str:
    """Some of the ids from 0 to `rows`, as a short text: a bit for each id, compressed, in base 64."""
    bits = bytearray((rows + 7) // 8)
    for i in ids:
        bits[i // 8] |= 1 << i % 8
    return base64.b64encode(zlib.compress(bytes(bits), 9)).decode("ascii")


def unpacked(text: str, rows: int) -> list[int]:
    """What `packed` packed, ascending.

    Raises:
        UserError: it is something else.
    """
    size = (rows + 7) // 8
    try:
        opened = zlib.decompressobj()
        # No more than is expected, whatever the text may expand to.
        bits = opened.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError):
        bits = b""
    if len(bits) != size:
        raise UserError("This run's list of removed tokens is damaged.")
    return [8 * n + k for n, byte in enumerate(bits) if byte for k in range(8) if byte >> k & 1]
