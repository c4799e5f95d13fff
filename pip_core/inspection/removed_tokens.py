"""The tokens that a run removed: a list to look through and search, and how much longer a text has become.

Texts are read by both tokenizers, the dense model's and the one without the removed tokens: the lengths are
measured and not computed from the list.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..checkpoints.folder import tokenizer_in
from ..checkpoints.load import resolve
from ..checkpoints.reference import cached_by_checkpoint
from ..core.cached import cached_property
from ..core.errors import UserError
from ..core.progress import drain
from ..core.token_removal import TokensRemoved, packed, unpacked
from ..structure.token_scripts import SCRIPT, script_of
from ..structure.vocabulary import FILE, Vocabulary, VocabularySubset

# Tokens on a page of the list, words of a text that are named, and characters of a text that is read.
PAGE, EXAMPLES, LONGEST = 50, 5, 1_000_000
# What stands where bytes are no whole letter.
PARTIAL = "\ufffd"
# How SentencePiece writes a space.
SPACE = "▁"


@dataclass(frozen=True)
class RemovedToken:
    """A token that was removed.

    Attributes:
        id: its number in the dense model.
        text: what it stands for; of bytes that are no whole letter the name that the tokenizer gives them.
        pieces: the texts of the tokens that it is written with now.
        script: of its first letter; empty where it has none.
    """

    id: int
    text: str
    pieces: tuple[str, ...]
    script: str


@dataclass(frozen=True)
class TokenPage:
    """A page of those removed tokens that were searched for.

    Attributes:
        number, pages: which page it is, from 1, and how many there are.
        found, removed: how many were found, and how many were removed.
    """

    tokens: tuple[RemovedToken, ...]
    number: int
    pages: int
    found: int
    removed: int

    def sentence(self) -> str:
        """Which part of the list this is."""
        if not self.found:
            return f"None of the {self.removed:,} removed tokens is like that."
        which = "" if self.found == self.removed else f" of {self.removed:,}"
        return f"{self.found:,}{which} removed tokens, page {self.number:,} of {self.pages:,}."


@dataclass(frozen=True)
class Lengths:
    """How long a text is for both tokenizers.

    Attributes:
        before, after: its tokens for the dense model and for the pruned one.
        examples: removed tokens of the text, those that occur most often first: (text, the texts of the
            tokens that it is written with now, how often it occurs). Bytes that are no whole letter are
            U+FFFD in them.
    """

    before: int
    after: int
    examples: tuple[tuple[str, tuple[str, ...], int], ...]

    def sentence(self) -> str:
        """The outcome in plain words."""
        if self.before == self.after:
            return f"This text takes {_tokens(self.before)} for both models: nothing in it became longer."
        share = self.after / self.before - 1
        held = f" What fits into 1,000 tokens of the pruned model took {round(1000 / (1 + share)):,} before."
        words = "; ".join(
            f"{_quoted(text)} was one token and is now {_written(pieces)}"
            + (f" ({times} times)" if times > 1 else "")
            for text, pieces, times in self.examples
        )
        taken = f"This text takes {_tokens(self.after)} where it took {self.before:,}: {100 * share:+.1f} %."
        return taken + held + (f" {words}." if words else "")


class RemovedTokens:
    """The removed tokens of a run.

    Args:
        tokenizer: the dense model's.
        removed: ids of the removed rows; of `rows` rows.

    Raises:
        UserError: the tokenizer is another than the one that they were removed from.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, removed: list[int], rows: int) -> None:
        self.tokenizer = tokenizer
        gone = set(removed)
        kept = [i for i in range(rows) if i not in gone]
        self.subset = VocabularySubset(Vocabulary.read(tokenizer, rows), torch.tensor(kept))
        # Rows without a token pad the table of some models; there is nothing to show of them.
        self._ids = [i for i in removed if i in self.subset.vocabulary.words.names]

    @cached_property
    def pruned(self) -> PreTrainedTokenizerBase:
        """The tokenizer without them."""
        return self.subset.tokenizer(self.tokenizer)

    @cached_property
    def _texts(self) -> list[str]:
        return [self._text(i) for i in self._ids]

    @cached_property
    def _keys(self) -> list[str]:
        return [_key(text) for text in self._texts]

    def _read(self, token: int) -> str:
        """What a token stands for, as far as it is text."""
        name = self.subset.vocabulary.words.names[token]
        if SPACE in name:
            return name.replace(SPACE, " ")
        (text,) = self.tokenizer.batch_decode([[token]], clean_up_tokenization_spaces=False)
        return text

    def _text(self, token: int) -> str:
        text = self._read(token)
        return text if text and PARTIAL not in text else self.subset.vocabulary.words.names[token]

    def _pieces(self, token: int) -> list[int]:
        """The dense ids of what a token is written with now."""
        return self.subset.kept[list(self.subset.retokenize_token(token))].tolist()

    def page(self, wanted: str = "", number: float = 1) -> TokenPage:
        """A page of the tokens that contain a text, whatever the case of its letters; in the order of the
        vocabulary, which begins with the most frequent ones in most. `script:NAME` finds all of a script.

        Args:
            number: from 1; beyond the last one it is the last.
        """
        wanted = wanted.strip()
        if wanted.lower().startswith(SCRIPT):
            script = wanted[len(SCRIPT) :].strip().capitalize()
            found = [n for n, text in enumerate(self._texts) if script_of(text) == script]
        else:
            key = _key(wanted)
            found = [n for n, text in enumerate(self._keys) if key in text]
        pages = max(1, -(-len(found) // PAGE))
        number = int(min(max(number, 1), pages))
        shown = found[(number - 1) * PAGE : number * PAGE]
        tokens = tuple(
            RemovedToken(
                self._ids[n],
                self._texts[n],
                tuple(map(self._text, self._pieces(self._ids[n]))),
                script_of(self._texts[n]),
            )
            for n in shown
        )
        return TokenPage(tokens, number, pages, len(found), len(self._ids))

    def lengths(self, text: str) -> Lengths:
        """How long a text is for both tokenizers.

        Raises:
            UserError: it is empty, or too long to be read at once.
        """
        if not text.strip():
            raise UserError("Enter a text first.", "text")
        if len(text) > LONGEST:
            raise UserError(
                f"This text has {len(text):,} characters, and {LONGEST:,} can be read at once: take a part.",
                "text",
            )
        before = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        after = self.pruned(text, add_special_tokens=False)["input_ids"]
        gone = Counter(i for i in before if i not in self.subset.new)
        often = sorted(gone.items(), key=lambda item: (-item[1], -len(self._text(item[0])), item[0]))
        named = [(self._read(i), tuple(map(self._read, self._pieces(i))), n) for i, n in often]
        examples = tuple(one for one in named if PARTIAL not in one[0])[:EXAMPLES]
        return Lengths(len(before), len(after), examples)


def _quoted(text: str) -> str:
    return f"“{text.strip() or text}”"


def _written(pieces: tuple[str, ...]) -> str:
    if any(PARTIAL in piece for piece in pieces):
        return f"{len(pieces)} tokens, some of them a part of a letter"
    return " + ".join(map(_quoted, pieces))


def _tokens(count: int) -> str:
    return f"{count:,} token{'s' * (count != 1)}"


def _key(text: str) -> str:
    """A text as it is compared: without regard to case, and to how accents are composed."""
    return unicodedata.normalize("NFC", text).casefold()


def removed_tokens(reference: str, removal: TokensRemoved, export: Path) -> RemovedTokens:
    """The removed tokens of a run, of which the last two asked for are remembered.

    Args:
        reference: of the dense model. One that is not on this machine is downloaded.
        removal: what the run recorded.
        export: where the run's model is, if it has one.

    Raises:
        UserError: as `load.resolve`; or the record does not say which tokens went, and there is no export.
    """
    removed, file = removal.removed(), export / FILE
    if removed:
        return _opened(reference, packed(removed, removal.rows), removal.rows, "", 0.0)
    return _opened(reference, "", removal.rows, str(export), file.stat().st_mtime if file.is_file() else 0.0)


@cached_by_checkpoint(maxsize=2)
def _opened(reference: str, ids: str, rows: int, export: str, written: float) -> RemovedTokens:
    source = drain(resolve(reference))
    tokenizer = tokenizer_in(source.folder, source.name)
    removed = unpacked(ids, rows) if ids else _missing(tokenizer, Path(export), rows)
    return RemovedTokens(tokenizer, removed, rows)


def _missing(tokenizer: PreTrainedTokenizerBase, export: Path, rows: int) -> list[int]:
    """The dense tokens that an export does not have, of a run whose record does not name them.

    Raises:
        UserError: there is no export.
    """
    try:
        left = json.loads((export / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            "This run was made by an older version, whose record does not say which tokens were removed, and "
            "its model is not there to be compared with the dense one."
        ) from None
    stays = set(Vocabulary(left, rows, frozenset()).ids)
    whole = Vocabulary.read(tokenizer, rows)
    return sorted(i for i, name in whole.words.names.items() if name not in stays and i < rows)
