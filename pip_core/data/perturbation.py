"""Two views of a text: the text itself, and a perturbed copy.

The perturbation is PIP's (Cao et al., arXiv 2501.15278): character edits - two neighbouring
characters swapped, one replaced, one inserted - that leave a text readable but twist its meaning,
best when the edited word is a real word too (later -> alter, happy -> nappy, host -> ghost). Words
are edited in place, so word k of one view is word k of the other, whatever the tokenizer does.

Letters of every script are edited, see `writing`. Swapped are two neighbouring letters, each with its
combining marks. A letter is replaced by one of the same script that is common in the text, and keeps its
marks and its case; what is inserted is such a letter without marks. A Chinese or Japanese character is
replaced by a common character of the text.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

import torch
from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import count_at_end
from .writing import LATIN, Writing, letters_of, script_of

PERTURBATION_KINDS = ("swap", "replace", "insert")
# Of a longer run of letters only a part of this length is edited, drawn at random: every spelling that one
# edit makes takes memory in the square of it. Longer than any word, of a to z and of other letters.
LONGEST_LATIN, LONGEST_RUN = 1000, 300
_SPACE_MARKERS = str.maketrans({"Ġ": " ", "▁": " "})

# The number of a word, its clean and its perturbed spelling.
Edit = tuple[int, str, str]


@dataclass(frozen=True)
class View:
    """One view of a text, tokenised.

    Attributes:
        text: what was tokenised.
        ids: token ids, shape `(T,)`, int64.
        words: index of the word each token belongs to, shape `(T,)`, int64, ascending from 0.
    """

    text: str
    ids: torch.Tensor
    words: torch.Tensor

    def to(self, device: torch.device) -> View:
        """The same view with its tensors on `device`."""
        return replace(self, ids=self.ids.to(device), words=self.words.to(device))


@dataclass(frozen=True)
class Pair:
    """A text in two views, with as many words in the one as in the other.

    Attributes:
        clean: the text itself.
        perturbed: the text after `edits`.
        edits: the words that differ.
        domain: number of the calibration's domain that the text is from, from 0.
    """

    clean: View
    perturbed: View
    edits: tuple[Edit, ...]
    domain: int = 0

    def to(self, device: torch.device) -> Pair:
        """The same pair with its tensors on `device`."""
        return replace(self, clean=self.clean.to(device), perturbed=self.perturbed.to(device))


def vocabulary_words(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The words in a tokenizer's vocabulary: tokens of three or more small letters that start a word."""
    starts = (t.translate(_SPACE_MARKERS) for t in tokenizer.get_vocab())
    words = (t[1:] for t in starts if len(t) > 3 and t[0] == " ")
    return frozenset(w for w in words if w.isascii() and w.isalpha() and w.islower())


class Perturber:
    """Draws character edits.

    Args:
        words: an edit that gives one of these is preferred.
        kinds: kinds of edits to draw from, see `PERTURBATION_KINDS`.
        writing: how the texts are written.
    """

    def __init__(self, words: Collection[str], kinds: Sequence[str], writing: Writing = LATIN) -> None:
        self.words = words
        self.kinds = tuple(kinds)
        self.writing = writing

    def edit(self, word: str, rng: random.Random) -> str:
        """`word`, letters that can be edited (see `Writing.editable`) and nothing else, after one edit;
        never `word` itself."""
        if not word.isascii():
            return self._edit_letters(word, rng)
        if len(word) > LONGEST_LATIN:
            start = rng.randrange(len(word) - LONGEST_LATIN + 1)
            end = start + LONGEST_LATIN
            return word[:start] + self.edit(word[start:end], rng) + word[end:]
        lower = word.lower()
        for kind in rng.sample(self.kinds, len(self.kinds)):
            real = [c for c in _candidates(lower, kind) if c in self.words]
            if real:
                return _capitalised_as(word, rng.choice(sorted(set(real))))
        # No real word within one edit: an edit inside the word keeps it readable.
        found = _candidates(lower, rng.choice(self.kinds))
        inner = [c for c in found if c[0] == lower[0] and c[-1] == lower[-1]]
        # A word of three letters has no inner swap; one letter repeated has no swap at all.
        return _capitalised_as(word, rng.choice(inner or found or [lower[0] + lower]))

    def _edit_letters(self, word: str, rng: random.Random) -> str:
        """As `edit`, for letters of any script."""
        letters, common = letters_of(word), self.writing.letters
        if len(letters) > LONGEST_RUN:
            start = rng.randrange(len(letters) - LONGEST_RUN + 1)
            end = start + LONGEST_RUN
            part = self._edit_letters("".join(letters[start:end]), rng)
            return "".join([*letters[:start], part, *letters[end:]])
        for kind in rng.sample(self.kinds, len(self.kinds)):
            found = _variants(letters, kind, common)
            if real := sorted({c for c in map("".join, found) if c.lower() in self.writing.words}):
                return rng.choice(real)
        found = _variants(letters, rng.choice(self.kinds), common)
        inner = [c for c in found if c[0] == letters[0] and c[-1] == letters[-1]]
        return "".join(rng.choice(inner or found or [[letters[0], *letters]]))

    def perturb(self, text: str, rate: float, rng: random.Random) -> tuple[str, tuple[Edit, ...], list[int]]:
        """Edit the share `rate` of a text's editable words, at least one where there is one.

        Returns:
            The perturbed text, the edits made, and where each of its words begins.
        """
        spans = self.writing.spans(text)
        found = [max(self._letters(text[a:b]), key=lambda m: m[1] - m[0], default=None) for a, b in spans]
        editable = [i for i, letters in enumerate(found) if letters]
        count = min(len(editable), max(1, round(rate * len(editable))))
        chosen = set(rng.sample(editable, count))
        parts, end, edits, starts, shift = [], 0, [], [], 0
        for i, (first, _) in enumerate(spans):
            starts.append(first + shift)
            letters = found[i]
            if i not in chosen or letters is None:
                continue
            start, stop = first + letters[0], first + letters[1]
            edited = self.edit(text[start:stop], rng)
            parts += [text[end:start], edited]
            end = stop
            shift += len(edited) - (stop - start)
            edits.append((i, text[start:stop], edited))
        return "".join(parts) + text[end:], tuple(edits), starts

    def _letters(self, word: str) -> list[tuple[int, int]]:
        return [found.span() for found in self.writing.editable.finditer(word)]


