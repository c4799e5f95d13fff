"""One model's answer to one prompt, token by token, without a cache: what a model in memory says as it stands
in the middle of a run, whatever was cut out of it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ..checkpoints.load import Loaded
from ..core.finite import check_finite
from ..core.special_tokens import count_at_end
from ..evaluation.requests import chat_text


@dataclass(frozen=True)
class Reply:
    """A text of `tokens` tokens; `ended` where the model ended it."""

    text: str
    tokens: int
    ended: bool


def as_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> torch.Tensor:
    """Token ids of a prompt, `(1, T)`: as a turn of a conversation where the model has a chat template, and
    otherwise as a text to go on with.

    Raises:
        UserError: the template does not take it.
    """
    if tokenizer.chat_template:
        turn = chat_text(tokenizer, [prompt])
        return tokenizer(turn, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    # What is read is to be continued.
    return ids[:, : ids.shape[1] - count_at_end(tokenizer)]


def write(loaded: Loaded, ids: torch.Tensor, tokens: int) -> Generator[int, None, Reply]:
    """The greedy answer to a prompt; yields how many tokens are written.

    Args:
        ids: the prompt, `(1, T)`.
        tokens: the most that it writes.

    Raises:
        UserError: the model's logits are not finite.
    """
    model = loaded.model
    read, ends = ids.to(model.device), ends_of(loaded)
    length = read.shape[1]
    for done in range(1, tokens + 1):
        with torch.inference_mode():
            logits = model(input_ids=read, use_cache=False).logits[:, -1]
            check_finite(logits, "the logits of its answer")
            read = torch.cat([read, logits.argmax(-1, keepdim=True)], 1)
        if int(read[0, -1]) in ends:
            break
        yield done
    written = read[0, length:].tolist()
    text = str(loaded.tokenizer.decode(written, skip_special_tokens=True))
    return Reply(text, len(written), bool(written) and written[-1] in ends)


def ends_of(loaded: Loaded) -> set[int]:
    """Ids of the tokens that end an answer."""
    generation = getattr(loaded.model, "generation_config", None)
    ends = getattr(generation, "eos_token_id", None)
    found = {*ends} if isinstance(ends, list) else {ends}
    return {end for end in (*found, loaded.tokenizer.eos_token_id) if end is not None}
