"""Two views of a text: as it is, and perturbed.

The perturbation is PIP's (Cao et al., arXiv 2501.15278): character edits - two neighbouring
characters swapped, one replaced, one inserted - that leave a text readable but twist its meaning,
best when the edited word is a real word too (later -> alter, happy -> nappy, host -> ghost). Words
are edited in place, so word k of one view is word k of the other, whatever the tokenizer does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_lowercase
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from ..core.errors import UserError
from ..core.recipe import Recipe
from .corpora import DOMAINS, POOL_CHARACTERS, calibration_texts, documents, hub_of, parts, title
from .hub_datasets import is_cached

# More than any tokenizer averages on plain text.
CHARACTERS_PER_TOKEN = 8
PREVIEW_CHARACTERS = 100_000
_CHUNK = re.compile(r"\S+")
_SPACE = re.compile(r"\s*")
_CORE = re.compile(r"[A-Za-z]{3,}")
_SPACE_MARKERS = str.maketrans({"Ġ": " ", "▁": " "})


@dataclass(frozen=True)
class View:
    """One view, ready for the model.

    Attributes:
        text: what was tokenised.
        ids: token ids, shape `(T,)`, int64.
        words: index of the word each token belongs to, shape `(T,)`, int64, ascending from 0.
    """

    text: str
    ids: torch.Tensor
    words: torch.Tensor


@dataclass(frozen=True)
class Pair:
    """A text seen twice. Both views have the same number of words; `edits` are (word, clean,
    perturbed) for the words that differ; `domain` numbers the calibration's domains from 0."""

    clean: View
    other: View
    edits: tuple[tuple[int, str, str], ...]
    domain: int = 0


class Preview(NamedTuple):
    """A piece of a text and the edits of its perturbed view, as in `Pair`, words counted by white space.
    `note` says what is not as it will be in a run; mostly it is empty."""

    text: str
    edits: tuple[tuple[int, str, str], ...]
    note: str


