"""Two models answering one prompt, side by side."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer

from ..checkpoints.load import Loaded, load
from ..core.errors import UserError
from ..core.progress import drain


@lru_cache(maxsize=2)
def _model(reference: str, stamp: float) -> Loaded:
    """Load a model, or take it from the last two; `stamp` tells a rewritten folder from the old."""
    return drain(load(reference))


@dataclass(frozen=True)
class Answer:
    """What a model has written so far: about `tokens` pieces in `seconds` (0 before the first)."""

    text: str
    tokens: int
    seconds: float

    @property
    def speed(self) -> str:
        """In words."""
        return f"{self.tokens / self.seconds:.1f} tokens/s" if self.seconds and self.tokens > 1 else ""


def both(dense: str, pruned: str, stamp: float) -> tuple[Loaded, Loaded]:
    """The two models of a run, loaded or taken from the last two.

    Args:
        stamp: changes when the pruned folder was written anew (its modification time).

    Raises:
        UserError: a model that does not load.
    """
    return _model(dense, 0.0), _model(pruned, stamp)


def answers(
    dense: str, pruned: str, stamp: float, prompt: str, tokens: int = 64
) -> Iterator[tuple[Answer, Answer]]:
    """Both models' greedy answers as they grow: (dense, pruned).

    They write at the same time, so their speeds compare, but are not what one alone would reach.

    Args:
        dense, pruned: model references.
        stamp: changes when the pruned folder was written anew (its modification time).
        tokens: how many each may write.

    Raises:
        UserError: an empty prompt, or a model that does not load.
    """
    if not prompt.strip():
        raise UserError("Write a prompt first.")
    streams = [_Stream(m.model, m.tokenizer, prompt, tokens) for m in both(dense, pruned, stamp)]
    while any(not s.done for s in streams):
        for stream in streams:
            if not stream.done:
                stream.advance()
        yield streams[0].answer, streams[1].answer


class _Stream:
    """One model writing in a thread of its own; `advance` waits for its next piece."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int
    ) -> None:
        self.answer, self.done = Answer("", 0, 0.0), False
        if tokenizer.chat_template:
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        encoded = tokenizer(prompt, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
        self._pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._fault: Exception | None = None
        self._began = 0.0
        settings = {
            "input_ids": encoded["input_ids"].to(model.device),
            "attention_mask": encoded["attention_mask"].to(model.device),
            "max_new_tokens": tokens,
            "do_sample": False,
            "streamer": self._pieces,
        }
        threading.Thread(target=self._write, args=(model, settings), daemon=True).start()

    def _write(self, model: PreTrainedModel, settings: dict) -> None:
        # Both models write at once: half the cores each, or they would wait for one another.
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        try:
            model.generate(**settings)
        except Exception as error:  # told by `advance`, in the reader's thread
            self._fault = error
            self._pieces.end()

    def advance(self) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            self._began = self._began or time.monotonic()
            # The streamer hands out text when a word is whole, and an empty piece for a token before that.
            told = self.answer
            self.answer = Answer(told.text + piece, told.tokens + 1, time.monotonic() - self._began)
            return
        self.done = True
        if self._fault is not None:
            raise UserError(f"The model could not answer: {self._fault}")
