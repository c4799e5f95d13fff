"""Messages as whoever reaches the page may read them."""

from __future__ import annotations

import re

from .limits import local_files

# A path from the root with two parts or more; what stands behind "//" is an address.
_PATH = re.compile(r"(?<![\w./:~-])(?:/[^\s/'\"<>:,;()]+)+/(?P<last>[^\s/'\"<>:,;()]*)")


def public(text: str) -> str:
    """`text` without the folders of this machine, where its files are not for who reads it."""
    return text if local_files() else _PATH.sub(r"…/\g<last>", text)
