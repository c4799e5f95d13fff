"""The verdict on a finished run: how much smaller the model is, and whether it is still good for anything."""

from __future__ import annotations

from html import escape

from ..core import events as ev
from ..core.figures import percent
from ..engine.stages import describe
from ..evaluation.statistics import retained
from ..reporting.run_summary import RunSummary
from .difference_text import above_guessing, paired_change
from .html import empty, press

# Kept above guessing, and perplexity over the dense model's, from which on a verdict is not good, or bad.
WORSE, BAD = 0.9, 0.5
WORSE_PERPLEXITY, BAD_PERPLEXITY = 2.0, 10.0
# Tone -> what it means, beside the figures.
WORDS = {
    "good": "",
    "worse": "A noticeable loss. Recovery training or a lower target keeps more.",
    "bad": "Most of what the model could do is lost. Choose a lower target, or another method.",
}


def tone(summary: RunSummary) -> str:
    """How good what is left of a model is, errors of the measurements allowed for: a key of `WORDS`."""
    dense, now = summary.dense, summary.latest
    if dense is None or now is None or now.of_dense:
        return "good"
    kept, surprise = retained(dense, now), now.perplexity / dense.perplexity
    share = 1.0 if kept.above_chance is None else kept.above_chance + 2 * (kept.above_chance_se or 0.0)
    if share < BAD or surprise > BAD_PERPLEXITY:
        return "bad"
    return "worse" if share < WORSE or surprise > WORSE_PERPLEXITY else "good"


def banner(summary: RunSummary, state: str, run_id: str = "") -> str:
    """The verdict in one line, and what it rests on in another. While a run is running its place is kept.

    Args:
        run_id: of a run whose link is offered beside the verdict; empty where none is.
    """
    dense, now = summary.dense, summary.latest
    done = state == "finished" and isinstance(summary.ending, ev.Finished)
    if not done or dense is None or now is None or now.of_dense:
        return f"<div class='banner'>{empty('The verdict appears here when the run has finished.')}</div>"
    kept, found = retained(dense, now), tone(summary)
    smaller = f"<b>{percent(1 - now.parameters / dense.parameters, 0)}</b> smaller"
    if kept.above_chance is None:
        keeps = "the questions cannot tell, because the whole model only guesses"
    else:
        keeps = f"keeps <b>{above_guessing(kept)}</b> above guessing"
    told = [describe(result).headline for result in summary.results.values()]
    others = "".join(f" · {escape(words)}" for words in told if words)
    accuracy = f"{percent(dense.accuracy)} → {percent(now.accuracy)}"
    notes = [
        f"Accuracy {accuracy}, a change of {paired_change(dense, now)}",
        f"perplexity {dense.perplexity:,.1f} → {now.perplexity:,.1f}",
    ]
    if kept.left_out and kept.above_chance is not None:
        notes.append(f"not counted: {', '.join(kept.left_out)}, where the whole model only guesses")
    early = ""
    if summary.early:
        early = f" Exported after {len(summary.removals)} of {summary.planned} iterations."
    share = f" {press('share', run_id, 'Share', 'Copy the link of this run')}" if run_id else ""
    return (
        f"<div class='banner {found}'><p class='headline'>{smaller} · {keeps}{others}{share}</p>"
        f"<p class='line'>{escape(WORDS[found] + early)} {escape(' · '.join(notes))}.</p></div>"
    )