def vocabulary_words(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """A tokenizer's own vocabulary as a word list: every token of three or more small letters that
    starts a word."""
    starts = (t.translate(_SPACE_MARKERS) for t in tokenizer.get_vocab())
    words = (t[1:] for t in starts if len(t) > 3 and t[0] == " ")
    return frozenset(w for w in words if w.isascii() and w.isalpha() and w.islower())


class Perturber:
    """Draws character edits of the given kinds, preferring those that give one of `words`."""

    def __init__(self, words: Collection[str], kinds: Sequence[str]) -> None:
        self.words = words
        self.kinds = tuple(kinds)

    def edit(self, word: str, rng: random.Random) -> str:
        """`word` (letters only, at least 3) after one edit; always different from `word`."""
        lower = word.lower()
        for kind in rng.sample(self.kinds, len(self.kinds)):
            real = [c for c in _candidates(lower, kind) if c in self.words]
            if real:
                return _like(word, rng.choice(sorted(set(real))))
        # No real word within one edit: an edit inside the word keeps it readable.
        found = _candidates(lower, rng.choice(self.kinds))
        inner = [c for c in found if c[0] == lower[0] and c[-1] == lower[-1]]
        # A word of three letters has no inner swap; one letter repeated has no swap at all.
        return _like(word, rng.choice(inner or found or [lower[0] + lower]))

    def perturb(
        self, text: str, rate: float, rng: random.Random
    ) -> tuple[str, tuple[tuple[int, str, str], ...]]:
        """`text` with the share `rate` of its editable words edited, and the edits made.

        At least one word is edited where one can be.
        """
        chunks = list(_CHUNK.finditer(text))
        editable = [i for i, c in enumerate(chunks) if _CORE.search(c.group())]
        count = min(len(editable), max(1, round(rate * len(editable))))
        parts, end, edits = [], 0, []
        for i in sorted(rng.sample(editable, count)):
            chunk = chunks[i]
            core = max(_CORE.finditer(chunk.group()), key=lambda m: len(m.group()))
            edited = self.edit(core.group(), rng)
            start = chunk.start() + core.start()
            parts += [text[end:start], edited]
            end = start + len(core.group())
            edits.append((i, core.group(), edited))
        return "".join(parts) + text[end:], tuple(edits)


def draw_pairs(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, iteration: int) -> list[Pair]:
    """The calibration pairs of one iteration: the same clean windows each time, views drawn anew.

    The draw depends on `recipe.seed` and `iteration` alone: domain `i` of the calibration is put in
    order by the stream `SEED/window/i`, pair `k` perturbed by `SEED/view/ITERATION/k`. Each domain has
    its share of the windows (`window_counts`), the domains in turn.

    Args:
        iteration: from 1.

    Raises:
        UserError: unreadable text, too short a text, or a tokenizer without character offsets.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "This model's tokenizer cannot say which characters a token covers (it has no "
            "tokenizer.json), which aligning the two views needs. Choose a model with a fast tokenizer."
        )
    perturber = Perturber(vocabulary_words(tokenizer), recipe.kinds)
    wanted = recipe.windows * recipe.window_tokens * CHARACTERS_PER_TOKEN
    domains = calibration_texts(recipe.calibration, max(POOL_CHARACTERS, wanted))
    counts = window_counts([d.share for d in domains], recipe.windows)
    streams = [
        _windows(d.documents, tokenizer, recipe.window_tokens, random.Random(f"{recipe.seed}/window/{i}"))
        for i, d in enumerate(domains)
    ]
    pairs: list[Pair] = []
    taken = [0] * len(domains)
    for i in in_turn(counts):
        text = next(streams[i], None)
        if text is None:
            raise UserError(
                f"The calibration text '{title(domains[i].name)}' holds only about {taken[i]} windows of "
                f"{recipe.window_tokens} tokens, and {counts[i]} are asked for. Use a longer "
                "text, fewer windows or shorter ones."
            )
        taken[i] += 1
        rng = random.Random(f"{recipe.seed}/view/{iteration}/{len(pairs)}")
        perturbed, edits = perturber.perturb(text, recipe.rate, rng)
        pairs.append(Pair(view_of(text, tokenizer), view_of(perturbed, tokenizer), edits, i))
    return pairs


def window_counts(shares: Sequence[float], windows: int) -> list[int]:
    """How many of `windows` each domain gets, by the method of largest remainders.

    Every domain gets the whole part of its quota; those with the largest remainders get one more,
    the earlier of equals first.

    Args:
        shares: sum to 1.
    """
    quotas = [Fraction(s).limit_denominator(10**9) * windows for s in shares]
    counts = [int(q) for q in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: windows - sum(counts)]:
        counts[i] += 1
    return counts


def in_turn(counts: Sequence[int]) -> Iterator[int]:
    """Every domain as often as `counts` says, as evenly spread as can be."""
    taken, total = [0] * len(counts), sum(counts)
    for step in range(1, total + 1):
        behind = [count * step - t * total for count, t in zip(counts, taken, strict=True)]
        chosen = behind.index(max(behind))
        taken[chosen] += 1
        yield chosen


def preview(recipe: Recipe, characters: int = 240) -> Preview:
    """The first words of a calibration text and the edits a perturbed view makes to them.

    Needs no model - the words of the shipped texts stand in for the tokenizer's vocabulary - and no
    network: where a dataset on the Hub has not been fetched yet, a shipped text stands in, and `note`
    says so.

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
    text = " ".join(rng.choice(found).split())
    if len(text) > characters:
        end = text.rfind(" ", 0, characters)
        text = text[: end if end > 0 else characters]
    shipped = (w for domain in DOMAINS for d in documents(domain) for w in _CORE.findall(d))
    words = frozenset(w for w in shipped if w.islower())
    return Preview(text, Perturber(words, recipe.kinds).perturb(text, recipe.rate, rng)[1], note)


def view_of(text: str, tokenizer: PreTrainedTokenizerBase) -> View:
    """Tokenise `text` and say which word each token belongs to.

    A token belongs to the word that holds its last character; white space between two words and
    the tokens at the text's ends belong to the nearest word before, or to the first.
    """
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor(encoded["input_ids"], dtype=torch.long)
    starts = torch.tensor([m.start() for m in _CHUNK.finditer(text)])
    ends = torch.tensor([end for _, end in encoded["offset_mapping"]])
    words = (torch.searchsorted(starts, ends - 1, right=True) - 1).clamp(min=0)
    # A token that covers nothing, such as an end of text, goes with the word before it.
    return View(text, ids, words.cummax(0).values)


def _windows(
    docs: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, rng: random.Random
) -> Iterator[str]:
    """Passages of whole words that are `tokens` tokens long or a word less, in seeded order.

    Long documents are cut into several; short ones are joined until a window is full. A word longer
    than a window is left out.
    """
    order = list(docs)
    rng.shuffle(order)
    text = "\n\n".join(order)
    start, ahead = _SPACE.match(text).end(), tokens * CHARACTERS_PER_TOKEN
    while start < len(text):
        view = view_of(text[start : start + ahead], tokenizer)
        if len(view.ids) < tokens:
            if start + ahead >= len(text):
                return
            ahead *= 2  # indentation, or one word over and over: many characters to a token
            continue
        full = int(view.words[tokens - 1])
        # The word that holds the last token may go on beyond it; then it belongs to the next window.
        if len(view.ids) > tokens and int(view.words[tokens]) == full:
            full -= 1
        chunks = list(_CHUNK.finditer(view.text))
        end = chunks[max(full, 0)].end()
        passage = view.text[:end].strip()
        if full >= 0 and _CORE.search(passage):
            yield passage
        start = _SPACE.match(text, start + end).end()
        ahead = tokens * CHARACTERS_PER_TOKEN


def _candidates(word: str, kind: str) -> list[str]:
    """Every spelling one edit of `kind` away from `word`, `word` itself left out."""
    if kind == "swap":
        found = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    elif kind == "replace":
        found = [word[:i] + c + word[i + 1 :] for i in range(len(word)) for c in ascii_lowercase]
    else:
        found = [word[:i] + c + word[i:] for i in range(len(word) + 1) for c in ascii_lowercase]
    return [c for c in found if c != word]


def _like(model: str, word: str) -> str:
    """`word`, an edit of `model`, in its capitals: ALL, First, or camelCase letter by letter."""
    if model.isupper():
        return word.upper()
    if model[1:].islower():
        return word[0].upper() + word[1:] if model[0].isupper() else word
    if len(word) > len(model):
        new = next(i for i in range(len(word)) if word[i] != model[i : i + 1].lower())
        return model[:new] + word[new] + model[new:]
    return "".join(c.upper() if m.isupper() else c for c, m in zip(word, model, strict=True))
