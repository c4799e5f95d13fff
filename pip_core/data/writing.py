"""How a text is written: where its words are, and which letters of them an edit may change.

A text in the basic Latin alphabet is divided at white space, and runs of three letters from a to z are
edited. For every other text a letter is a base character with the combining marks that follow it, so that
an edit never parts the two. Scripts without spaces (Chinese, Japanese, Thai, ...) are divided into pieces of
at most three letters, which stand for the words that only a dictionary could find.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex

# Letters of one script that an edit may put in, the commonest first.
COMMONEST = 40
# A text is Latin where so much of its letters are a to z, and no more than this of another script.
BASIC, FOREIGN = 0.8, 0.05
_LETTER = r"\p{L}[\p{M}\u200c\u200d]*"
_UNSPACED = "".join(
    rf"\p{{scx={script}}}"
    for script in (
        "Han",
        "Hiragana",
        "Katakana",
        "Bopomofo",
        "Thai",
        "Lao",
        "Khmer",
        "Myanmar",
        "Tibetan",
        "Yi",
    )
)
# Their letters are syllables or carry them, so a word of two can be edited.
_SYLLABIC = _UNSPACED + "".join(
    rf"\p{{scx={script}}}"
    for script in (
        *("Hangul", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada"),
        *("Malayalam", "Sinhala", "Ethiopic", "Cherokee"),
    )
)
_UNSPACED_LETTER = rf"(?=[{_UNSPACED}]){_LETTER}"
_MARKS = r"[^\s\p{L}\p{M}\p{N}]*"


@dataclass(frozen=True)
class Writing:
    """How one text is written.

    Attributes:
        word: finds its words; every character but white space is in one.
        editable: finds the letters in a word that can be edited.
        letters: script (the first word of its characters' Unicode names) -> its commonest letters in the
            text, which edits put in; empty for a Latin text, whose edits put in a to z.
        words: the words of the text in small letters, which edits prefer; empty for a Latin text, whose
            edits prefer those of the tokenizer.
    """

    word: Any
    editable: Any
    letters: Mapping[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each word of `text` begins and ends, in characters."""
        return [found.span() for found in self.word.finditer(text)]


LATIN = Writing(regex.compile(r"\S+"), regex.compile("[A-Za-z]{3,}"))
_WORD = regex.compile(rf"(?:{_UNSPACED_LETTER}){{1,3}}{_MARKS}|(?:(?!{_UNSPACED_LETTER})\S)+")
_EDITABLE = regex.compile(rf"(?:{_LETTER}){{3,}}|(?:(?=[{_SYLLABIC}]){_LETTER}){{2,}}")
_LETTERS = regex.compile(_LETTER)
_UNUSUAL, _WORDS = regex.compile(rf"[\p{{M}}{_UNSPACED}]"), re.compile(r"\w+")
_COMPARED = regex.compile(rf"{_UNSPACED_LETTER}|(?:(?!{_UNSPACED_LETTER})[\p{{L}}\p{{M}}\p{{N}}_])+")


def writing_of(documents: Iterable[str]) -> Writing:
    """How a text of several documents is written."""
    texts = list(documents)
    if all(text.isascii() for text in texts):
        return LATIN
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    letters = {character: count for character, count in counts.items() if character.isalpha()}
    total = sum(letters.values())
    basic = sum(count for character, count in letters.items() if character.isascii())
    foreign = sum(count for character, count in letters.items() if script_of(character) != "LATIN")
    if basic >= BASIC * total and foreign <= FOREIGN * total:
        return LATIN
    words = (found.lower() for text in texts for found in _EDITABLE.findall(text))
    return Writing(_WORD, _EDITABLE, _commonest(letters), frozenset(words))


def letters_of(word: str) -> list[str]:
    """The letters of a word, each with its combining marks."""
    return _LETTERS.findall(word)


def compared_words(text: str) -> list[str]:
    """The words of a text as two texts are compared: without punctuation, and of a script without spaces
    every letter by itself."""
    # Most texts hold neither scripts without spaces nor marks, and Python's own words are found faster.
    return _COMPARED.findall(text) if _UNUSUAL.search(text) else _WORDS.findall(text)


def script_of(character: str) -> str:
    """The script of a letter, as its Unicode name begins: "LATIN", "CYRILLIC", "CJK", ..."""
    return unicodedata.name(character, "").partition(" ")[0]


def _commonest(counts: Mapping[str, int]) -> dict[str, str]:
    """For each script its commonest letters, in small letters."""
    small: Counter[str] = Counter()
    for character, count in counts.items():
        lower = character.lower()
        small[lower if len(lower) == 1 else character] += count
    found: dict[str, str] = {}
    for character in sorted(small, key=lambda c: (-small[c], c)):
        script = script_of(character)
        if len(found.get(script, "")) < COMMONEST:
            found[script] = found.get(script, "") + character
    return found
