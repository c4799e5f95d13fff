"""Blocks and their channels in one ranking, by score per parameter."""

from __future__ import annotations

import pytest
import torch

from pip_core.budget.allocation import choose, largest_relative_score
from pip_core.budget.budget import budget_of
from pip_core.checkpoints.nonuniform import load_nonuniform
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import GLOBAL, Recipe
from pip_core.core.units import DEPTH, WIDTH, group
from pip_core.engine import run as run_module
from pip_core.engine.replay import ReplayState
from pip_core.engine.run import run
from pip_core.reporting.run_summary import RunSummary
from pip_core.scoring import METHODS, get_scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.ui.heatmap import likely_next

from .. import tiny, zoo
from ..engine.test_run import cut, timeless
from ..naive import gate_gradient

LLAMA = anatomy_of(zoo.CONFIGS["llama"]())
BLOCK, CHANNEL = LLAMA.blocks[0].parameters, LLAMA.blocks[0].widths["channels"].cost
TOGETHER = {"units": ("blocks", "channels"), "allocation": GLOBAL, "plain": False}
TARGET = 0.25


def chosen(target: float, block_scores: list[float], channel_scores, undone=frozenset()) -> list[tuple]:
    """What goes at once; `channel_scores(block)` gives its channels' scores."""
    recipe = Recipe(target=target, step=0.999, **TOGETHER)
    goal, shape = budget_of(recipe, LLAMA, undone), Shape.dense(LLAMA)
    sites = sites_of(LLAMA, shape, recipe.units)
    scores = [
        torch.tensor([block_scores[s.block]]) if s.kind == "blocks" else channel_scores(s.block)
        for s in sites
    ]
    found = choose(recipe, goal, 1, 0, sites, scores, undone)
    # What is chosen can go, none of it twice, and meets the target to within one channel.
    left = shape.without(group(found))
    assert abs(LLAMA.parameters - left.parameters(LLAMA) - goal.parameters) <= CHANNEL / 2
    return found


def equal_channels(score: float):
    return lambda block: torch.full((64,), score * CHANNEL)


def test_what_is_cheapest_per_parameter_goes():
    scores = [5.0 * BLOCK, 1.0 * BLOCK, 4.0 * BLOCK, 5.0 * BLOCK, 5.0 * BLOCK]
    target = (BLOCK + 10 * CHANNEL) / LLAMA.parameters
    found = chosen(target, scores, equal_channels(2.0))
    assert [u for u in found if u[0] == "blocks"] == [("blocks", 1, 0)]
    assert sum(kind == "channels" for kind, _, _ in found) == 10
    # Channels dearer than any block: only what no block can make up is left to them.
    assert [u[1] for u in chosen(2 * BLOCK / LLAMA.parameters, scores, equal_channels(9.0))] == [1, 2]


def test_how_near_is_told_kind_by_kind():
    block, kept = ("blocks", 1, 0), ("blocks", 2, 0)
    channel, largest = ("channels", 0, 3), ("channels", 0, 4)
    values = {block: 200.0, kept: 800.0, channel: 1.0, largest: 2.0}
    assert largest_relative_score([block, channel], values) == (1.0, 0.5)
    assert largest_relative_score([block], values) == (200.0, 0.25)
    assert largest_relative_score([channel], dict.fromkeys(values, 0.0)) == (0.0, 1.0)


def test_parts_that_went_first_are_counted_once():
    """Half of block 3's channels are worthless, and so is the block: it goes whole."""

    def channels(block: int) -> torch.Tensor:
        found = torch.full((64,), 9.0 * CHANNEL)
        found[: 32 if block == 3 else 0] = 0.0
        return found

    scores = [8.0 * BLOCK] * 3 + [1.0 * BLOCK, 8.0 * BLOCK]
    found = chosen((BLOCK + 3 * CHANNEL) / LLAMA.parameters, scores, channels)
    assert ("blocks", 3, 0) in found
    assert sum(kind == "channels" for kind, _, _ in found) == 3
    assert all(block != 3 for kind, block, _ in found if kind == "channels")


def test_what_was_taken_back_stays_and_its_block_too():
    undone = frozenset({("channels", 1, 5)})
    scores = [5.0 * BLOCK, 0.0, 5.0 * BLOCK, 5.0 * BLOCK, 5.0 * BLOCK]
    found = chosen(BLOCK / LLAMA.parameters, scores, equal_channels(2.0), undone)
    assert ("blocks", 1, 0) not in found
    assert ("channels", 1, 5) not in found


