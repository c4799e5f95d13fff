"""Whole runs on a second device, which refuses what was left behind on the processor."""

from __future__ import annotations

import pytest

from pip_core.core import accelerator
from pip_core.core.events import Finished
from pip_core.core.settings import MEASURED
from pip_core.engine.run import run

from ..far import FAR, OnFar

DIVIDED = {"units": ("channels",), "vocabulary": MEASURED, "division_windows": 3, "target": 0.4, "step": 0.2}
REFITTED = {"refit": True, "refit_tokens": 6144, "measure": "end"}
RECOVERED = {"recover": "short", "recover_tokens": 2048, "recover_text": "calibration"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (DIVIDED | REFITTED, {"Divided", "Removed", "VocabularyPruned", "Refitted"}),
        (REFITTED | RECOVERED, {"Removed", "Refitted", "Recovered"}),
    ],
    ids=["channels and tokens", "blocks"],
)
def test_nothing_of_a_run_is_left_on_the_processor(recipe, monkeypatch, changes, expected) -> None:
    monkeypatch.setattr(accelerator, "devices", lambda: [FAR])
    assert accelerator.device() == FAR
    with OnFar():
        events = list(run(recipe.replace(**changes)))
    assert isinstance(events[-1], Finished), events[-1]
    assert expected <= {type(event).__name__ for event in events}
