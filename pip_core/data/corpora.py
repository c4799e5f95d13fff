"""Texts to calibrate and to measure on: shipped, on the Hub, in a file of the user's, or pasted.

The shipped calibration domains and the held-out text are in `assets/text`, one file each, documents
separated by two blank lines. Calibration never draws from the held-out text.

A text's name is one of:
- a shipped text (`SHIPPED`: the domains, and the demo model's stories), or a held-back one;
- a name in `KNOWN`, with or without `@REVISION`;
- `hub:OWNER/NAME[/CONFIG][:SPLIT][@REVISION][#FIELD]`, any dataset on the Hub;
- a path: a UTF-8 text file, or a table (`files.TABLES`) with or without `#FIELD`;
- `text:` and the text itself, so that a recipe holds the text that was pasted.

A calibration text may also be `mixed`, every shipped domain in proportion to its length, or
`mix:NAME=SHARE,NAME=SHARE`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import UserError
from ..core.paths import ASSETS
from ..core.recipe import HELDOUT, MIXED, STORIES, STORIES_HELDOUT
from ..data import hub_datasets
from .conversations import text_of
from .files import LONGEST_TEXT, cell, column_of, iterate, kind_of, own_file, read_text
from .hub_datasets import HubSet

DOMAINS = ("encyclopedic", "dialogue", "instructions", "code", "narrative", "science", "practical")
SHIPPED = (*DOMAINS, STORIES)
KNOWN = {
    "wikitext2": HubSet("Salesforce/wikitext", "wikitext-2-raw-v1", "train", field="text"),
    "wikitext2-test": HubSet("Salesforce/wikitext", "wikitext-2-raw-v1", "test", field="text"),
    "c4": HubSet("allenai/c4", "en", "train", field="text"),
    "c4-validation": HubSet("allenai/c4", "en", "validation", field="text"),
}
# Datasets whose rows are lines of longer documents, and the line that a document begins with.
LINES = {"Salesforce/wikitext": re.compile(r" = (?!= ).+(?<! =) = \s*")}
PASTED, MIX = "text:", "mix:"
# Stands for a pasted text in the recipe beside an exported model, see `private`.
LEFT_OUT = "left-out:"
DOCUMENT_BREAK = "\n\n\n"
# Characters that are read of a dataset on the Hub, from its beginning: about a million tokens.
POOL_CHARACTERS = 4_000_000
LONGEST_PASTED = 1_000_000
BYTES_PER_CHARACTER = 4  # at most, in UTF-8


@dataclass(frozen=True)
class Domain:
    """A text to calibrate on.

    Attributes:
        share: its part of the calibration windows; the shares of all domains sum to 1.
        documents: no two alike.
        duplicates: how many documents were left out because an earlier one is the same.
        starts: for each document, how many characters were read before it.
    """

    name: str
    share: float
    documents: tuple[str, ...]
    duplicates: int
    starts: tuple[int, ...]

    def count(self, characters: int) -> int:
        """How many of the documents are read where reading ends after `characters` characters."""
        return bisect_left(self.starts, characters)


def parts(name: str) -> tuple[tuple[str, float], ...]:
    """The texts a calibration name stands for, each with its share; the shares sum to 1.

    Raises:
        UserError: a mix that is not written `mix:NAME=SHARE,NAME=SHARE`.
    """
    if name == MIXED:
        lengths = {d: (ASSETS / "text" / f"{d}.txt").stat().st_size for d in DOMAINS}
        return tuple((d, length / sum(lengths.values())) for d, length in lengths.items())
    if not name.startswith(MIX):
        return ((name, 1.0),)
    shares: dict[str, float] = {}
    for part in name.removeprefix(MIX).split(","):
        text, _, number = (p.strip() for p in part.rpartition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if (
            not text
            or text in shares
            or text.startswith((PASTED, MIX))
            or text == MIXED
            or not 0 <= share < 1e9
        ):
            raise UserError(
                f"'{part.strip()}' is not a part of a mix: write {MIX}NAME=SHARE,NAME=SHARE with every text "
                "once and shares of 0 or more, for example mix:encyclopedic=0.5,code=0.5."
            )
        shares[text] = share
    total = sum(shares.values())
    if not total:
        raise UserError("A mix needs a share above 0 for at least one of its texts.")
    return tuple((text, share / total) for text, share in shares.items() if share)


def calibration_texts(
    name: str, characters: int = POOL_CHARACTERS, what: str = "calibration text"
) -> list[Domain]:
    """Read the documents to calibrate on, one domain for each text that `name` stands for.

    Args:
        what: the text's purpose, for error messages.
        characters: of each file and each dataset on the Hub, read documents until they hold so many
            characters.

    Raises:
        UserError: no such text, or one that cannot be read.
    """
    domains = []
    for text, share in parts(name):
        found, duplicates, starts = _unique(_documents(text, what, characters, True))
        domains.append(Domain(text, share, tuple(found), duplicates, tuple(starts)))
    return domains


def documents(
    name: str, what: str = "calibration text", characters: int = 0, online: bool = True
) -> list[str]:
    """Read the documents of one text, no two alike.

    Args:
        what: the text's purpose, for error messages.
        characters: read documents until they hold so many characters. 0 reads `LONGEST_TEXT` of a
            file, and `POOL_CHARACTERS` of a dataset on the Hub.
        online: False never asks the Hub and reads the cache alone.

    Raises:
        UserError: no such text, or one that cannot be read.
    """
    return _unique(_documents(name, what, characters, online))[0]


def hub_of(name: str) -> HubSet | None:
    """The dataset on the Hub that a text's name stands for, or None.

    Raises:
        UserError: what follows `hub:` does not name a dataset.
    """
    if name.startswith("hub:"):
        return HubSet.parse(name)
    known, _, revision = name.partition("@")
    return replace(KNOWN[known], revision=revision or None) if known in KNOWN else None


def pinned(name: str) -> str:
    """`name` with the commit of every dataset on the Hub written into it, so that it means the same
    rows on any machine.

    Raises:
        UserError: as `parts`, `hub_of` and `hub_datasets.hub_revision`.
    """
    if name.startswith(MIX):
        return MIX + ",".join(f"{pinned(text)}={share:.12g}" for text, share in parts(name))
    chosen = hub_of(name)
    if chosen is None:
        return name
    sha = hub_datasets.hub_revision(chosen.dataset, chosen.revision)
    return (
        str(replace(chosen, revision=sha)) if name.startswith("hub:") else f"{name.partition('@')[0]}@{sha}"
    )


def title(name: str) -> str:
    """A text's name, short enough to stand in a sentence."""
    if name.startswith(LEFT_OUT):
        return "a text that is left out"
    if name.startswith(PASTED):
        return f"pasted text of {len(name) - len(PASTED):,} characters"
    return name if name.startswith(("hub:", MIX)) or not _is_path(name) else Path(name).name


