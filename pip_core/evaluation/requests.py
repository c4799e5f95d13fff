"""Tokenising contexts and continuations with lm-evaluation-harness's boundaries.

A request is `(ids, targets)`: the model reads `ids`, and its last `len(targets)` positions predict
`targets`. Beginning-of-text tokens are put where the tokenizer puts them by itself, and those that it puts
at the end of a text are dropped, since every context goes on; a continuation without a context follows the
beginning-of-text (or else end-of-text) token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..core.errors import UserError, shortened
from ..core.special_tokens import count_at_end

# For a model that states no limit, as in lm-evaluation-harness.
DEFAULT_CONTEXT = 2048
# A tokenizer without a limit states a number larger than this as its limit.
NO_LIMIT = 10**12


@dataclass(frozen=True)
class Request:
    """Token ids read, and the token ids to predict at the last positions.

    `cut` is true where the context was too long and lost its beginning.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    cut: bool = False


def context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest input in tokens: the config's limit, or the tokenizer's, or 2048."""
    config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    limit = tokenizer.model_max_length
    return int(limit) if limit and limit < NO_LIMIT else DEFAULT_CONTEXT


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str]) -> str:
    """Turns of a chat, the user's first, as the model's chat template writes them, ready to be answered.

    Raises:
        UserError: the template does not take them.
    """
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    try:
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template may raise what it likes
        reason = shortened(str(error)) or type(error).__name__
        what = "a single question" if len(turns) == 1 else "questions and answers in turn"
        raise UserError(
            f"The model's chat template does not take {what} ({reason}). Correct it in the model's "
            "folder, or delete it: the model then goes on with the prompt as it is."
        ) from error


class Encoder:
    """Tokenises as lm-evaluation-harness does, for a model that reads at most `context` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.tokenizer = tokenizer
        self.context = context
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._at_end = count_at_end(tokenizer)
        self.prefix = end if begin is None else begin
        self._prefix_text = None if self.prefix is None else str(tokenizer.decode(self.prefix))

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """One request per pair of (context, continuation).

        Spaces at the end of a context belong to the continuation. The continuation's tokens are those
        that the tokens of both texts together have beyond the tokens of the context.

        Raises:
            UserError: a continuation without a token of its own, or an empty context and a tokenizer
                without a beginning- or end-of-text token.
        """
        split = []
        for before, after in pairs:
            kept = before.rstrip()
            split.append((kept, before[len(kept) :] + after))
        contexts = self.encode([before for before, _ in split])
        wholes = self.encode([before + after for before, after in split])
        alone = iter(self.encode([after for before, after in split if not before], special=False))
        found = []
        for (before, after), context, whole in zip(split, contexts, wholes, strict=True):
            if before:
                targets = whole[len(context) :]
            else:
                targets = next(alone)
                context = [self._begin()]
                if targets[:1] == context:
                    targets = targets[1:]
            if not targets:
                raise UserError(f"with this model's tokenizer '{after}' has no token of its own.")
            found.append(self._request(context, targets))
        return found

    def windows(self, document: str) -> list[Request]:
        """Requests that predict every token of a document once, in windows of the whole context.

        The first window follows the prefix token; each later one begins with its predecessor's last
        token, the last one reaches back as far as the context allows.

        Raises:
            UserError: the tokenizer has no beginning- or end-of-text token.
        """
        (tokens,) = self.encode([document])
        read = [self._begin(), *tokens]
        found = []
        for start in range(0, len(tokens), self.context):
            end = min(start + self.context, len(tokens))
            # ids[i] is the token before tokens[i].
            first = max(0, end - self.context) if start else 0
            found.append(Request(tuple(read[first:end]), tuple(tokens[start:end])))
        return found

    def _begin(self) -> int:
        if self.prefix is None:
            raise UserError(
                "this model's tokenizer has no beginning- or end-of-text token for a text with nothing "
                "before it."
            )
        return self.prefix

    def _request(self, context: list[int], targets: list[int]) -> Request:
        tokens = context + targets
        ids = tokens[-(self.context + 1) :][:-1]
        return Request(tuple(ids), tuple(targets[-len(ids) :]), len(tokens) > self.context + 1)

    def encode(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Token ids of each text, each as if encoded alone, with nothing at its end.

        Args:
            special: whether the beginning-of-text token is put where the tokenizer puts it. A text that
                already begins with it is not given another.
        """
        begun = [
            not special or (self._prefix_text is not None and t.startswith(self._prefix_text)) for t in texts
        ]
        found: list[list[int]] = [[]] * len(texts)
        for plain in (False, True):
            numbers = [n for n, b in enumerate(begun) if b == plain]
            if numbers:
                batch = [texts[n] for n in numbers]
                ids = self.tokenizer(batch, add_special_tokens=not plain, verbose=False)["input_ids"]
                for number, one in zip(numbers, ids, strict=True):
                    found[number] = one if plain else one[: len(one) - self._at_end]
        return found
