"""Chat with two models side by side: both answer one prompt."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer

from ..checkpoints.load import Loaded
from ..core.device import user_message
from ..core.errors import UserError
from .answer import as_prompt, ends_of


@dataclass(frozen=True)
class Answer:
    """What a model has written so far: about `tokens` tokens in `seconds` (0 before the first).

    Attributes:
        end: empty while it writes; then "own" where the model ended it, "length" where it was stopped.
        turn: whether the model took the prompt as a turn of a conversation; otherwise it went on with it.
    """

    text: str
    tokens: int
    seconds: float
    end: str = ""
    turn: bool = False

    @property
    def speed(self) -> str:
        """Tokens per second in words; empty until it can be told."""
        return f"{self.tokens / self.seconds:.1f} tokens/s" if self.seconds and self.tokens > 1 else ""


def answers(dense: Loaded, pruned: Loaded, prompt: str, tokens: int = 64) -> Iterator[tuple[Answer, Answer]]:
    """Both models' greedy answers as they grow: (dense, pruned).

    Both write at the same time, so their speeds can be compared, but each alone would be faster.

    Args:
        tokens: the most tokens that each writes.

    Raises:
        UserError: an empty prompt, one longer than a model reads, a chat template that does not take it, or a
            model that cannot answer.
    """
    if not prompt.strip():
        raise UserError("Write a prompt first.", "prompt")
    streams = [_Stream(m, prompt, tokens) for m in (dense, pruned)]
    while any(not s.done for s in streams):
        for stream in streams:
            if not stream.done:
                stream.advance()
        yield streams[0].answer, streams[1].answer


class _Pieces(TextIteratorStreamer):
    """A streamer that notes when each piece was written: who reads two of them in turn reads both at the pace
    of the slower one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.times: list[float] = []

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.times.append(time.monotonic())
        super().on_finalized_text(text, stream_end)


class _Stream:
    """One model's answer, generated in a thread; `advance` waits for its next piece."""

    def __init__(self, loaded: Loaded, prompt: str, tokens: int) -> None:
        model, tokenizer, self._loaded = loaded.model, loaded.tokenizer, loaded
        self.answer = Answer("", 0, 0.0, turn=bool(tokenizer.chat_template))
        ids = as_prompt(tokenizer, prompt)
        read = ids.shape[1]
        if read >= loaded.context:
            raise UserError(
                f"The prompt has {read:,} tokens, and the model reads at most {loaded.context:,}, its answer "
                "among them. Write a shorter one.",
                "prompt",
            )
        self._pieces = _Pieces(tokenizer)
        self._fault: Exception | None = None
        self._most = min(tokens, loaded.context - read)
        self._end = ""
        settings = {
            "input_ids": ids.to(model.device),
            "attention_mask": torch.ones_like(ids, device=model.device),
            "max_new_tokens": self._most,
            "do_sample": False,
            "streamer": self._pieces,
        }
        self._writer = threading.Thread(target=self._write, args=(model, settings), daemon=True)
        self._writer.start()

    @property
    def done(self) -> bool:
        return bool(self.answer.end)

    def _write(self, model: PreTrainedModel, settings: dict) -> None:
        # Both models write at once: with half the cores each, they do not wait for one another.
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        try:
            found = model.generate(**settings)  # type: ignore[operator]
            written = found[0, settings["input_ids"].shape[1] :]
            ended = len(written) < self._most or int(written[-1]) in ends_of(self._loaded)
            self._end = "own" if ended else "length"
        except Exception as error:  # raised again by `advance`, in the reader's thread
            self._fault = error
            self._pieces.end()

    def advance(self) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            # The streamer hands out text when a word is complete, and an empty piece for a token before that.
            text, tokens = self.answer.text + piece, self.answer.tokens + 1
            seconds = self._pieces.times[tokens - 1] - self._pieces.times[0]
            self.answer = replace(self.answer, text=text, tokens=tokens, seconds=seconds)
            return
        self._writer.join()
        if self._fault is not None:
            message = user_message(self._fault) or f"The model could not answer: {self._fault}"
            raise UserError(message) from self._fault
        self.answer = replace(self.answer, end=self._end)
