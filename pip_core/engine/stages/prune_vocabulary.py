"""Prune the vocabulary: the rows of the tokens that matter least are cut out of the model and its
tokenizer."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, field_validator
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...core.errors import UserError
from ...core.events import Event, event
from ...core.figures import percent
from ...core.json_text import parse_json
from ...core.recipe import DEMO, OURS, Recipe
from ...core.settings import AUTO, MEASURED, Auto, Measured, Names, Settings, setting
from ...core.token_removal import TokensRemoved, packed, unpacked
from ...data.calibration import TOKEN_PAIRS
from ...data.files import own_file, read_text
from ...reporting.description import Description
from ...structure.token_scripts import FILE, SCRIPT, TEXT, lengths_by_script, tokens_by_script, tokens_to_keep
from ...structure.vocabulary import FILE as TOKENIZER
from ...structure.vocabulary import Vocabulary, VocabularySubset, check_kind
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState

# Tokens that are named of those that were removed, and of those that nearly were.
EXAMPLES = 40
# Scripts that are counted, those that lost most.
SCRIPTS = 24
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
        "Share of the target; auto picks one, measured weighs tokens against other parts",
    )
    vocabulary_limit: Annotated[float, Field(gt=0, lt=1)] | Auto = setting(
        AUTO,
        "largest share of the vocabulary that is removed; auto: half of it where the recipe states the share "
        "of the target, since tokens rarer than the median one count as rare, and as much as the division "
        "finds cheap where that is measured",
        "a number above 0 and below 1, or auto",
        "Vocabulary limit",
        "At most this share of all tokens is removed",
    )

    keep_tokens: Names = setting(
        (),
        "tokens that stay: script:NAME for all of a script, such as script:cyrillic; file:PATH or text:WORDS "
        "for those that a text is written with",
        "a list of script:NAME, file:PATH or text:WORDS",
        "Tokens to keep",
        "Such as script:Cyrillic, text:WORDS or file:PATH",
    )

    @field_validator("keep_tokens")
    @classmethod
    def _known_forms(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in keep if not name.startswith((SCRIPT, FILE, TEXT))]:
            raise ValueError(
                f"Tokens to keep: enter a list of script:NAME, file:PATH or text:WORDS, not '{wrong[0]}'. A "
                "comma ends an entry: a text with commas can be kept as a file."
            )
        if bare := [name for name in keep if not name.partition(":")[2].strip()]:
            raise ValueError(
                f"Tokens to keep: '{bare[0]}' names nothing. Write what is meant behind the colon, such as "
                "script:Cyrillic, text:WORDS or file:PATH."
            )
        return keep

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        # The demo model's few words are all in use. Ours divides the target itself, others do what was
        # published.
        return {"vocabulary": MEASURED if method == OURS and model != DEMO else 0.0}


@event
class VocabularyPruned(TokensRemoved):
    """After `iteration` removals the tokens that mattered least were removed, `tokens` of the dense model's
    `rows`.

    `first` are some that were removed first, `last` those that were removed last, `next` those that would
    have been removed next; as the tokenizer writes them. `removed_description` says in words what was removed
    since the dense model. `scripts` are (script, tokens of it that were removed, of so many, in how many
    tokens one of them is written now), `longer` how many times as many tokens the calibration text takes,
    `ids` the ids of the removed rows, packed; a run of an older version has none of these.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]
    next: tuple[str, ...]
    parameters: int
    removed_description: str
    seconds: float
    scripts: tuple[tuple[str, int, int, float], ...] = ()
    longer: float | None = None
    ids: str = ""

    def removed(self) -> list[int]:
        return unpacked(self.ids, self.rows) if self.ids else []

    def sentence(self) -> str:
        return f"{self._words()} {self.parameters / 1e6:.1f}M parameters are left."

    def _words(self) -> str:
        some, spared = (", ".join(map(repr, tokens[:6])) for tokens in (self.last, self.next))
        # Rows without a token, which go first, have nothing to show.
        last = f" The last to be removed were {some}; the next would have been {spared}." if some else ""
        return (
            f"{self.tokens:,} of {self.rows:,} tokens were removed, those that mattered least; words that "
            f"used them are now split into smaller tokens.{last}{self._longer()}"
        )

    def _longer(self) -> str:
        """Which texts take more tokens now, and how many."""
        if self.longer is None:
            return ""
        scripts = ", ".join(
            f"{script} {removed:,} of {of:,} ({pieces:.1f} for one)"
            for script, removed, of, pieces in self.scripts[:6]
        )
        each = f" By script, removed and tokens that one takes now: {scripts}." if scripts else ""
        return f" The calibration text takes {percent(self.longer - 1)} more tokens.{each}"


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

    @property
    def idle(self) -> Collection[str]:
        return () if self.enabled else {*VocabularySettings.model_fields} - {"vocabulary"}

    def prepare(self, state: RunState) -> None:
        if self.recipe.vocabulary == MEASURED:
            return  # and again once it is known how many tokens go
        vocabulary_of(state).check(state.budget.tokens)

    def check(self, context: Context) -> None:
        kept_texts(self.recipe)
        # Of a folder the kind of tokenizer is known before its weights are read.
        tokenizer, written = Path(self.recipe.model) / TOKENIZER, None
        with suppress(OSError, ValueError):  # what is wrong with the file is said where it is loaded
            written = parse_json(tokenizer.read_text(encoding="utf-8"))
        if written and self.recipe.vocabulary != MEASURED:
            check_kind(written)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if self.recipe.vocabulary == MEASURED and not self.recipe.keep_tokens:
            return
        try:
            found = Vocabulary.of(tokenizer, config)
        except UserError:
            if self.recipe.vocabulary != MEASURED:
                raise
            return  # the division then goes without tokens, and says why
        if self.recipe.vocabulary != MEASURED:
            found.check_written(tokenizer)
        tokens_to_keep(self.recipe.keep_tokens, found, tokenizer, kept_texts(self.recipe))

    def estimate(self, context: Context) -> Cost:
        recipe, sizes = self.recipe, context.sizes
        pairs = TOKEN_PAIRS * recipe.windows * recipe.window_tokens * context.scorer.token_cost()
        work = pairs * context.depth(context.planned) * context.finishing
        # A gradient for every word and row, of both views; at most as many words as tokens.
        memory = sizes.resident + 2 * 4 * recipe.window_tokens * sizes.vocabulary
        return Cost({"scoring": work}, memory={"vocabulary": memory})

    def run(self, state: RunState) -> Iterator[Event]:
        began, iteration, loaded = time.monotonic(), len(state.removals), state.loaded
        vocabulary = vocabulary_of(state)
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
        scripts = lengths_by_script(subset, tokens_by_script(vocabulary, loaded.tokenizer))
        read = [pair.clean.ids for pair in pairs]
        longer = sum(len(subset.retokenize(ids)) for ids in read) / sum(map(len, read))
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
            tuple((script, *counts) for script, counts in scripts.items())[:SCRIPTS],
            longer,
            packed((i for i in range(vocabulary.rows) if i not in subset.new), vocabulary.rows),
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


def kept_texts(recipe: Recipe) -> dict[str, str]:
    """Contents of the files whose tokens stay, by path.

    Raises:
        UserError: one cannot be read.
    """
    paths = [name.removeprefix(FILE) for name in recipe.keep_tokens if name.startswith(FILE)]
    return {path: read_text(own_file(path), "file of tokens to keep", json=True) for path in paths}


def vocabulary_of(state: RunState) -> Vocabulary:
    """The model's vocabulary, with the tokens that the recipe keeps among those that stay.

    Raises:
        UserError: see `Vocabulary.of` and `tokens_to_keep`.
    """
    loaded, recipe = state.loaded, state.recipe
    found = Vocabulary.of(loaded.tokenizer, loaded.model.config, loaded.model.generation_config)
    return found.keeping(tokens_to_keep(recipe.keep_tokens, found, loaded.tokenizer, kept_texts(recipe)))


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
