"""What a model writes after one prompt, at a point of its run: a sample of what it is like.

Whoever shows a run shows them without knowing the stage that asked.
"""

from __future__ import annotations

from .events import Event, event


@event
class Sampled(Event):
    """What the model writes after `prompt`, greedily, with `iteration` removals made: `tokens` tokens.

    Iteration 0 is the dense model. `final` tells the answer of the finished model, after the stages that
    follow the last removal, from the one before them. `ended` says that it came to an end by itself.
    """

    superseded_by_undo = True

    iteration: int
    prompt: str
    text: str
    tokens: int
    final: bool = False
    ended: bool = False

    def sentence(self) -> str:
        who = "The whole model" if not self.iteration else "The finished model" if self.final else "It"
        words = " ".join(self.text.split())
        return f"{who} answers “{words}{'' if self.ended else ' …'}”."