def view_of(
    text: str, tokenizer: PreTrainedTokenizerBase, writing: Writing = LATIN, starts: Sequence[int] = ()
) -> View:
    """Tokenise `text` and say which word each token belongs to.

    A token belongs to the word that holds its last character; white space between two words and
    the tokens at the text's ends belong to the nearest word before, or to the first. Special tokens that
    say that a text has ended are left out.

    Args:
        writing: how the text is divided into words.
        starts: where its words begin, where that is known.
    """
    encoded = tokenizer(text, return_offsets_mapping=True)
    count = len(encoded["input_ids"]) - count_at_end(tokenizer)
    ids = torch.tensor(encoded["input_ids"][:count], dtype=torch.long)
    begins = torch.tensor(starts or [start for start, _ in writing.spans(text)])
    ends = torch.tensor([end for _, end in encoded["offset_mapping"][:count]])
    words = (torch.searchsorted(begins, ends - 1, right=True) - 1).clamp(min=0)
    # A token that covers nothing, such as an end of text, goes with the word before it.
    return View(text, ids, words.cummax(0).values)


def _candidates(word: str, kind: str) -> list[str]:
    """Every spelling that one edit of `kind` makes of `word`, except `word` itself."""
    if kind == "swap":
        found = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    elif kind == "replace":
        found = [word[:i] + c + word[i + 1 :] for i in range(len(word)) for c in ascii_lowercase]
    else:
        found = [word[:i] + c + word[i:] for i in range(len(word) + 1) for c in ascii_lowercase]
    return [c for c in found if c != word]


def _capitalised_as(original: str, edited: str) -> str:
    """`edited`, in small letters, with the capitals of the word it was made from: ALL, First, or camelCase
    letter by letter."""
    if original.isupper():
        return edited.upper()
    if original[1:].islower():
        return edited[0].upper() + edited[1:] if original[0].isupper() else edited
    if len(edited) > len(original):
        new = next(i for i in range(len(edited)) if edited[i] != original[i : i + 1].lower())
        return original[:new] + edited[new] + original[new:]
    return "".join(c.upper() if o.isupper() else c for c, o in zip(edited, original, strict=True))


def _variants(letters: list[str], kind: str, common: Mapping[str, str]) -> list[list[str]]:
    """Every spelling that one edit of `kind` makes of `letters`, except themselves.

    Args:
        letters: each with its combining marks.
        common: script -> letters that may be put in.
    """
    found = []
    if kind == "swap":
        for i in range(len(letters) - 1):
            one, two = letters[i], letters[i + 1]
            found.append([*letters[:i], _cased(two, one), _cased(one, two), *letters[i + 2 :]])
    elif kind == "replace":
        for i, letter in enumerate(letters):
            for new in common.get(script_of(letter[0]), ""):
                found.append([*letters[:i], _cased(new, letter) + letter[1:], *letters[i + 1 :]])
    else:
        small = "" if "".join(letters).isupper() else "small"
        for i in range(len(letters) + 1):
            # In front of a capital the new letter becomes the capital.
            after = letters[i:] if i else [_cased(letters[0], letters[1]), *letters[1:]]
            for new in common.get(script_of(letters[max(i - 1, 0)][0]), ""):
                found.append([*letters[:i], _cased(new, (i and small) or letters[0]), *after])
    return [spelling for spelling in found if spelling != letters]


def _cased(letter: str, like: str) -> str:
    """`letter` with the case of another, where it has one that is a single character too."""
    made = letter.upper() if like.isupper() else letter.lower()
    return made if len(made) == len(letter) else letter
