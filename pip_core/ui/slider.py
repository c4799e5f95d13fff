"""What the slider needs of a run: at every iteration the answer, what is left of each block, and the figures.

The browser draws it (`assets/slider.js`), so that dragging asks nobody.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from ..core.events import Evaluated
from ..core.figures import percent
from ..core.sample import Sampled
from ..evaluation.statistics import retained
from ..reporting.messages import describe_units
from ..reporting.run_summary import RunSummary
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from .difference_text import above_guessing
from .network_map import halves_of, kept_of

WORD = re.compile(r"\S+\s*")
# A place of the slider, a step of a run.
Point = dict[str, Any]


def slider(summary: RunSummary, anatomy: Anatomy | None, name: str = "") -> dict[str, Any]:
    """Everything the slider shows of a run.

    Args:
        anatomy: of the dense model; None before it is known.
        name: of the run, for the picture that people share.
    """
    started, dense = summary.started, summary.dense
    if started is None or dense is None or anatomy is None:
        return {"points": []}
    shapes = [Shape.dense(anatomy)]
    for removal in summary.removals:
        shapes.append(shapes[-1].without(removal.units))
    asked = _asked(summary)
    whole = asked.get((0, False))
    if whole is None and not summary.removals and summary.final is None:
        # The dense model's answer may be on its way: with it the parts stand elsewhere than without.
        return {"points": []}
    points = []
    for iteration, shape in enumerate(shapes):
        if iteration and iteration not in summary.evaluated and (iteration, False) not in asked:
            continue  # measured at the end alone
        removal = summary.removals[iteration - 1] if iteration else None
        left = removal.parameters if removal else started.parameters
        what = f"{describe_units(removal.units)} removed" if removal else "the whole model"
        point = _point(dense, summary.evaluated.get(iteration), asked.get((iteration, False)), whole)
        points.append({**point, **_of(shape, anatomy), "left": left, "what": what})
    if summary.final is not None:
        count = len(summary.removals)
        point = _point(dense, summary.final, asked.get((count, True)) or asked.get((count, False)), whole)
        what = f"{summary.removed_description} removed, finished"
        points.append({**point, **_of(shapes[-1], anatomy), "left": summary.final.parameters, "what": what})
    largest = max(sum(halves_of(block)) for block in anatomy.blocks)
    return {
        "name": name,
        "model": started.model,
        "prompt": whole.prompt if whole else "",
        "whole": started.parameters,
        "target": started.planned_share,
        "planned": max(started.planned, len(summary.removals)) + 1,
        "sizes": [[round(half / largest, 3) for half in halves_of(block)] for block in anatomy.blocks],
        "points": points,
    }


def _asked(summary: RunSummary) -> dict[tuple[int, bool], Sampled]:
    """What was answered to the prompt that was asked last."""
    found = dict(summary.samples)
    prompts = [s.prompt for s in found.values()]
    return {at: s for at, s in found.items() if s.prompt == prompts[-1]}


def _of(shape: Shape, anatomy: Anatomy) -> Point:
    """What is left of every block: shares of its attention and of its MLP."""
    left = {layer.block: layer for layer in shape.layers}
    shares = [kept_of(left.get(number), anatomy) for number in range(len(anatomy.blocks))]
    return {"blocks": [[round(share, 3) for share in pair] for pair in shares]}


def _point(dense: Evaluated, now: Evaluated | None, said: Sampled | None, whole: Sampled | None) -> Point:
    found: Point = {"answer": [], "accuracy": None, "kept": ""}
    if said is not None:
        found["answer"] = marked(whole.text if whole else said.text, said.text)
        found["more"] = not said.ended
    if now is not None:
        found["accuracy"], found["se"] = round(now.accuracy, 5), round(now.accuracy_se, 5)
        found["perplexity"] = round(now.perplexity, 3)
        if now is not dense:
            kept = retained(dense, now)
            found["kept"] = "" if kept.above_chance is None else above_guessing(kept)
            found["accuracies"] = f"{percent(dense.accuracy)} → {percent(now.accuracy)}"
    return found


def marked(dense: str, text: str) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether the dense model's answer has other words there."""
    words, before = WORD.findall(text.strip()), [w.strip() for w in WORD.findall(dense.strip())]
    matcher = difflib.SequenceMatcher(None, before, [w.strip() for w in words], autojunk=False)
    pieces: list[tuple[str, bool]] = []
    for kind, _, _, start, end in matcher.get_opcodes():
        if piece := "".join(words[start:end]):
            pieces.append((piece, kind != "equal"))
    return pieces
