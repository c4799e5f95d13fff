"""The kinds of tokenizers that tokens can be removed from: which may go, and how a text is written then.

- A byte pair encoding (Sennrich et al., arXiv 1508.07909) merges two tokens into one. Without the merge the
  two are left, or recursively theirs.
- Unigram (Kudo, arXiv 1804.10959) splits a word into the pieces of the largest total score. Without one of
  them it is split anew, by the best of the splits that are left, and boundaries beside it may move too.
- WordPiece (Schuster and Nakajima, 2012; as in BERT, arXiv 1810.04805) takes the longest piece that a word
  begins with, and so on with the rest. Without one it is split anew from there.

Of the last two a word in which nothing went stays as it is: its split was the best, or the longest, among
more. So only the others are split anew, each as a whole, as the tokenizer without the tokens does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, models

from ..core.cached import cached_property
from ..core.errors import UserError

# A byte of a letter that has no piece; a piece that is put around texts and never found in them.
BYTE, NAMED = re.compile(r"<0x[0-9A-F]{2}>"), re.compile(r"\[.+\]|<.+>")
# Splitters after which every word begins with a space's sign, alone or one after the other.
BY_SPACES = {"Metaspace", "WhitespaceSplit"}


class Subwords:
    """A tokenizer's model.

    Args:
        written: contents of its `tokenizer.json`.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.written, self.model = written, written["model"]

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Token -> its id."""
        return self.model["vocab"]

    @cached_property
    def names(self) -> Mapping[int, str]:
        """Id -> token."""
        return {i: token for token, i in self.ids.items()}

    @property
    def unknown(self) -> int | None:
        """The id of what has no token, where there is one."""
        return self.ids.get(self.model.get("unk_token") or "")

    @cached_property
    def parts(self) -> Mapping[int, tuple[int, ...]]:
        """Id of a token that may go -> ids of tokens that its text can be written with. They stay as long as
        it does, and those that it is written with in the end stay always."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse a model that could not write some text without one of the tokens that may go.

        Raises:
            UserError: it could not.
        """

    def rewritten(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The `model` of a `tokenizer.json` with the kept tokens alone.

        Args:
            new: id -> new id, of those that stay.
        """
        vocab = {token: new[i] for token, i in self.ids.items() if i in new}
        return {**self.model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1]))}

    def resplit(self, ids: Sequence[int], new: Mapping[int, int]) -> list[int]:
        """The new ids of the text of some ids, which is split anew where one of them went.

        The first is split by itself, so that what follows it is the same text as before.
        """
        raise NotImplementedError


class BytePairs(Subwords):
    """A byte pair encoding. A token that went is replaced by the tokens that it was merged from, whatever
    stands beside it; the tokenizer itself may join these with their neighbours."""

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """In their order; older files write each as one text with a space."""
        pairs = (m.split(" ") if isinstance(m, str) else m for m in self.model["merges"])
        return [(left, right) for left, right in pairs]

    def _joined(self, one: str, other: str) -> str:
        """What two tokens are merged into: a mark of tokens inside a word stands in front alone."""
        return one + other.removeprefix(self.model.get("continuing_subword_prefix") or "")

    @cached_property
    def parts(self) -> Mapping[int, tuple[int, ...]]:
        ids = self.ids
        found: dict[int, tuple[int, ...]] = {}
        for one, other in self.merges:
            if one in ids and other in ids and (joined := self._joined(one, other)) in ids:
                found.setdefault(ids[joined], (ids[one], ids[other]))
        return found

    def rewritten(self, new: Mapping[int, int]) -> dict[str, Any]:
        made = super().rewritten(new)
        vocab = made["vocab"]
        merges = [[a, b] for a, b in self.merges if a in vocab and b in vocab and self._joined(a, b) in vocab]
        return {**made, "merges": merges}

    def resplit(self, ids: Sequence[int], new: Mapping[int, int]) -> list[int]:
        return [i for token in ids for i in self._split(token, new)]

    def _split(self, token: int, new: Mapping[int, int]) -> tuple[int, ...]:
        if token in new:
            return (new[token],)
        return tuple(i for part in self.parts[token] for i in self._split(part, new))


