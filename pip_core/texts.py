"""Texts: the shipped ones, and the user's own file, read with care.

Shipped calibration domains and the held-back text lie in `assets/text`, one file each, documents
separated by two blank lines. Calibration never draws from the held-back text.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
DOMAINS = ("encyclopedic", "dialogue", "instructions", "code")
HELDOUT = "heldout"
DOCUMENT_BREAK = "\n\n\n"


def read_text(path: Path, what: str) -> str:
    """The content of a UTF-8 text file.

    Args:
        what: what the file is for, as it should stand in an error ("calibration text").

    Raises:
        UserError: missing, empty, or not UTF-8 text.
    """
    if not path.is_file():
        raise UserError(f"The {what} '{path}' does not exist or is not a file.")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"The {what} '{path.name}' is not UTF-8 text. Save it as plain text (UTF-8).")
    text = text.replace("\r\n", "\n")
    if not text.strip():
        raise UserError(f"The {what} '{path.name}' is empty.")
    return text


def own_file(name: str) -> Path:
    """The path of a file the user names.

    Raises:
        UserError: on a public Space, where a visitor must not read the machine's files.
    """
    if os.environ.get("SPACE_ID"):
        raise UserError("Files of this machine cannot be read on a Space; choose a shipped text or task.")
    return Path(name)


def calibration_texts(name: str) -> list[list[str]]:
    """Documents to calibrate on, one list per domain ("mixed" is all shipped domains).

    Raises:
        UserError: neither a shipped domain nor a readable text file.
    """
    if name == "mixed":
        return [documents(domain) for domain in DOMAINS]
    return [documents(name)]


def documents(name: str, what: str = "calibration text") -> list[str]:
    """The documents of a shipped text or of a text file.

    Args:
        what: what it is for, as it should stand in an error.

    Raises:
        UserError: neither a shipped text nor a readable text file.
    """
    if name in (*DOMAINS, HELDOUT):
        path = ASSETS / "text" / f"{name}.txt"
    elif Path(name).suffix or "/" in name:
        path = own_file(name)
    else:
        raise UserError(
            f"Unknown text '{name}': choose mixed, {', '.join(DOMAINS)}, or the path of a text file."
        )
    text = read_text(path, what)
    return [d.strip("\n") for d in text.split(DOCUMENT_BREAK) if d.strip()]
