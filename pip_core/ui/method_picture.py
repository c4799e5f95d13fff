"""See the method: what a run's method looked at, what it found and what left, for a picture that moves.

The browser draws it (`assets/method.js`): texts enter, every block lights up by its score, the least
important leaves, and the rest is scored again. All of it is the run's own: its scores, its removals, and a
passage of its calibration text, misspelt as its recipe says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..core import events as ev
from ..core.errors import UserError
from ..core.figures import percent
from ..core.recipe import Recipe
from ..core.units import BLOCKS, DEPTH, TITLES
from ..data.preview import preview
from ..reporting.messages import describe_units
from ..reporting.run_summary import RunSummary
from ..scoring import get_scorer
from ..structure.anatomy import Anatomy
from .heatmap import FLOOR
from .importance import is_one
from .looking import KNOWN_TEXTS
from .shares import removed_shares

# Iterations that are played; what follows them is shown at once.
PLAYED = 3
# Characters of the passage that is shown.
CHARACTERS = 72
# A text in pieces, each with whether it was changed.
Pieces = list[tuple[str, bool]]


def method_picture(summary: RunSummary, recipe: Recipe | None, anatomy: Anatomy | None) -> dict[str, Any]:
    """Everything that the picture of a run shows; no `steps` before its first iteration is decided.

    Args:
        anatomy: of the dense model; without it the share of a block that its channels were is not known.
    """
    played = [r for r in summary.removals if any((r.iteration, kind) in summary.scored for kind in TITLES)][
        :PLAYED
    ]
    if summary.started is None or recipe is None or not played:
        return {"steps": []}
    scorer = get_scorer(summary.started.method)
    reads = 2 if scorer.perturbs else 1 if scorer.cost(1) else 0
    words = [_leaves(describe_units(r.units), scorer.perturbs) for r in played]
    so_far = "In the end" if isinstance(summary.ending, ev.Finished) else "So far"
    again = "" if is_one(summary) else "The rest is scored again, iteration after iteration. "
    end = f"{again}{so_far}: {summary.removed_description} removed."
    steps = [
        {"lit": _lit(summary, r.iteration), "gone": _gone(summary, anatomy, r.iteration), "words": said}
        for r, said in zip(played, words, strict=True)
    ]
    return {
        "blocks": summary.started.blocks,
        "views": _views(recipe, reads),
        "count": reads,
        "reads": _reads(reads),
        "lights": "Each block lights up by its score: pale = least important.",
        "steps": steps,
        "gone": _gone(summary, anatomy, len(summary.removals)),
        "end": end,
        "method": scorer.title,
        "summary": scorer.summary,
        "alternative": " ".join([scorer.summary, _reads(reads), _extremes(summary), *words, end]),
    }


def _reads(texts: int) -> str:
    if texts == 2:
        return "The model reads a text and its misspelt twin."
    return "The model reads a text." if texts else "No text is read."


def _leaves(what: str, compares: bool) -> str:
    least = "tells the two texts apart least" if compares else "scores lowest"
    return f"What {least} is removed: {what}."


def _extremes(summary: RunSummary) -> str:
    """The first iteration's highest and lowest score in words; empty where it was not scored."""
    first = [event.scores for (iteration, _), event in summary.scored.items() if iteration == 1]
    found = [(s, b) for scores in first for b, s in enumerate(scores) if s is not None]
    if not found:
        return ""
    low, high = min(found), max(found)
    share = percent(low[0] / (high[0] or 1))
    return f"Block {high[1]} scores highest, block {low[1]} lowest ({share} of that)."


def _lanes(summary: RunSummary) -> tuple[str, ...]:
    """The kinds that are drawn above one another; whole blocks are one with what is removed of them."""
    kinds = summary.units
    return (BLOCKS,) if BLOCKS in kinds else kinds


def _lane(summary: RunSummary, kind: str) -> int:
    lanes = _lanes(summary)
    return 0 if lanes == (BLOCKS,) else lanes.index(kind)


def _lit(summary: RunSummary, iteration: int) -> list[list[float | None]]:
    """How bright each block is in an iteration, lane by lane: 0 to 1, None where it has no score."""
    blocks = summary.blocks
    lit: list[list[float | None]] = [[None] * blocks for _ in _lanes(summary)]
    for (at, kind), event in summary.scored.items():
        if at != iteration:
            continue
        top = max((s for s in event.scores if s is not None), default=0.0) or 1.0
        logs = [None if s is None else math.log10(max(s / top, FLOOR)) for s in event.scores]
        lowest = min((v for v in logs if v is not None), default=-1.0) or -1.0
        lane = lit[_lane(summary, kind)]
        for block, value in enumerate(logs):
            if value is not None:
                lane[block] = round(1 - value / lowest, 2)
    return lit


def _gone(summary: RunSummary, anatomy: Anatomy | None, iteration: int) -> list[list[float]]:
    """The share of each block that is removed by the end of an iteration, lane by lane."""
    blocks = summary.blocks
    gone = [[0.0] * blocks for _ in _lanes(summary)]
    for (at, kind), shares in removed_shares(summary, anatomy).items():
        if at == iteration:
            for block, share in shares.items():
                gone[_lane(summary, kind)][block] = round(share, 3)
    for removal in summary.removals:
        for units in removal.units:
            if removal.iteration <= iteration and units.kind in DEPTH:
                gone[_lane(summary, units.kind)][units.block] = 1.0
    return gone


def _views(recipe: Recipe, count: int) -> list[Pieces]:
    """A passage of the calibration text, and its misspelt twin where the method compares the two; none of a
    text that is not shipped, which only another process may read. The model and the questions may be any."""
    if not count or recipe.calibration not in KNOWN_TEXTS:
        return []
    try:
        found = _passage(recipe.calibration, recipe.kinds, recipe.rate, recipe.seed)
    except UserError:
        return []
    return list(found[:count])


@lru_cache(maxsize=32)
def _passage(calibration: str, kinds: Sequence[str], rate: float, seed: int) -> tuple[Pieces, Pieces]:
    settings = {"calibration": calibration, "kinds": kinds, "rate": rate, "seed": seed}
    found = preview(Recipe().replace(**settings), CHARACTERS)
    changed = {number: (before, after) for number, before, after in found.edits}
    clean: Pieces = []
    other: Pieces = []
    end = 0
    for number, (start, stop) in enumerate(found.words):
        between, word, end = found.text[end:start], found.text[start:stop], stop
        before, after = changed.get(number, ("", ""))
        head, _, tail = word.partition(before) if before else (word, "", "")
        for pieces, middle in ((clean, before), (other, after)):
            pieces += [(between + head, False), *([(middle, True), (tail, False)] if middle else [])]
    return clean, other
