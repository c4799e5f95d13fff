"""Special tokens that a tokenizer puts behind every text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANY_TEXT = "a"


def count_at_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens `tokenizer` puts behind a text, such as `</s>` or `[SEP]`.

    They say that a text has ended, so they are dropped wherever a text goes on: from the context of a
    question, from a prompt, from a passage of a longer text. Those before a text stay.
    """
    text = tokenizer(ANY_TEXT, add_special_tokens=False)["input_ids"]
    whole = tokenizer(ANY_TEXT)["input_ids"]
    # Where the text begins among the special tokens; one that has no token says nothing.
    for start in range(len(whole) - len(text) + 1 if text else 0):
        if whole[start : start + len(text)] == text:
            return len(whole) - start - len(text)
    return 0
