"""A slider beside which more can be typed than it takes. No gradio."""

from __future__ import annotations

from typing import Any


def forgiving(slider: Any) -> Any:
    """A class as gradio's `Slider`, which takes the nearer end for what lies beyond its ends. Gradio's own
    refuses the whole event then, whatever it is about, while the page goes on to show another number."""

    def preprocess(self: Any, payload: float | None) -> float | None:
        inside = payload if payload is None else min(max(payload, self.minimum), self.maximum)
        return inside if inside is None else slider.preprocess(self, inside)

    # Not by a `class` statement, for which gradio writes a file of types beside this one.
    return type.__new__(
        type(slider),
        "Slider",
        (slider,),
        {"preprocess": preprocess, "is_template": True, "__module__": __name__},
    )