def refuse_left_out(name: str, what: str) -> None:
    """Refuse what a recipe names that its maker kept for themselves.

    Raises:
        UserError: it is.
    """
    if name.startswith(LEFT_OUT):
        raise UserError(
            f"The {what} was pasted by whoever made this recipe, and is left out of it "
            f"({name.removeprefix(LEFT_OUT)}). Give another one, or the recipe.json of the run itself."
        )


def _documents(name: str, what: str, characters: int, online: bool) -> list[str]:
    refuse_left_out(name, what)
    if name.startswith(PASTED):
        return _split(_pasted(name.removeprefix(PASTED), what))
    if chosen := hub_of(name):
        return _from_hub(chosen, characters or POOL_CHARACTERS, online)
    if name in (*SHIPPED, HELDOUT, STORIES_HELDOUT):
        return _split(read_text(ASSETS / "text" / f"{name}.txt", what))
    if not _is_path(name):
        raise UserError(
            f"Unknown text '{name}': choose {MIXED}, {', '.join(SHIPPED)}, {', '.join(KNOWN)}, a dataset on "
            f"the Hub ({hub_datasets.FORM}), or the path of a file."
        )
    path, field = own_file(name), None
    if "#" in name and not path.exists():
        shorter, _, field = name.rpartition("#")
        path = own_file(shorter)
    most = characters or LONGEST_TEXT
    if not kind_of(path):
        longest = min(LONGEST_TEXT, BYTES_PER_CHARACTER * most)
        return _upto(_split(read_text(path, what, longest)), most)
    table = iterate(path, what, lambda names: columns_for(names, field))
    return _upto(_column(table, field, f"The {what} '{path.name}'"), most)


