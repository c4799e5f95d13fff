"""What a recipe says of its maker: texts that they pasted, and where files are on their machine.

The recipe beside an exported model goes wherever the model goes, so these are left out of it; the run's own
recipe keeps them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath

from .corpora import LEFT_OUT, MIX, PASTED

# A pasted text, or a path from the root or a home folder, by itself or after NAME= or NAME+.
_PRIVATE = re.compile(
    rf"(?P<before>(?:[\w.-]+[=+])?)(?:{PASTED}(?P<text>.*)|(?P<path>(?:[/~]|[A-Za-z]:[\\/]).*))", re.DOTALL
)


def shareable(settings: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """A recipe's settings without what is private, and the names of those that hold less than they did.

    Of a pasted text its length and SHA-256 stay, of a path the name of the file or folder.
    """
    found = {name: _shared(value) for name, value in settings.items()}
    return found, [name for name, value in settings.items() if found[name] != value]


def _shared(value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value)(map(_shared, value))
    if not isinstance(value, str):
        return value
    if value.startswith(MIX):
        return MIX + ",".join(map(str, map(_shared, value.removeprefix(MIX).split(","))))
    found = _PRIVATE.fullmatch(value)
    if found is None:
        return value
    if found["path"]:
        return f"{found['before']}./{PureWindowsPath(found['path']).name}"
    digest = hashlib.sha256(found["text"].encode(errors="surrogatepass")).hexdigest()
    return f"{found['before']}{LEFT_OUT}{len(found['text'])} characters, sha256 {digest}"
