"""A target in bytes is a share of the parameters; one in speed is measured, and kinds pay by their gain."""

from __future__ import annotations

import pytest
import torch

from pip_core.core import events as ev
from pip_core.core.decisions import is_open, settled
from pip_core.core.errors import UserError
from pip_core.core.settings import MEASURED
from pip_core.engine import speed_of_shapes
from pip_core.engine.run import check, run
from pip_core.engine.stages.aim import Aimed
from pip_core.engine.stages.divide import Divided
from pip_core.inspection.latency import Spread
from pip_core.planning.estimate import anatomy_for

from ..tiny import only, recipe_for


@pytest.fixture
def by_size(monkeypatch):
    """A clock by which blocks take four times as long as their size says; how far apart its rounds are."""
    unsteady = [0.0]

    def time(model) -> float:
        blocks = sum(p.numel() for p in model.model.layers.parameters())
        return sum(p.numel() for p in model.parameters()) + 3 * blocks

    def ratios(dense, other, prompt_tokens, new_tokens, rounds):
        with torch.inference_mode():  # a model of that shape is one
            assert other(torch.zeros(1, 3, dtype=torch.long)).logits.isfinite().all()
        yield rounds
        ratio = time(dense) / time(other)
        found = Spread(ratio, ratio - unsteady[0], ratio + unsteady[0])
        return found, found

    monkeypatch.setattr(speed_of_shapes, "speed_ratios", ratios)
    return unsteady


def test_bytes_are_a_share_of_the_parameters(llama_folder):
    recipe = recipe_for(llama_folder, units=("channels",), target_bytes="300 kB")
    parameters = anatomy_for(recipe.model).parameters
    found = check(recipe).recipe
    assert found.target == pytest.approx(1 - 300_000 / (4 * parameters), abs=1e-6)
    assert found.target_bytes == ""
    with pytest.raises(UserError, match="no more than 1GB"):
        check(recipe.replace(target_bytes="1GB"))
    with pytest.raises(UserError, match="nothing would be left of it"):
        check(recipe.replace(target_bytes="0.000001 kB"))
    with pytest.raises(UserError, match="such as 200MB"):
        recipe.replace(target_bytes="a lot")
    with pytest.raises(UserError, match=r"decode:1\.3"):
        recipe.replace(target_bytes="", target_speedup="decode:0.9")
    with pytest.raises(UserError, match="one target"):
        recipe.replace(target_speedup="decode:1.3")


@pytest.mark.parametrize("vocabulary", [0.0, 0.25, MEASURED])
def test_as_much_goes_as_makes_it_so_fast(llama_folder, by_size, vocabulary):
    recipe = recipe_for(
        llama_folder,
        units=("channels",),
        method="pip-gate",
        vocabulary=vocabulary,
        target_speedup="decode:1.2",
        division_windows=2,
        measure="end",
    )
    events = list(run(recipe))
    assert isinstance(events[-1], ev.Finished), events[-1]
    (aimed,) = only(events, Aimed)
    assert all(ratio > 1 for _, _, ratio, _, _ in aimed.timed)
    found = settled(recipe, events)
    assert not is_open(found)
    if vocabulary == MEASURED:
        assert {kind for kind, *_ in aimed.timed} == {"tokens", "channels"}
        (divided,) = only(events, Divided)
        what, times = divided.speed
        assert (what, times) == ("decode", pytest.approx(1.2, abs=0.02))
    else:
        assert aimed.timed[-1][2] == pytest.approx(1.2, abs=0.02)
    # What is measured at the end is what was decided; a resumed run has nothing to time.
    dense = only(events, ev.Evaluated)[0].parameters
    assert 1 - events[-1].parameters / dense == pytest.approx(found.target, abs=0.01)
    assert not only(list(run(recipe, history=events)), Aimed)


def test_what_no_removal_makes_so_fast_is_refused(llama_folder, by_size):
    recipe = recipe_for(llama_folder, units=("channels",), target_speedup="prefill:3", vocabulary=0.0)
    assert "3 times as fast is out of reach" in list(run(recipe))[-1].message
    by_size[0] = 2.0
    assert "cannot measure" in list(run(recipe.replace(target_speedup="prefill:1.1")))[-1].message
    with pytest.raises(UserError, match="blocks lose the same"):
        check(recipe.replace(allocation="global", plain=False))
