"""Calibration: the text that a run scores and refits on, read once, tokenised once, drawn per iteration.

`CalibrationText` is the text by itself, read before any model is here. `Calibration` is the text for
one tokenizer: it draws pairs of views and rows of tokens, and has scoring methods read them.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import UserError
from ..core.figures import percent
from ..core.special_tokens import count_at_end
from ..structure.sites import Site
from .corpora import POOL_CHARACTERS, Domain, calibration_texts, pinned, title
from .feeding import ScoringPass, feed
from .perturbation import Pair, Perturber, View, view_of, vocabulary_words
from .windows import CHARACTERS_PER_TOKEN, Passages, in_turn, window_counts

# Windows that tokens are scored on, for each that a removal is scored on.
TOKEN_PAIRS = 4
# A text's words are said to be too few to edit where less than this of the wanted share is edited; of prose
# about three quarters are, since short words stay as they are, and of programs half.
FEW_EDITS = 1 / 3
# Shape of a batch of rows.
ROW_TOKENS = 256
BATCH_ROWS = 8


class Settings(Protocol):
    """The settings of a recipe that calibration reads, see `pip_core.core.recipe.Recipe`."""

    calibration: str
    windows: int
    window_tokens: int
    kinds: tuple[str, ...]
    rate: float
    seed: int
    refit: bool
    refit_tokens: int


class Scorer(Protocol):
    """What calibration needs of a scoring method, see `pip_core.scoring.base.Scorer`."""

    name: str
    inf_protects: bool

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[list[torch.Tensor]]: ...

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]: ...


@dataclass(frozen=True)
class CalibrationText:
    """The documents that a run calibrates on.

    Attributes:
        name: the text's name, the commit of every dataset on the Hub written into it, so that it means
            the same documents on any machine.
        domains: the texts that the name stands for, with their shares.
        characters: of a file or a dataset on the Hub at least so many characters were read, where it
            holds them.
        what: its purpose, for error messages.
    """

    name: str
    domains: tuple[Domain, ...]
    characters: int = POOL_CHARACTERS
    what: str = "calibration text"

    @staticmethod
    def read(recipe: Settings, what: str = "calibration text") -> CalibrationText:
        """Read the recipe's calibration text, as much of it as windows and refit need.

        Raises:
            UserError: no such text, or one that cannot be read.
        """
        tokens = max(recipe.windows * recipe.window_tokens, recipe.refit_tokens if recipe.refit else 0)
        return CalibrationText._read(pinned(recipe.calibration), _characters(tokens), what)

    @staticmethod
    def _read(name: str, characters: int, what: str) -> CalibrationText:
        return CalibrationText(name, tuple(calibration_texts(name, characters, what)), characters, what)

    def warnings(self) -> Iterator[str]:
        """A sentence for each domain that holds documents more than once."""
        for domain in self.domains:
            if domain.duplicates:
                yield (
                    f"{domain.duplicates} documents of the {self.what} '{title(domain.name)}' occur "
                    "more than once; windows are drawn from each document once."
                )

    def holding(self, characters: int) -> CalibrationText:
        """The same text, read until each domain holds `characters` characters. It is read again only
        where that is more than was read, which a model with very wide projections may ask for."""
        if characters == self.characters:
            return self
        if characters > self.characters:
            return CalibrationText._read(self.name, characters, self.what)
        domains = tuple(replace(d, documents=d.documents[: d.count(characters)]) for d in self.domains)
        return replace(self, domains=domains, characters=characters)


class Calibration:
    """A calibration text for one model's tokenizer.

    Nothing is tokenised before it is needed, and what was tokenised is kept.

    Args:
        context: the longest input that the model reads, in tokens.
        device: where pairs are moved before a scoring method is given them.
        compares: whether the method compares the two views; where it does not, any text will do.
    """

    def __init__(
        self,
        text: CalibrationText,
        recipe: Settings,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        device: torch.device,
        compares: bool = True,
    ) -> None:
        self.text = text
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.context = context
        self.device = device
        self.compares = compares
        self._words: frozenset[str] | None = None
        # By the number of characters that the windows are drawn from: one list of passages per domain.
        self._passages: dict[int, list[Passages]] = {}
        self._drawn: tuple[tuple[int, int], list[Pair]] | None = None
        self._rows: dict[tuple[int, int, str], list[torch.Tensor]] = {}

    def of_text(self, text: CalibrationText) -> Calibration:
        """Another text, for the same model and by the same settings."""
        return Calibration(text, self.recipe, self.tokenizer, self.context, self.device, self.compares)

    def check(self) -> None:
        """Draw the first iteration's pairs, so that a fault of the text is reported before anything is
        scored.

        Raises:
            UserError: as `pairs`.
        """
        self.pairs(1)

    def warnings(self) -> Iterator[str]:
        """A sentence where far fewer words can be edited than the recipe wants."""
        pairs = self.pairs(1) if self.compares else []
        words = sum(int(pair.clean.words[-1]) + 1 for pair in pairs)
        edits, wanted = sum(len(pair.edits) for pair in pairs), self.recipe.rate
        if edits < FEW_EDITS * wanted * words:
            yield (
                f"In the perturbed view of the calibration text '{title(self.text.name)}' only "
                f"{percent(edits / words, 0)} of the words are edited, where {percent(wanted, 0)} are asked "
                "for: the others have too few letters. What the two views differ in says little; use a text "
                "with more words, or a method that compares no views."
            )

    def pairs(self, iteration: int, windows: int | None = None) -> list[Pair]:
        """The pairs of one iteration: the same clean windows in each, perturbed anew.

        The draw depends on `recipe.seed` and `iteration` alone: the stream `SEED/window/i` puts the
        documents of domain `i` in order, the stream `SEED/view/ITERATION/k` perturbs pair `k`. Each domain
        has its share of the windows (`window_counts`), and the domains take turns.

        Args:
            iteration: from 1.
            windows: how many pairs; None takes the recipe's number.

        Raises:
            UserError: too short a text, windows longer than the model reads, or a tokenizer without
                character offsets.
        """
        windows = self.recipe.windows if windows is None else windows
        key = (iteration, windows)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._draw(iteration, windows)
        return list(self._drawn[1])

    def token_pairs(self, iteration: int) -> list[Pair]:
        """Pairs to score tokens on, see `pairs`: `TOKEN_PAIRS` times the recipe's number or the largest
        multiple below that the text holds, since a text says little of the tokens that it does not hold.

        Raises:
            UserError: as `pairs`.
        """
        for times in range(TOKEN_PAIRS, 1, -1):
            try:
                return self.pairs(iteration, times * self.recipe.windows)
            except UserError:
                continue
        return self.pairs(iteration)

    def rows(self, tokens: int, least: int, need: str, stream: str = "refit") -> list[torch.Tensor]:
        """Rows of tokens in which no token of the text is read twice.

        Each domain has its share. The stream `SEED/STREAM/DOMAIN` puts its documents in order, and they
        are packed into rows one after another.

        Args:
            tokens: how many to read, where the text holds them.
            least: fewer than these are refused.
            need: what needs `least` tokens, the beginning of the error's sentence.
            stream: name of the random stream.

        Returns:
            Batches of token ids on the CPU, int64, each `(B, T)`: B at most `BATCH_ROWS`, T `ROW_TOKENS`
            or the model's context where that is less.

        Raises:
            UserError: the text holds fewer than `least` tokens.
        """
        key = (tokens, least, stream)
        if key not in self._rows:
            self._rows[key] = self._pack(tokens, least, need, stream)
        return list(self._rows[key])

    def score(
        self,
        scorer: Scorer,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, list[torch.Tensor]]:
        """Score the units at `sites`.

        Args:
            model: in evaluation mode; left as it was.
            blocks: the decoder blocks of `model`; `sites[i].position` indexes them.

        Yields:
            How many pairs are done, after each step; a step may be less than a pair. No gradient mode
            is held across a yield.

        Returns:
            One float32 tensor of shape `(site.size,)` per site, on the CPU: finite, or +inf for a unit
            that must stay where the method `inf_protects`.

        Raises:
            UserError: calibration that the method cannot work with, or scores that are not finite.
        """
        scores = yield from feed(scorer.begin(model, blocks, sites), pairs, self.device)
        check_finite(scores, scorer.inf_protects)
        return scores

    def score_tokens(
        self, scorer: Scorer, model: PreTrainedModel, pairs: Sequence[Pair]
    ) -> Generator[int, None, torch.Tensor]:
        """Score the rows of the vocabulary, see `score`.

        Returns:
            float32 of shape `(V,)` on the CPU, finite; larger means keep.
        """
        scores = yield from feed(scorer.begin_tokens(model), pairs, self.device)
        check_finite([scores])
        return scores

    def _holding(self, characters: int) -> tuple[Domain, ...]:
        if characters > self.text.characters:
            self.text = self.text.holding(characters)
        return self.text.holding(characters).domains

    def _draw(self, iteration: int, windows: int) -> list[Pair]:
        passages = self._passages_for(windows)
        counts = window_counts([p.domain.share for p in passages], windows)
        taken = [0] * len(counts)
        chosen: list[tuple[int, View]] = []
        for i in in_turn(counts):
            clean = passages[i].get(taken[i])
            if clean is None:
                counted = "; passages without letters to edit do not count" if self.compares else ""
                raise UserError(
                    f"The calibration text '{title(passages[i].domain.name)}' holds only about {taken[i]} "
                    f"windows of {self.recipe.window_tokens} tokens, and {counts[i]} are asked for{counted}"
                    ". Use a longer text, fewer windows or shorter ones."
                )
            taken[i] += 1
            chosen.append((i, clean))
        if self._words is None:
            self._words = vocabulary_words(self.tokenizer)
        pairs = []
        for number, (domain, clean) in enumerate(chosen):
            rng = random.Random(f"{self.recipe.seed}/view/{iteration}/{number}")
            perturber = Perturber(self._words, self.recipe.kinds, passages[domain].writing)
            text, edits, starts = perturber.perturb(clean.text, self.recipe.rate, rng)
            pairs.append(Pair(clean, view_of(text, self.tokenizer, starts=starts), edits, domain))
        read = [view for pair in pairs for view in (pair.clean, pair.perturbed)[: 1 + self.compares]]
        longest = max(len(view.ids) for view in read)
        if longest > self.context:
            raise UserError(
                f"This model reads at most {self.context} tokens, and the views of "
                f"{self.recipe.window_tokens}-token windows have up to {longest}. Choose shorter windows."
            )
        return pairs

    def _passages_for(self, windows: int) -> list[Passages]:
        if not self.tokenizer.is_fast:
            raise UserError(
                "This model's tokenizer cannot say which characters a token covers (it has no "
                "tokenizer.json), which aligning the two views needs. Choose a model with a fast tokenizer."
            )
        tokens, seed = self.recipe.window_tokens, self.recipe.seed
        characters = _characters(windows * tokens)
        if characters not in self._passages:
            self._passages[characters] = [
                Passages(
                    domain,
                    self.tokenizer,
                    tokens,
                    random.Random(f"{seed}/window/{number}"),
                    not self.compares,
                )
                for number, domain in enumerate(self._holding(characters))
            ]
        return self._passages[characters]

    def _pack(self, tokens: int, least: int, need: str, stream: str) -> list[torch.Tensor]:
        length = min(ROW_TOKENS, self.context)
        domains = self._holding(_characters(tokens))
        shares = [domain.share for domain in domains]
        held = [
            self._packed(domain, length, random.Random(f"{self.recipe.seed}/{stream}/{number}"))
            for number, domain in enumerate(domains)
        ]
        # More than the shortest of them allows cannot be had.
        most = (int((len(h) + 1) / share) + 1 for h, share in zip(held, shares, strict=True))
        rows = min(-(-tokens // length), *most)
        while any(n > len(h) for n, h in zip(window_counts(shares, rows), held, strict=True)):
            rows -= 1
        if rows * length < least:
            raise UserError(
                f"{need}, and the text '{title(self.text.name)}' holds {rows * length:,} (of a "
                "mix, each part in its share). Use a longer text, or switch off what needs it."
            )
        following = [iter(h) for h in held]
        chosen = [next(following[i]) for i in in_turn(window_counts(shares, rows))]
        return list(torch.stack(chosen).split(BATCH_ROWS))

    def _packed(self, domain: Domain, length: int, rng: random.Random) -> torch.Tensor:
        """A domain's rows, `(N, length)`; the tokens that do not fill the last one are left out."""
        documents = list(domain.documents)
        rng.shuffle(documents)
        ids = self.tokenizer("\n\n".join(documents), return_tensors="pt", verbose=False)["input_ids"][0]
        ids = ids[: len(ids) - count_at_end(self.tokenizer)]
        count = len(ids) // length
        return ids[: count * length].view(count, length)


def check_finite(scores: Sequence[torch.Tensor], inf_protects: bool = False) -> None:
    """Refuse scores by which nothing can be ranked.

    Args:
        inf_protects: whether +inf is a score, that of a unit that must stay.

    Raises:
        UserError: a score is not a finite number.
    """
    if not all(bool((s.isfinite() | (s.isposinf() & inf_protects)).all()) for s in scores):
        raise UserError(
            "The scores are not finite numbers: this model's activations or gradients overflow in the "
            "chosen number format. Choose float32."
        )


def _characters(tokens: int) -> int:
    """How much of a file or dataset is read for so many tokens."""
    return max(POOL_CHARACTERS, tokens * CHARACTERS_PER_TOKEN)
