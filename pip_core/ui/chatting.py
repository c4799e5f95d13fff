"""Two models' answers to one prompt side by side, the first word that differs marked. No gradio."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

from ..core.recipe import DEMO
from ..inspection.chat import Answer

# The most tokens that each model writes.
LENGTHS = ("32", "64", "128", "256")
# What suits the model that knows only stories, one that takes turns of a conversation, and any other.
STORIES = (
    "One windy morning Ada, Ben and Clara met under the old oak. Ada had a red kite.",
    "Nora went to the harbour. Felix stayed at the mill. The one at the harbour was",
    "Nora had three apples. Felix gave her four more. Now Nora had",
)
QUESTIONS = (
    "Why is the sky blue? Answer in one sentence.",
    "What is the capital of France?",
    "Write two sentences about the sea.",
)
BEGINNINGS = ("The sky is blue because", "The capital of France is", "Once upon a time there was")
WORD = re.compile(r"\S+")
ENDS = {"own": "ended by itself", "length": "cut at the longest answer"}
SPACE = "<span class='empty'>The answer appears here.</span>"


def suited(model: str, folder: Path) -> tuple[str, ...]:
    """Prompts that a model can do something with.

    Args:
        model: reference of the dense model.
        folder: of the exported one.
    """
    if model == DEMO:
        return STORIES
    return QUESTIONS if takes_turns(folder) else BEGINNINGS


def takes_turns(folder: Path) -> bool:
    """Whether the tokenizer that is saved in a folder has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError):  # none is there, or none that says so
        return False


def first_difference(one: str, other: str, whole: bool = True) -> int | None:
    """The number of the first word in which two texts differ, from 0; None where none does.

    Args:
        whole: whether both are complete. Otherwise the shorter one may go on as the other does.
    """
    words = [WORD.findall(text) for text in (one, other)]
    # The last word may still be growing.
    known = [found if whole else found[:-1] for found in words]
    for number, pair in enumerate(zip(*known, strict=False)):
        if pair[0] != pair[1]:
            return number
    shorter = min(len(found) for found in words)
    return shorter if whole and len(words[0]) != len(words[1]) else None


def nothing_said() -> tuple[str, str]:
    """What stands in the place of the two answers before the first question."""
    return _answer("whole model", Answer("", 0, 0.0), None), _answer("pruned model", Answer("", 0, 0.0), None)


def drawn(prompt: str, dense: Answer, pruned: Answer) -> tuple[str, str, str]:
    """Both answers as far as they are, and what there is to say of them."""
    whole = bool(dense.end and pruned.end)
    at = first_difference(dense.text, pruned.text, whole)
    how = "Asked as a chat message" if dense.turn else "Continued as a text"
    notes = [f"{how}: “{prompt}”"]
    if at is not None:
        notes.append(f"The answers differ from word {at + 1} on (marked).")
    elif whole:
        notes.append("Both say the same, word for word.")
    if whole and dense.seconds and pruned.seconds and min(dense.tokens, pruned.tokens) > 1:
        ratio = (pruned.tokens / pruned.seconds) / (dense.tokens / dense.seconds)
        notes.append(f"The pruned model wrote {ratio:.2f} times as fast, while both ran at once.")
    said = "".join(f"<p class='line'>{escape(note)}</p>" for note in notes)
    return _answer("whole model", dense, at), _answer("pruned model", pruned, at), said


def _answer(who: str, answer: Answer, at: int | None) -> str:
    notes = " · ".join(note for note in (answer.speed, ENDS.get(answer.end, "")) if note)
    body = _marked(answer.text.strip(), at) or SPACE
    return f"<div class='answer'><h3>{who} <small>{escape(notes)}</small></h3><p>{body}</p></div>"


def _marked(text: str, at: int | None) -> str:
    """A text as HTML, its word of a number marked."""
    found = list(WORD.finditer(text))
    if at is None or at >= len(found):
        return escape(text)
    start, stop = found[at].span()
    word = escape(text[start:stop])
    return f"{escape(text[:start])}<mark class='first'>{word}</mark>{escape(text[stop:])}"
