"""Prune the vocabulary: the rows of the tokens that matter least are cut out of the model and its
tokenizer."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Annotated

import torch
from pydantic import Field

from ...core.events import Event, StageResult, event
from ...core.recipe import DEMO, OURS
from ...core.settings import AUTO, MEASURED, Auto, Measured, Settings, setting
from ...data.calibration import TOKEN_PAIRS
from ...reporting.description import Description
from ...structure.vocabulary import Vocabulary, VocabularySubset
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState

# Tokens that are named of those that were removed, and of those that nearly were.
EXAMPLES = 40
# The converter knows how a tokenizer splits text by a hash of a sample's token ids, which are others now.
CONVERTING = (
    "To convert it to GGUF, llama.cpp's converter has to be told that texts are split into words as for the "
    "base model."
)


class VocabularySettings(Settings):
    """How much of the target is taken from the vocabulary."""

    vocabulary: Annotated[float, Field(ge=0, le=1)] | Auto | Measured = setting(
        AUTO,
        "share of the target that rows of the vocabulary make up, removed after the last unit; 0 keeps "
        "every token, 1 removes nothing else; measured: the run measures what tokens and units cost, and "
        "divides the target among them",
        "a number from 0 to 1, measured or auto",
        "Rare tokens removed",
    )
    vocabulary_limit: Annotated[float, Field(gt=0, lt=1)] | Auto = setting(
        AUTO,
        "largest share of the vocabulary that is removed; auto: half of it where the recipe states the share "
        "of the target, since tokens rarer than the median one count as rare, and as much as the division "
        "finds cheap where that is measured",
        "a number above 0 and below 1, or auto",
        "Most of the vocabulary",
    )

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        # The demo model's few words are all in use. Ours divides the target itself, others do what was
        # published.
        return {"vocabulary": MEASURED if method == OURS and model != DEMO else 0.0}


@event
class VocabularyPruned(StageResult):
    """After `iteration` removals the tokens that mattered least were removed, `tokens` of the dense model's
    `rows`.

    `first` are some that were removed first, `last` those that were removed last, `next` those that would
    have been removed next; as the tokenizer writes them. `removed_description` says in words what was removed
    since the dense model.
    """

    tokens: int
    rows: int
    first: tuple[str, ...]
    last: tuple[str, ...]
    next: tuple[str, ...]
    parameters: int
    removed_description: str
    seconds: float

    def sentence(self) -> str:
        return f"{self._words()} {self.parameters / 1e6:.1f}M parameters are left."

    def _words(self) -> str:
        some, spared = (", ".join(map(repr, tokens[:6])) for tokens in (self.last, self.next))
        return (
            f"{self.tokens:,} of {self.rows:,} tokens were removed, those that mattered least; words that "
            f"used them "
            f"are now split into smaller tokens. The last to be removed were {some}; the next would have "
            f"been {spared}."
        )


class PruneVocabulary(Stage):
    """Remove the tokens that matter least, of the model and of its tokenizer."""

    name = "vocabulary"
    title = "Prune the vocabulary"
    Settings = VocabularySettings
    Result = VocabularyPruned
    changes_model = True

    @property
    def enabled(self) -> bool:
        return bool(self.recipe.vocabulary)

    def prepare(self, state: RunState) -> None:
        if self.recipe.vocabulary == MEASURED:
            return  # and again once it is known how many tokens go
        loaded = state.loaded
        vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config, loaded.model.generation_config)
        vocabulary.check(state.budget.tokens)

    def estimate(self, context: Context) -> Cost:
        recipe, sizes = self.recipe, context.sizes
        pairs = TOKEN_PAIRS * recipe.windows * recipe.window_tokens * context.scorer.token_cost()
        work = pairs * context.depth(context.planned) * context.finishing
        # A gradient for every word and row, of both views; at most as many words as tokens.
        memory = sizes.resident + 2 * 4 * recipe.window_tokens * sizes.vocabulary
        return Cost({"scoring": work}, memory={"vocabulary": memory})

    def run(self, state: RunState) -> Iterator[Event]:
        began, iteration, loaded = time.monotonic(), len(state.removals), state.loaded
        vocabulary = Vocabulary.of(loaded.tokenizer, loaded.model.config, loaded.model.generation_config)
        pairs = state.calibration.token_pairs(iteration + 1)
        tokens = TOKEN_PAIRS * self.recipe.windows * self.recipe.window_tokens
        work = tokens * state.scorer.token_cost() * state.depth_left
        scoring = state.calibration.score_tokens(state.scorer, loaded.model, pairs)
        scores = yield from state.follow(scoring, "scoring", len(pairs), work)
        count = state.budget.tokens
        subset = VocabularySubset(vocabulary, vocabulary.keep(scores, vocabulary.rows - count))
        tokenizer = subset.tokenizer(loaded.tokenizer)
        subset.apply(loaded.model)
        config = copy.deepcopy(loaded.config)
        config.vocab_size = len(subset.kept)
        subset.renumber(config)
        state.evaluator = state.evaluator.retokenized(subset.retokenize, tokenizer, loaded.model.config)
        first, last, following = _examples(subset, scores, loaded.tokenizer)
        state.loaded = replace(loaded, tokenizer=tokenizer, config=config)
        state.token_subset = subset
        state.changed = True
        state.also_removed.append(f"{count:,} of {vocabulary.rows:,} tokens")
        yield VocabularyPruned(
            iteration,
            count,
            vocabulary.rows,
            first,
            last,
            following,
            state.shape.parameters(state.anatomy) - count * state.anatomy.row_parameters,
            state.removed_description,
            time.monotonic() - began,
        )

    @classmethod
    def describe(cls, result: VocabularyPruned) -> Description:
        return Description(
            result.sentence(),
            f"{result.tokens:,} tokens",
            (f"Vocabulary: {result._words()} {CONVERTING}",),
            f"{result.tokens:,} of {result.rows:,} tokens were removed",
            (("removed first", result.first), ("removed last", result.last), ("nearly removed", result.next)),
            "Words that used these are now split into smaller tokens, so every text can still be read and "
            "written. "
            "Text unlike the calibration text, such as another language, takes more tokens.",
        )


def _examples(
    subset: VocabularySubset, scores: torch.Tensor, tokenizer
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Tokens that were removed first, that were removed last, and that would have been removed next."""
    order = scores.argsort(stable=True).tolist()
    removed = [i for i in order if i not in subset.new]
    kept = [i for i in order if i in subset.new and i not in subset.vocabulary.fixed]

    def shown(ids: Iterable[int]) -> list[str]:
        # A row without a token, or with a part of a letter, has nothing to show.
        texts = (tokenizer.decode([i]) for i in ids if i in subset.vocabulary.parts)
        return list(islice((text for text in texts if "\ufffd" not in text), EXAMPLES))

    return tuple(shown(removed)), tuple(reversed(shown(reversed(removed)))), tuple(shown(kept))
