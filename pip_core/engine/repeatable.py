"""Stages with a command of their own, since they can be done in a run whose removals are made: the
name of the stage, and what the command does. Apart from the stages, whose libraries take long to import."""

from __future__ import annotations

COMMAND_OF_STAGE = {
    "recover": "Let what is left of a run's model learn from the dense model, and export it anew.",
}
