"""Rows of the vocabulary as units: a model and its tokenizer with fewer tokens.

A small model spends much of itself on its vocabulary, and most tokens are rare. A token that goes is
spelt from then on with the two tokens it was merged from, or what is left of these; so every text can
still be read and written, some of it in more steps. That is so for byte pair encoding, where a token
is made of others; other tokenizers are refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import UserError
from .families import blocks_of, skeleton, tables_of

FILE = "tokenizer.json"
# Matrix kernels are fastest on multiples of it, and it costs a few rows.
MULTIPLE = 8
INSTEAD = "Keep the whole vocabulary (vocabulary: 0), or choose another model."


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens, as far as leaving some out goes.

    Attributes:
        written: the tokenizer as its library writes it.
        rows: of the dense model's embeddings; there may be more than tokens.
        fixed: ids that stay whatever their score: special and added tokens, letters and bytes, and
            whatever the config names.
    """

    written: Mapping
    rows: int
    fixed: frozenset[int]

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Vocabulary:
        """Raises:
        UserError: a tokenizer whose tokens are not made of one another.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        written = json.loads(backend.to_str()) if backend is not None else {}
        kind = written.get("model", {}).get("type")
        if kind != "BPE":
            how = f"is of the kind {kind}" if kind else f"has no {FILE}"
            raise UserError(
                "Tokens can be left out of a byte pair encoding, where a rare one is spelt with two others; "
                f"this model's tokenizer {how}. {INSTEAD}"
            )
        found = Vocabulary(written, config.vocab_size, frozenset())
        named = {i for value in _named(config).values() for i in _ids(value)}
        unmade = {i for token, i in found.ids.items() if token not in found.made}
        added = {token["id"] for token in written["added_tokens"]}
        unknown = written["model"].get("unk_token")
        unknown = {found.ids[unknown]} if unknown in found.ids else set()
        fixed = (named | unmade | added | unknown) & set(range(config.vocab_size))
        return Vocabulary(written, config.vocab_size, frozenset(fixed))

    @cached_property
    def ids(self) -> dict[str, int]:
        return self.written["model"]["vocab"]

    @cached_property
    def made(self) -> dict[str, tuple[str, str]]:
        """Token -> the two it is merged from, by the first of its merges."""
        found: dict[str, tuple[str, str]] = {}
        for one, other in _merges(self.written):
            if one in self.ids and other in self.ids:
                found.setdefault(one + other, (one, other))
        return found

    @cached_property
    def parts(self) -> dict[int, tuple[int, int]]:
        """Id -> the ids of the two tokens it is merged from."""
        pairs = self.made.items()
        return {self.ids[t]: (self.ids[a], self.ids[b]) for t, (a, b) in pairs if t in self.ids}

    def check(self, going: int) -> None:
        """Raises:
        UserError: so many cannot go, as more must stay.
        """
        left = self.rows - going
        if len(self.fixed) > left:
            raise UserError(
                f"{len(self.fixed):,} of this model's {self.rows:,} tokens must stay (letters, bytes and "
                f"special ones), and only {left:,} would be left. {INSTEAD}"
            )

    def keep(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        """The ids that stay: `count` of them, ascending, int64.

        A token stays together with those that it is merged from, as it could not be reached without.
        Of equal scores the earlier id stays, which is the more frequent token.

        Args:
            scores: `(rows,)`, larger means keep.

        Raises:
            UserError: more tokens than `count` must stay.
        """
        self.check(self.rows - count)
        stays = set(self.fixed)
        # Rows that are no token's, which fill some models' embeddings up, go first of all.
        tokens = self.fixed | set(self.ids.values())
        order = sorted(scores.argsort(descending=True, stable=True).tolist(), key=lambda i: i not in tokens)
        for chosen in order:
            if len(stays) == count:
                break
            needed, open_ = set(), [chosen]
            while open_:
                token = open_.pop()
                if token not in stays and token not in needed:
                    needed.add(token)
                    open_ += self.parts.get(token, ())
            # A rare token that drags in more than there is room for is passed over.
            if len(stays) + len(needed) <= count:
                stays |= needed
        return torch.tensor(sorted(stays))


@dataclass(frozen=True)
class VocabularySubset:
    """A choice of tokens.

    Attributes:
        kept: dense ids that stay, ascending, int64 `(K,)`; the new id of `kept[n]` is n.
    """

    vocabulary: Vocabulary
    kept: torch.Tensor

    @cached_property
    def new(self) -> dict[int, int]:
        """Dense id -> new id."""
        return {old: n for n, old in enumerate(self.kept.tolist())}

    def spelt(self, token: int) -> tuple[int, ...]:
        """New ids that say what a dense id said."""
        if token in self.new:
            return (self.new[token],)
        return tuple(i for part in self.vocabulary.parts[token] for i in self.spelt(part))

    def spell(self, ids: torch.Tensor) -> torch.Tensor:
        """A row of dense ids as new ids; both `(T,)` int64, the new one may be longer."""
        return torch.tensor([i for token in ids.tolist() for i in self.spelt(token)])

    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer without the tokens that go, as it is when it is written and read again.

        Raises:
            UserError: it cannot be read again, or says something else than before.
        """
        with tempfile.TemporaryDirectory() as place:
            tokenizer.save_pretrained(place)
            written = json.loads((Path(place) / FILE).read_text(encoding="utf-8"))
            (Path(place) / FILE).write_text(json.dumps(self._rewritten(written)), encoding="utf-8")
            for name in ("vocab.json", "merges.txt", "added_tokens.json"):
                (Path(place) / name).unlink(missing_ok=True)
            self._renumber(Path(place) / "tokenizer_config.json")
            found = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        self._check(tokenizer, found)
        return found

    def _rewritten(self, written: dict) -> dict:
        """`tokenizer.json` with the tokens that stay, renumbered."""
        model = written["model"]
        vocab = {token: self.new[i] for token, i in model["vocab"].items() if i in self.new}
        model["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
        model["merges"] = [
            [a, b] for a, b in _merges(written) if a in vocab and b in vocab and a + b in vocab
        ]
        for token in written["added_tokens"]:
            token["id"] = self.new[token["id"]]
        self._renumber_processor(written.get("post_processor"))
        return written

    def _renumber_processor(self, processor: dict | None) -> None:
        """What a tokenizer puts around a text names its tokens by id."""
        if not processor:
            return
        for inner in processor.get("processors", ()):
            self._renumber_processor(inner)
        for token in (processor.get("special_tokens") or {}).values():
            token["ids"] = [self.new[i] for i in token["ids"]]
        for name in ("sep", "cls"):
            if name in processor:
                processor[name][1] = self.new[processor[name][1]]

    def _renumber(self, path: Path) -> None:
        """Older releases also number the added tokens in `tokenizer_config.json`."""
        if not path.exists():
            return
        written = json.loads(path.read_text(encoding="utf-8"))
        added = written.get("added_tokens_decoder")
        if added:
            written["added_tokens_decoder"] = {str(self.new[int(i)]): token for i, token in added.items()}
            path.write_text(json.dumps(written), encoding="utf-8")

    def _check(self, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase) -> None:
        """Every token that stays must be there under its new id, and a text must come back as it was."""
        tokens = before.convert_ids_to_tokens(self.kept.tolist())
        wrong = [t for n, t in enumerate(tokens) if t is not None and after.convert_tokens_to_ids(t) != n]
        text = "The quick brown fox, 1,024 times: naïve café – 東京 ✓\n\tdef f(x): return x"
        one, other = before(text)["input_ids"], after(text)["input_ids"]
        same = before.decode(one, skip_special_tokens=True) == after.decode(other, skip_special_tokens=True)
        if wrong or not same or max(other) >= len(self.kept):
            raise UserError(f"This model's tokenizer cannot be written with fewer tokens. {INSTEAD}")

    def renumber(self, config) -> None:
        """Make `config` name its tokens by their new ids, in place."""
        for name, value in _named(config).items():
            known = [self.new[i] for i in _ids(value) if i in self.new]
            setattr(config, name, known if isinstance(value, list) else next(iter(known), None))

    def apply(self, model: PreTrainedModel) -> None:
        """Cut the rows of the tokens that go out of `model`, in place, and renumber what its config names.

        Raises:
            UserError: the model holds something of the vocabulary's size that its config cannot state.
        """
        with torch.no_grad():
            held = [
                {name: p[self.kept.to(p.device)].clone() for name, p in table.named_parameters()}
                for table in tables_of(model)
            ]
        model.resize_token_embeddings(len(self.kept), mean_resizing=False)
        for table, rows in zip(tables_of(model), held, strict=True):
            for name, row in rows.items():
                getattr(table, name).data.copy_(row)
        for config in (model.config, model.generation_config):
            if config is not None:
                self.renumber(config)
        said, inside = skeleton(model.config), {id(p) for p in blocks_of(model).parameters()}
        shapes = {name: p.shape for name, p in said.named_parameters()}
        for name, weight in model.named_parameters():
            if id(weight) not in inside and shapes.get(name) != weight.shape:
                raise UserError(
                    f"The vocabulary of this model ({model.config.model_type}) cannot be cut: its config "
                    f"does not describe {name} then. {INSTEAD}"
                )


def _merges(written: Mapping) -> list[tuple[str, str]]:
    """A tokenizer's merges; older files write each as one text."""
    found = written["model"]["merges"]
    return [tuple(m.split(" ")) if isinstance(m, str) else (m[0], m[1]) for m in found]


def _named(config) -> dict[str, int | list[int]]:
    """Fields of a config that name tokens by their ids."""
    return {n: value for n, value in vars(config).items() if n.endswith("_token_id") and _ids(value)}


def _ids(value) -> Sequence[int]:
    """The token ids in a field: it may hold one, several or none."""
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]
