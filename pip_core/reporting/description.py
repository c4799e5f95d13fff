"""What a stage says of its result, for whoever shows it: log, model card, tables, page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """A stage's result in words.

    Attributes:
        sentence: one plain sentence, for the log.
        summary: a few words, for a row of a table ("11,696 tokens").
        card: lines of markdown for the model card; empty where the card need not name it.
        heading, examples, note: for a reader who looks closer: a title, examples by label, and what they
            mean.
    """

    sentence: str
    summary: str = ""
    card: tuple[str, ...] = ()
    heading: str = ""
    examples: tuple[tuple[str, tuple[str, ...]], ...] = ()
    note: str = ""
