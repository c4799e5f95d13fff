"""What a calibration text holds, and a sample of its perturbed view, shown before any model is here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..core.errors import UserError
from ..core.recipe import Recipe
from .calibration import CalibrationText
from .corpora import DOMAINS, SHIPPED, documents, hub_of, parts, title
from .hub_datasets import is_cached
from .perturbation import Edit, Perturber
from .windows import check_holds
from .writing import LATIN, writing_of

# Of a file or dataset so many characters are read for a preview.
PREVIEW_CHARACTERS = 100_000


class Preview(NamedTuple):
    """A passage of a text and the edits of its perturbed view.

    Attributes:
        edits: as in `perturbation.Pair`.
        words: where each word begins and ends in the text.
        note: how the preview differs from what a run will do; empty where it does not.
        lack: why a run will refuse the text; empty where that is not known to be so.
    """

    text: str
    edits: tuple[Edit, ...]
    words: tuple[tuple[int, int], ...]
    note: str
    lack: str = ""


def beginnings(text: CalibrationText, characters: int = 120) -> Iterator[str]:
    """How each text begins that is not shipped, in a sentence, so that one sees before a run what was made of
    a file."""
    for domain in text.domains:
        if domain.name not in SHIPPED:
            first = " ".join(domain.documents[0].split())
            shown = first[:characters] + ("..." if len(first) > characters else "")
            yield f"The calibration text '{title(domain.name)}' begins: {shown}"


def preview(recipe: Recipe, characters: int = 240) -> Preview:
    """The first words of a calibration text, and the edits that a perturbed view makes to them.

    Needs no model, since the words of the shipped texts stand in for the tokenizer's vocabulary, and
    no network: in the place of a dataset on the Hub that is not in the cache yet a shipped text is
    shown, and `note` says so.

    Raises:
        UserError: unreadable calibration text.
    """
    rng = random.Random(f"{recipe.seed}/preview")
    names = [name for name, _ in parts(recipe.calibration)]
    name, note = rng.choice(names), ""
    chosen = hub_of(name)
    if chosen is not None and not is_cached(chosen):
        note = f"{title(name)} is fetched when the run begins; until then a shipped text shows the views."
        name = rng.choice(DOMAINS)
    found = documents(name, characters=PREVIEW_CHARACTERS, online=False)
    lack = ""
    if len(names) == 1 and not note and sum(map(len, found)) < PREVIEW_CHARACTERS:
        try:
            check_holds(found, title(name), recipe.windows, recipe.window_tokens)
        except UserError as error:
            lack = str(error)
    text = " ".join(rng.choice(found).split())
    if len(text) > characters:
        end = text.rfind(" ", 0, characters)
        # Text without spaces may have one early, and then none.
        text = text[: end if end > characters // 2 else characters]
    writing = writing_of(found)
    perturber = Perturber(_shipped_words(), recipe.kinds, writing)
    edits = perturber.perturb(text, recipe.rate, rng)[1]
    return Preview(text, edits, tuple(writing.spans(text)), note, lack)


@lru_cache(maxsize=1)
def _shipped_words() -> frozenset[str]:
    """Words of small letters in the shipped texts."""
    found = (word for domain in DOMAINS for d in documents(domain) for word in LATIN.editable.findall(d))
    return frozenset(word for word in found if word.islower())