def _is_path(name: str) -> bool:
    return bool(Path(name).suffix) or "/" in name or "\\" in name


def _split(text: str) -> list[str]:
    return [d.strip("\n") for d in text.split(DOCUMENT_BREAK) if d.strip()]


def _pasted(text: str, what: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"The pasted {what} holds half a character (an unpaired surrogate).") from None
    if not text.strip():
        raise UserError(f"The pasted {what} is empty.")
    if "\0" in text:
        raise UserError(f"The pasted {what} holds a NUL character, so it is no plain text.")
    if len(text) > LONGEST_PASTED:
        raise UserError(
            f"The pasted {what} has {len(text):,} characters; above {LONGEST_PASTED:,} give it as a file."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_hub(chosen: HubSet, characters: int, online: bool) -> list[str]:
    where, field = f"The dataset '{chosen.dataset}'", chosen.field

    def length(row: dict) -> int:
        nonlocal field
        field = column_of(row, field, row, where)
        return len(_text(cell(row, field), field, where))

    rows = hub_datasets.read_hub(chosen, characters, length, online)
    found = (_text(cell(row, field or ""), field, where) for row in rows)
    begins = LINES.get(chosen.dataset)
    if begins is None:
        return [text.strip("\n") for text in found if text.strip()]
    joined: list[list[str]] = []
    for line in found:
        if not joined or (begins.fullmatch(line) and any(before.strip() for before in joined[-1])):
            joined.append([])
        joined[-1].append(line)
    # Joined as is usual for this dataset, so that perplexities can be compared with published ones.
    return [text for text in map("\n\n".join, joined) if text.strip()]


def columns_for(names: list[str], wanted: str | None) -> list[str]:
    """Those columns of a table that `files.column_of` finds a text in, as far as their names tell."""
    wanted = wanted or "text"
    return next(([name] for name in (wanted, wanted.partition(".")[0]) if name in names), names)


def _column(table: Iterable[dict], wanted: str | None, where: str) -> Iterable[str]:
    """The texts of a table's column, row by row."""
    field, texts = None, 0
    for row in table:
        field = column_of(row, field or wanted, row, where)
        if (text := _text(cell(row, field), field, where)).strip():
            texts += 1
            yield text.replace("\r\n", "\n").strip("\n")
    if not texts:
        raise UserError(f"{where} is empty.")


def _text(value: object, field: str | None, where: str) -> str:
    """The text of a cell that holds a text, a list of texts, or the messages of a conversation."""
    text = text_of(value)
    if text is None:
        raise UserError(f"{where} holds no text in its column '{field}', but {type(value).__name__} values.")
    return text


def _upto(texts: Iterable[str], characters: int) -> list[str]:
    """The first of `texts` that hold `characters` characters."""
    found, sum_ = [], 0
    for text in texts:
        found.append(text)
        sum_ += len(text)
        if sum_ >= characters:
            break
    return found


def _unique(texts: Iterable[str]) -> tuple[list[str], int, list[int]]:
    """`texts` without repetitions, how many these were, and the characters before each that is left."""
    seen: dict[str, str] = {}
    starts: list[int] = []
    count = characters = 0
    for text in texts:
        if (key := text.strip()) not in seen:
            seen[key] = text
            starts.append(characters)
        count += 1
        characters += len(text)
    return list(seen.values()), count - len(seen), starts


def pasted_settings(recipe: Mapping[str, object]) -> list[str]:
    """The settings of a recipe that hold text of somebody's own, word for word, by name."""
    return [name for name, value in recipe.items() if _is_pasted(value)]


def _is_pasted(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_pasted, value))
    if not isinstance(value, str):
        return False
    return value.startswith(PASTED) or (value.startswith(MIX) and PASTED in value)
