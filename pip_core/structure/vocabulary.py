"""Reducing the vocabulary: a model and its tokenizer with fewer tokens.

A large share of a small model's parameters are rows of its vocabulary, and most tokens are rare. What was
written with a removed token is written with those that are left; so every text can still be read and
written, some of it in more tokens. How, depends on the kind of the tokenizer, see `subwords`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..core.cached import cached_property
from ..core.errors import UserError
from ..core.finite import to_json
from .families import blocks_of, skeleton, tables_of
from .kept_weights import check_kept, kept_sums
from .subwords import KINDS, Subwords
from .token_ids import change_around, change_config, change_ids, ids_in_config, ids_in_tokenizer

FILE = "tokenizer.json"
# Other files of a tokenizer, which would say again what it was before.
OTHER_FILES = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
)
# Matrix kernels are fastest on multiples of it, and it costs a few rows.
MULTIPLE = 8
INSTEAD = "Keep all tokens (0 % rare tokens removed), or choose another model."


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer, and which of them must be kept.

    Attributes:
        written: contents of the tokenizer's `tokenizer.json`.
        rows: rows of the dense model's embeddings; there may be more rows than tokens.
        fixed: ids that are always kept: special and added tokens, letters and bytes, and ids that a config
            or the tokenizer names.
    """

    written: Mapping
    rows: int
    fixed: frozenset[int]

    @staticmethod
    def of(
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        generation: GenerationConfig | None = None,
    ) -> Vocabulary:
        """The vocabulary of a dense model.

        Args:
            generation: settings for generating text, which name tokens too.

        Raises:
            UserError: tokens cannot be removed from the tokenizer, see `check_kind`, it has some that the
                model has no row for, or all must stay.
        """
        found = Vocabulary.read(tokenizer, config.vocab_size)
        found.check_rows()
        named = ids_in_config(config) | (ids_in_config(generation) if generation is not None else set())
        unmade = set(found.ids.values()) - found.parts.keys()
        unknown = set() if found.words.unknown is None else {found.words.unknown}
        fixed = (named | unmade | ids_in_tokenizer(found.written) | unknown) & set(range(found.rows))
        if len(fixed) == found.rows:
            raise UserError(
                "None of this model's tokens can be removed: all are letters, bytes or special ones, or its "
                f"{FILE} lists no merges that make them of others. {INSTEAD}"
            )
        return replace(found, fixed=frozenset(fixed))

    @staticmethod
    def read(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
        """The tokens alone; none is known to be needed.

        Raises:
            UserError: see `check_kind`.
        """
        written = _written(tokenizer)
        check_kind(written)
        return Vocabulary(written, rows, frozenset())

    @cached_property
    def words(self) -> Subwords:
        """What splits words into tokens."""
        return KINDS[self.written["model"]["type"]](self.written)

    @property
    def ids(self) -> Mapping[str, int]:
        """Token -> its id."""
        return self.words.ids

    @property
    def parts(self) -> Mapping[int, tuple[int, ...]]:
        """Id of a token that may go -> ids of those that its text can be written with."""
        return self.words.parts

    def keeping(self, tokens: Iterable[int]) -> Vocabulary:
        """The same, with further tokens that stay, and those that they are made of."""
        kept, waiting = set(self.fixed), list(tokens)
        while waiting:
            if (token := waiting.pop()) not in kept:
                kept.add(token)
                waiting += self.parts.get(token, ())
        return replace(self, fixed=frozenset(kept))

    def check_rows(self) -> None:
        """Refuse a tokenizer with more tokens than the model has rows.

        Raises:
            UserError: a token has no row.
        """
        tokens = {**self.ids, **{t["content"]: t["id"] for t in self.written["added_tokens"]}}
        without = [token for token, i in tokens.items() if i >= self.rows]
        if without:
            raise UserError(
                f"This model's tokenizer has {len(without):,} tokens that the model has no row for, such as "
                f"'{without[-1]}' (number {tokens[without[-1]]:,}, of {self.rows:,} rows from 0), so its "
                "vocabulary cannot be cut. Keep all tokens (0 % rare tokens removed), or save the model "
                "with more rows first: model.resize_token_embeddings(len(tokenizer))."
            )

    def check_written(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that cannot be written with the fewest tokens.

        Raises:
            UserError: see `VocabularySubset.tokenizer`.
        """
        VocabularySubset(self, torch.tensor(sorted(self.fixed))).tokenizer(tokenizer)

    def check(self, count: int) -> None:
        """Refuse a removal of `count` tokens that would remove fixed ones.

        Raises:
            UserError: fewer tokens would be left than must be kept.
        """
        left = self.rows - count
        if len(self.fixed) > left:
            raise UserError(
                f"{len(self.fixed):,} of this model's {self.rows:,} tokens must be kept (letters, bytes and "
                f"special ones), and only {left:,} would be left. {INSTEAD}"
            )

    def keep(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        """The ids to keep: `count` of them; see `keep_each`."""
        return self.keep_each(scores, (count,))[0]

    def keep_each(self, scores: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
        """For each of `counts` the ids to keep: so many of them, ascending, int64.

        A token is kept together with those that it is made of, because merges could not reach it
        otherwise. Of equal scores the lower id is kept, which is the more frequent token.

        Args:
            scores: importance per row, `(rows,)`; larger means keep.

        Raises:
            UserError: more tokens than one of `counts` must be kept.
        """
        self.check(self.rows - min(counts, default=self.rows))
        kept, parts = set(self.fixed), self.parts
        # Rows without a token, which pad the embeddings of some models, are removed first.
        tokens = self.fixed | set(self.ids.values())
        order = sorted(scores.argsort(descending=True, stable=True).tolist(), key=lambda i: i not in tokens)
        found: dict[int, torch.Tensor] = {}
        waiting = sorted(set(counts), reverse=True)
        for place, chosen in enumerate(order):
            needed = _needed(chosen, parts, kept)
            while waiting and len(kept) + len(needed) > waiting[-1]:
                count = waiting.pop()
                found[count] = _filled(kept, order[place:], parts, count)
            if not waiting:
                break
            kept |= needed
        found |= {count: torch.tensor(sorted(kept)) for count in waiting}
        return [found[count] for count in counts]


@dataclass(frozen=True)
class VocabularySubset:
    """The part of a vocabulary that is kept.

    Attributes:
        kept: dense ids that are kept, ascending, int64 `(K,)`; the new id of `kept[n]` is n.
    """

    vocabulary: Vocabulary
    kept: torch.Tensor

    @cached_property
    def new(self) -> dict[int, int]:
        """Dense id -> new id."""
        return {old: n for n, old in enumerate(self.kept.tolist())}

    def retokenize_token(self, token: int) -> tuple[int, ...]:
        """The new ids of the text of one dense id."""
        return tuple(self.vocabulary.words.resplit([token], self.new))

    def retokenize(self, ids: torch.Tensor) -> torch.Tensor:
        """The new ids of the text of dense `ids`; both `(T,)` int64, the new row may be longer.

        It begins with those of the first id, so that what is predicted behind it is the same text.
        """
        return torch.tensor(self.vocabulary.words.resplit(ids.tolist(), self.new))

    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """`tokenizer` without the removed tokens, written and read again.

        Raises:
            UserError: it cannot be read again, or does not reproduce a text.
        """
        with tempfile.TemporaryDirectory() as place:
            tokenizer.save_pretrained(place)
            written = json.loads((Path(place) / FILE).read_text(encoding="utf-8"))
            (Path(place) / FILE).write_text(to_json(self._rewritten(written)), encoding="utf-8")
            for name in OTHER_FILES:
                (Path(place) / name).unlink(missing_ok=True)
            self._renumber(Path(place) / "tokenizer_config.json")
            found = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        self._check(tokenizer, found)
        return found

    def _rewritten(self, written: dict) -> dict:
        """The contents of `tokenizer.json` with the kept tokens alone, renumbered."""
        written["model"] = type(self.vocabulary.words)(written).rewritten(self.new)
        for token in written["added_tokens"]:
            token["id"] = self.new[token["id"]]
        return change_around(written, self.new.__getitem__)

    def _renumber(self, path: Path) -> None:
        """Renumber the ids in `tokenizer_config.json`, such as the added tokens of older releases."""
        if not path.exists():
            return
        written = change_ids(json.loads(path.read_text(encoding="utf-8")), self.new.__getitem__)
        added = written.get("added_tokens_decoder")
        if added:
            written["added_tokens_decoder"] = {str(self.new[int(i)]): token for i, token in added.items()}
        path.write_text(to_json(written), encoding="utf-8")

    def _check(self, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase) -> None:
        """Check that every kept token has its new id, and that a text is decoded as before."""
        tokens = before.convert_ids_to_tokens(self.kept.tolist())
        wrong = [t for n, t in enumerate(tokens) if t is not None and after.convert_tokens_to_ids(t) != n]
        text = "The quick brown fox, 1,024 times: naïve café – 東京 ✓\n\tdef f(x): return x"
        one, other = before(text)["input_ids"], after(text)["input_ids"]
        same = before.decode(one, skip_special_tokens=True) == after.decode(other, skip_special_tokens=True)
        named = ids_in_tokenizer(_written(after))
        if wrong or not same or max({*other, *named}) >= len(self.kept):
            raise UserError(f"This model's tokenizer cannot be written with fewer tokens. {INSTEAD}")

    def renumber(self, config: PreTrainedConfig | GenerationConfig) -> None:
        """Replace the token ids that `config` names by the new ids, in place.

        Raises:
            UserError: an id is left that the smaller vocabulary does not have.
        """
        change_config(config, self.new.__getitem__)
        if strange := sorted(i for i in ids_in_config(config) if i >= len(self.kept)):
            raise UserError(
                f"The settings of this model name token {strange[0]:,}, which is not among the "
                f"{len(self.kept):,} that are left. {INSTEAD}"
            )

    def apply(self, model: PreTrainedModel) -> None:
        """Remove the rows of the removed tokens from `model`, in place, and renumber its configs.

        Raises:
            UserError: the model has a weight whose size depends on the vocabulary in a way that its
                config cannot state, or a weight that was to stay has changed.
        """
        before = kept_sums(model, self.kept)
        with torch.no_grad():
            held = [
                {name: p[self.kept.to(p.device)].clone() for name, p in table.named_parameters()}
                for table in tables_of(model)
            ]
        model.resize_token_embeddings(len(self.kept), mean_resizing=False)
        for table, rows in zip(tables_of(model), held, strict=True):
            for name, row in rows.items():
                getattr(table, name).data.copy_(row)
        check_kept(model, before)
        for config in (model.config, model.generation_config):
            if config is not None:
                self.renumber(config)
        rebuilt, inside = skeleton(model.config), {id(p) for p in blocks_of(model).parameters()}
        shapes = {name: p.shape for name, p in rebuilt.named_parameters()}
        for name, weight in model.named_parameters():
            if id(weight) not in inside and shapes.get(name) != weight.shape:
                raise UserError(
                    f"The vocabulary of this model ({model.config.model_type}) cannot be cut: its config "
                    f"does not describe {name} then. {INSTEAD}"
                )


def _needed(token: int, parts: Mapping[int, tuple[int, ...]], kept: Set[int]) -> set[int]:
    """A token and those that it is made of (see `Vocabulary.parts`), without those that are kept."""
    needed, open_ = set[int](), [token]
    while open_:
        if (one := open_.pop()) not in kept and one not in needed:
            needed.add(one)
            open_ += parts.get(one, ())
    return needed


def _filled(
    kept: Set[int], order: Sequence[int], parts: Mapping[int, tuple[int, ...]], count: int
) -> torch.Tensor:
    """`count` ids: those that are `kept`, and the first in `order` that there is room for. A token that needs
    more others than that is passed over."""
    filled = set(kept)
    for token in order:
        if len(filled) == count:
            break
        needed = _needed(token, parts, filled)
        if len(filled) + len(needed) <= count:
            filled |= needed
    return torch.tensor(sorted(filled))


def check_kind(written: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that tokens cannot be removed from.

    Args:
        written: contents of its `tokenizer.json`; empty where it has none.

    Raises:
        UserError: it is of another kind than those of `subwords`, or some text would not be the same without
            one of them.
    """
    kind = written.get("model", {}).get("type")
    if kind not in KINDS:
        how = f"is of the kind {kind}" if kind else f"has no {FILE}"
        raise UserError(
            f"Tokens can only be removed from a tokenizer that splits words into pieces "
            f"({', '.join(KINDS)}); this model's tokenizer {how}. {INSTEAD}"
        )
    if not written.get("decoder"):
        raise UserError(
            "This model's tokenizer has no decoder and puts a space between any two tokens that it writes, "
            f"so a word in more tokens would be another text. {INSTEAD}"
        )
    KINDS[kind](written).check()


def _written(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The contents of a tokenizer's `tokenizer.json`; empty where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend is not None else {}
