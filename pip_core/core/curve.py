"""Curves that a stage draws while it works, point by point: what it is at, in numbers.

Whoever shows a run draws them without knowing the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .events import Event, event


@event
class CurvePoint(Event):
    """A point of each curve of a chart.

    `title` names the chart, `x_name` and `y_name` its axes; `values` are (name of the curve, its value at
    `x`). Where quantities differ a name begins with its own and a comma ("divergence, held-out text"), and
    each has an axis; one that only marks points of another begins with that one's name and a colon
    ("channels: chosen"). `note` says more in words ("212 tokens/s"). `iteration` as in `StageResult`.
    """

    superseded_by_undo, of_the_end = True, True

    iteration: int
    title: str
    x_name: str
    y_name: str
    x: float
    values: tuple[tuple[str, float], ...]
    note: str = ""

    def sentence(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values)
        note = f" ({self.note})" if self.note else ""
        return f"{self.title}, {self.x:,.0f} {self.x_name}: {values}{note}."


Curves = Mapping[str, Sequence[CurvePoint]]


def with_point(curves: Curves, point: CurvePoint) -> Curves:
    """Title -> points, with one more. What lies behind it was drawn by an earlier attempt, which went further
    than what it left behind."""
    kept = [p for p in curves.get(point.title, ()) if p.x < point.x and p.iteration == point.iteration]
    return MappingProxyType({**curves, point.title: (*kept, point)})
