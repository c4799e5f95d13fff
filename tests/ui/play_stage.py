"""A stage of another package, as a plugin brings it: loaded by PIP_STUDIO_STAGES, in no list of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pip_core.core.events import Event, StageResult, event
from pip_core.core.settings import AUTO, Auto, Settings, setting, switch, whole
from pip_core.engine.stage import Stage
from pip_core.reporting.description import Description


class PlaySettings(Settings):
    play: bool | Auto = switch(AUTO, "whether to play", label="Play with toys")
    play_share: Annotated[float, Field(ge=0, lt=1)] = setting(0.25, "share of toys", "a number below 1")
    play_count: int = whole(3, 0, 10, "toys to play with")


@event
class Played(StageResult):
    toys: int
    removed_description: str = ""

    def sentence(self) -> str:
        return f"Played with {self.toys} toys."


class Play(Stage):
    name = "play"
    title = "Playing"
    Settings = PlaySettings
    Result = Played
    after = "refit"
    changes_model = True

    def run(self, state) -> Iterator[Event]:
        yield Played(len(state.removals), 3)

    @classmethod
    def describe(cls, result: Event) -> Description:
        return Description(
            result.sentence(),
            f"{result.toys} toys",
            (),
            "Toys",
            (("first", ("ball", "kite")),),
            "All were kept.",
        )