class WholeWords(Subwords):
    """A model that splits a word as a whole."""

    @cached_property
    def apart(self) -> set[int]:
        """Ids that are a part of no word: what is put around texts, bytes, and what has no token."""
        added = {token["id"] for token in self.written.get("added_tokens") or ()}
        named = {i for token, i in self.ids.items() if BYTE.fullmatch(token) or NAMED.fullmatch(token)}
        return added | named | (set() if self.unknown is None else {self.unknown})

    def resplit(self, ids: Sequence[int], new: Mapping[int, int]) -> list[int]:
        found: list[int] = []
        for word in self._words(ids):
            if all(i in new for i in word):
                found += [new[i] for i in word]
            else:
                found += self._split([self.names[i] for i in word], new)
        return found

    def _words(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """The ids of a text, word by word; what is a part of none, and the first id, by itself."""
        word: list[int] = []
        for place, token in enumerate(ids):
            alone = token in self.apart
            if word and (place == 1 or alone or word[-1] in self.apart or self._begins(self.names[token])):
                yield word
                word = []
            word.append(token)
        if word:
            yield word

    def _begins(self, name: str) -> bool:
        """Whether a word begins with a piece."""
        raise NotImplementedError

    def _split(self, pieces: Sequence[str], new: Mapping[int, int]) -> list[int]:
        """The new ids of a word, or of the rest of one."""
        raise NotImplementedError


class Unigram(WholeWords):
    """A Unigram model. Single letters and bytes stay, and so does the piece of the lowest score, which
    unknown letters are weighed by."""

    def __init__(self, written: Mapping[str, Any]) -> None:
        super().__init__(written)
        self._made: tuple[Mapping[int, int], Tokenizer] | None = None

    @cached_property
    def ids(self) -> Mapping[str, int]:
        return {token: i for i, (token, _) in enumerate(self.model["vocab"])}

    @property
    def unknown(self) -> int | None:
        return self.model.get("unk_id")

    @cached_property
    def parts(self) -> Mapping[int, tuple[int, ...]]:
        ids, scores = self.ids, [score for _, score in self.model["vocab"]]
        stay = self.apart | {scores.index(min(scores))}
        return {
            i: tuple(ids[letter] for letter in token)
            for token, i in ids.items()
            if len(token) > 1 and i not in stay and all(letter in ids for letter in token)
        }

    def rewritten(self, new: Mapping[int, int]) -> dict[str, Any]:
        vocab = [pair for i, pair in enumerate(self.model["vocab"]) if i in new]
        return {**self.model, "vocab": vocab, "unk_id": None if self.unknown is None else new[self.unknown]}

    @cached_property
    def _space(self) -> str | None:
        """What every word begins with. It is empty where nobody knows where words begin, so that any piece
        may begin one, and None where a text is one word."""
        splitter = self.written.get("pre_tokenizer")
        if splitter is None:
            return None
        found = {one["type"]: one for one in splitter.get("pretokenizers", [splitter])}
        if "Metaspace" not in found or found.keys() - BY_SPACES:
            return ""
        mark = found["Metaspace"]
        splits = mark.get("split", True) or "WhitespaceSplit" in found
        return mark.get("replacement", "▁") if splits else None

    def _begins(self, name: str) -> bool:
        return self._space is not None and name.startswith(self._space)

    def _split(self, pieces: Sequence[str], new: Mapping[int, int]) -> list[int]:
        if self._made is None or self._made[0] is not new:
            made = self.rewritten(new)
            vocab = [(token, score) for token, score in made["vocab"]]
            self._made = new, Tokenizer(models.Unigram(vocab, made["unk_id"], False))
        return self._made[1].encode("".join(pieces), add_special_tokens=False).ids


class WordPieces(WholeWords):
    """A WordPiece model. Single letters stay, those that begin a word and those inside one."""

    @property
    def _inside(self) -> str:
        """What the name of a piece begins with that stands inside a word."""
        return self.model.get("continuing_subword_prefix") or "##"

    def _letters(self, name: str) -> list[str]:
        """The names of the single letters of a piece."""
        begins, text = self._begins(name), name.removeprefix(self._inside)
        return [letter if begins and not n else self._inside + letter for n, letter in enumerate(text)]

    @cached_property
    def parts(self) -> Mapping[int, tuple[int, ...]]:
        ids, found = self.ids, {}
        for token, i in ids.items():
            letters = self._letters(token)
            if len(letters) > 1 and i not in self.apart and all(letter in ids for letter in letters):
                found[i] = tuple(ids[letter] for letter in letters)
        return found

    def check(self) -> None:
        names = (token for token, i in self.ids.items() if i not in self.apart)
        inside = {letter for name in names for letter in self._letters(name) if not self._begins(letter)}
        if lacking := sorted(inside - self.ids.keys()):
            raise UserError(
                f"Pieces of this model's tokenizer hold letters that have no piece of their own inside a "
                f"word ({', '.join(lacking[:5])}), so that a word could not be written at all without "
                "another piece. Keep the whole vocabulary (vocabulary: 0), or choose another model."
            )

    def _begins(self, name: str) -> bool:
        return not name.startswith(self._inside)

    def _split(self, pieces: Sequence[str], new: Mapping[int, int]) -> list[int]:
        begins = self._begins(pieces[0])
        text = "".join(name.removeprefix(self._inside) for name in pieces)
        found: list[int] = []
        place = 0
        while place < len(text):
            before = "" if begins and not place else self._inside
            ends = range(len(text), place, -1)
            # `check` and `parts` see to it that there is one, of a single letter at least.
            end = next(end for end in ends if self.ids.get(before + text[place:end]) in new)
            found.append(new[self.ids[before + text[place:end]]])
            place = end
        return found


KINDS: Mapping[str, type[Subwords]] = {"BPE": BytePairs, "Unigram": Unigram, "WordPiece": WordPieces}
