"""Whole runs that remove heads, channels and halves: in order, to the budget, and resumed alike."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM

from pip_core.checkpoints.nonuniform import is_nonuniform, load_nonuniform
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import GLOBAL
from pip_core.engine import run as run_module
from pip_core.engine.run import run
from pip_core.structure.anatomy import anatomy_of

from .. import tiny, zoo
from ..engine.test_run import cut, timeless

WAYS = {
    "channels": {"units": ("channels",)},
    "both": {"units": ("heads", "channels"), "target": 0.25},
    "global": {"units": ("heads", "channels"), "allocation": GLOBAL, "plain": False},
    "halves": {"units": ("attention", "mlp"), "plain": False},
}


@pytest.fixture(scope="module", params=list(WAYS))
def way(request, recipe):
    return (
        recipe.replace(step=0.07, **WAYS[request.param])
        if request.param != "halves"
        else recipe.replace(**WAYS["halves"])
    )


@pytest.fixture(scope="module")
def whole(way, tmp_path_factory):
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("width") / "model"
    return list(run(way, out)), out


def test_a_run_to_its_budget(way, whole):
    events, _ = whole
    assert isinstance(events[-1], ev.Finished), events[-1]
    started = tiny.only(events, ev.Started)[0]
    removed = started.parameters - events[-1].parameters
    block = anatomy_of(zoo.CONFIGS["llama"]()).blocks[0]
    costs = dict(zip(("attention", "mlp"), block.half_parameters, strict=True))
    costs |= {kind: width.cost for kind, width in block.widths.items()}
    # Where all blocks give alike, a unit is one of each of them; channels settle what heads leave.
    slack = 5 * costs["channels"] if way.plain else max(costs[k] for k in way.units)
    assert abs(removed - way.target * started.parameters) <= slack / 2
    assert [e.iteration for e in tiny.only(events, ev.Evaluated)] == list(range(events[-1].iterations + 1))
    assert len(tiny.only(events, ev.Removed)) == events[-1].iterations > 1
    assert {e.kind for e in tiny.only(events, ev.Scored)} == set(way.units)


def test_the_export_has_what_was_promised(way, whole):
    events, out = whole
    uneven = bool(tiny.only(events, ev.Exported)[0].uneven)
    assert uneven == is_nonuniform(out) == (not way.plain)
    model = load_nonuniform(out) if uneven else AutoModelForCausalLM.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == events[-1].parameters
    if not uneven:
        lost = sum(
            len(u.units) for e in tiny.only(events, ev.Removed) for u in e.units if u.kind == "channels"
        )
        assert model.config.intermediate_size == 64 - lost // 5
    card = (out / "README.md").read_text()
    assert ("load_nonuniform" in card) == uneven


def test_resumed_alike(way, whole):
    events, _ = whole
    history = cut(events, ev.Removed, 0)
    rest = list(run(way, history=history))
    assert timeless(history) + timeless(rest) == timeless(events)


@pytest.mark.parametrize("units", [("attention",), ("channels",)])
def test_a_plain_run_refuses_what_is_not_plain(recipe, units):
    asked = recipe.replace(units=units, allocation=GLOBAL, target=0.1)
    with pytest.raises(UserError, match="ordinary checkpoint"):
        run_module.check(asked)
    (*_, last) = run(asked)
    assert isinstance(last, ev.Failed)
    assert "Nearest to it is" in last.message
