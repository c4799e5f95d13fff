"""How a stage's result is described to people: in the log, the model card, tables and the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """A stage's result in words.

    Attributes:
        sentence: one plain sentence, for the log.
        summary: a few words, for a row of a table ("11,696 tokens").
        card: items of a markdown list in the model card, without the bullet; none where the card does not
            mention the result.
        heading: title of the result's details on the page.
        examples: (label, examples) for these details.
        note: what the examples mean.
        headline: a few words for the verdict on the run ("1.22x faster"); empty where it says nothing of it.
    """

    sentence: str
    summary: str = ""
    card: tuple[str, ...] = ()
    heading: str = ""
    examples: tuple[tuple[str, tuple[str, ...]], ...] = ()
    note: str = ""
    headline: str = ""