def test_the_last_block_stays():
    found = chosen(3.5 * BLOCK / LLAMA.parameters, [0.0] * 5, equal_channels(1.0))
    assert sum(kind == "blocks" for kind, _, _ in found) < 5


def test_gates_are_compared_as_one_number_a_unit(tokenizer):
    """Against gates of ones, feature by feature, added up."""
    model, pairs = zoo.build("llama"), tiny.pairs_for(tokenizer, 3)
    sites = sites_of(LLAMA, Shape.dense(LLAMA), ("blocks", "channels"))
    found = tiny.scores(get_scorer("pip-gate"), model, sites, pairs)
    places, totals = [(s.kind, s.position, s.size) for s in sites], [torch.zeros(s.size) for s in sites]
    for pair in pairs:
        clean, other = (gate_gradient(model, view, places) for view in (pair.clean, pair.perturbed))
        for total, ours, theirs in zip(totals, clean, other, strict=True):
            for word in range(len(pair.clean.text.split())):
                a = ours[pair.clean.words == word].sum(dim=(0, 2))
                b = theirs[pair.perturbed.words == word].sum(dim=(0, 2))
                total += (a - b).abs()
    for ours, expected in zip(found, totals, strict=True):
        torch.testing.assert_close(ours, expected / len(pairs), rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def together(recipe) -> Recipe:
    return recipe.replace(target=TARGET, step=0.07, refit=True, **TOGETHER)


@pytest.fixture(scope="module")
def whole(together, tmp_path_factory):
    """An undisturbed run, refitted, its export really verified."""
    out = tmp_path_factory.mktemp("together") / "model"
    return list(run(together, out)), out


def test_a_run_meets_its_target_and_loads(together, whole):
    events, out = whole
    assert isinstance(events[-1], ev.Finished), events[-1]
    started = tiny.only(events, ev.Started)[0]
    assert abs(started.parameters - events[-1].parameters - TARGET * started.parameters) <= CHANNEL / 2
    # Both kinds are scored every time, and both were taken.
    assert {e.kind for e in tiny.only(events, ev.Scored)} == {"blocks", "channels"}
    gone = {u.kind for e in tiny.only(events, ev.Removed) for u in e.units}
    assert gone == {"blocks", "channels"}
    assert tiny.only(events, ev.Exported)[0].uneven
    assert sum(p.numel() for p in load_nonuniform(out).parameters()) == events[-1].parameters


@pytest.mark.parametrize("number", [0, 1, 2])
def test_resumed_alike(together, whole, number):
    events, _ = whole
    history = cut(events, ev.Removed, number)
    assert timeless(history) + timeless(list(run(together, history=history))) == timeless(events)


def test_what_makes_a_run_again_that_stopped_early(together, whole):
    events, _ = whole
    goal, removals = budget_of(together, LLAMA), tiny.only(events, ev.Removed)
    past = ReplayState.of(events)
    assert past.reproducing_recipe(together, goal, removals, True, 0.75) == together
    assert past.reproducing_recipe(together, goal, removals[:1], False, 0.9).target == pytest.approx(0.1)


def test_nothing_is_said_to_go_next_where_parts_may(whole):
    events, _ = whole
    story = RunSummary()
    story.apply((event, 0.0) for event in cut(events, ev.Removed, 1))
    assert story.scored
    assert likely_next(story) is None


@pytest.mark.parametrize("name", [m.name for m in METHODS if {*DEPTH, *WIDTH} == set(m.kinds)])
def test_only_methods_whose_scores_share_a_scale(together, name):
    asked = together.replace(method=name)
    if get_scorer(name).comparable_scores:
        assert "blocks and channels" in run_module.check(asked).budget.description
        return
    with pytest.raises(UserError, match="on scales of their own"):
        run_module.check(asked)


def test_no_ordinary_checkpoint(together):
    with pytest.raises(UserError, match=r"Nearest to it is .*units: blocks, channels; allocation: equal"):
        run_module.check(together.replace(plain=True))


def test_as_much_as_blocks_hold_can_go(together):
    anatomy = LLAMA
    most = 4 * BLOCK / anatomy.parameters
    assert run_module.check(together.replace(target=most - 0.001)).budget.share == pytest.approx(most - 0.001)
    with pytest.raises(UserError, match="out of reach"):
        run_module.check(together.replace(target=most + 0.01))
