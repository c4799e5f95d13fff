"""The benchmark of scoring: each variant in a process of its own."""

from __future__ import annotations

from pip_core.core.recipe import DEMO
from pip_core.engine.scoring_benchmark import FOOTPRINT, in_a_process


def test_a_process_of_its_own_knows_the_settings_of_a_recipe():
    found = in_a_process(FOOTPRINT, DEMO, 1)
    assert found["dtype"] == "bfloat16"
    assert found["peak"] > found["weights"] > 0
