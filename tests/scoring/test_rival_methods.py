"""The rival scoring methods: against their formulas as plain loops, and against what was published."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pip_core.budget.allocation import NOTHING_LEFT, choose
from pip_core.budget.budget import budget_of
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS, DEPTH, EXPERTS, HEADS, MLP, Units
from pip_core.data.perturbation import Pair
from pip_core.engine.run import check, run
from pip_core.planning.estimate import make_plan
from pip_core.scoring import METHODS, entrodrop, get_scorer
from pip_core.scoring.activation_hooks import capture_stream
from pip_core.scoring.moments import Moments
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import Site, sites_of

from .. import naive_rivals as naive
from .. import tiny, zoo
from ..bypass import bypassed

RIVALS = [m for m in METHODS if m.name not in ("pip", "pip-gate")]
FAMILIES = ("llama", "llama-biases", "gpt2", "opt", "gemma2")


@pytest.fixture(scope="module")
def pairs(tokenizer) -> list[Pair]:
    """Five texts, of four domains."""
    found = tiny.pairs_for(tokenizer, 5, window_tokens=40)
    assert [p.domain for p in found] == [0, 1, 2, 3, 0]
    return found


def sites_in(model: PreTrainedModel, *kinds: str) -> list[Site]:
    anatomy = anatomy_of(model.config)
    return sites_of(anatomy, Shape.dense(anatomy), kinds)


def scores(model: PreTrainedModel, name: str, kinds: str | tuple, pairs: list[Pair]) -> list[torch.Tensor]:
    sites = sites_in(model, *((kinds,) if isinstance(kinds, str) else kinds))
    found = tiny.scores(get_scorer(name), model, sites, pairs)
    assert all(s.shape == (t.size,) and s.dtype == torch.float32 for s, t in zip(found, sites, strict=True))
    return found


def test_every_rival_is_here():
    assert {m.name for m in RIVALS} == {*naive.NAIVE, "random"}


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        (name, kind, family)
        for name in naive.NAIVE
        for kind in get_scorer(name).kinds
        for family in FAMILIES
        if kind != EXPERTS and (kind != HEADS or naive.SIZES[family][0])
    ],
)
def test_equals_the_naive_loop(family, name, kind, pairs):
    model = zoo.build(family)
    found, expected = scores(model, name, kind, pairs), naive.NAIVE[name](family, model, kind, pairs)
    assert len({float(e) for part in expected for e in part}) > 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "granite", "bloom"])
@pytest.mark.parametrize("kind", DEPTH)
def test_the_stream_around_a_half_is_what_the_next_norm_reads(family, kind, pairs):
    model, seen = zoo.build(family), {}
    sites = sites_in(model, kind)
    capture_stream(
        model, list(blocks_of(model)), sites, pairs[0].clean.ids, lambda i, *two: seen.update({i: two})
    )
    for index, expected in enumerate(naive.streams(family, model, kind, pairs[0])):
        torch.testing.assert_close(seen[index], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [m.name for m in RIVALS])
def test_kinds_scored_together_score_as_alone(name, pairs):
    model, kinds = zoo.build("llama"), get_scorer(name).kinds
    for together in ((ATTENTION, MLP), (HEADS, CHANNELS)):
        # Entropy's stage begins at another place among other sites; chance draws anew.
        if name in ("entrodrop", "random") or not set(together) <= set(kinds):
            continue
        found = scores(model, name, together, pairs)
        alone = [scores(model, name, kind, pairs) for kind in together]
        expected = [one for two in zip(*alone, strict=True) for one in two]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_random_depends_on_the_seed_and_the_iteration_alone(tokenizer):
    def drawn(seed: int, iteration: int) -> torch.Tensor:
        pairs = tiny.draw(tiny.recipe_for("unused", seed=seed), tokenizer, iteration)
        return torch.cat(scores(zoo.build("llama"), "random", (HEADS, CHANNELS), pairs))

    first = drawn(0, 1)
    assert torch.equal(first, drawn(0, 1))
    assert not torch.equal(first, drawn(0, 2))
    assert not torch.equal(first, drawn(1, 1))
    assert ((first >= 0) & (first < 1)).all()
    assert abs(float(first.mean()) - 0.5) < 0.1


def test_moments_are_those_of_all_values_at_once():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1e4, -3.0])
    moments = Moments.none(3)
    for part in values.split([1, 70, 2, 127]):
        moments.add(part)
    exact = values.double()
    torch.testing.assert_close(moments.variance, exact.var(0), rtol=1e-10, atol=0)
    torch.testing.assert_close(moments.mean_square, exact.square().mean(0), rtol=1e-12, atol=0)


def test_entropy_of_a_gaussian():
    states = 3 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    exact = math.log(2 * math.pi * math.e) + 2 * math.log(3)
    assert entrodrop.entropy(states) == pytest.approx(exact, abs=0.1)


def test_entropy_of_few_states():
    states = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert entrodrop.entropy(states) == pytest.approx(naive.entropy(states), abs=1e-9)


@pytest.mark.parametrize(
    ("sizes", "open_"),
    [
        ((4, 3, 2, 1, 2, 2.5, 5, 6), {3, 4, 5}),  # falls until block 3
        ((1, 2, 3, 4, 5, 6, 7, 8), {2, 3, 4, 5}),  # grows from the start: 0, 1 and the last are spared
        ((8, 7, 6, 5, 4, 3, 2, 1), set()),  # falls throughout
        ((4, 3, 2, 1, 2, 1.5, 5, 6), {3, 4, 5}),  # a dip in the later stage
    ],
)
def test_entrodrop_touches_only_the_later_stage(pairs, monkeypatch, sizes, open_):
    config = LlamaConfig(**{**zoo.SHAPE, "num_hidden_layers": 7})
    model = LlamaForCausalLM(config).eval()
    states = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))

    def watch(model, blocks, sites, ids, on_activation):
        for index in range(len(sites)):
            on_activation(index, states * sizes[index], states * sizes[index + 1])

    monkeypatch.setattr(entrodrop, "capture_stream", watch)
    found = torch.cat(scores(model, "entrodrop", BLOCKS, pairs))
    assert {i for i in range(7) if found[i].isfinite()} == open_
    # Stretching d-dimensional states by c adds d log c of entropy.
    for block in open_:
        assert float(found[block]) == pytest.approx(6 * math.log(sizes[block + 1] / sizes[block]), abs=1e-4)


def test_entrodrop_removes_for_real_and_not_the_protected(llama_folder):
    found = list(
        run(tiny.recipe_for(llama_folder, method="entrodrop", windows=4, window_tokens=40, target=0.1))
    )
    assert isinstance(found[-1], ev.Finished), found[-1]
    gone = {u.block for r in tiny.only(found, ev.Removed) for u in r.units}
    assert len(gone) == 1
    assert gone <= {2, 3}
    (scored,) = tiny.only(found, ev.Scored)
    assert [scored.scores[b] for b in (0, 1, 4)] == [None] * 3
    assert tiny.only(found, ev.Evaluated)[-1].blocks == 4


def test_a_target_beyond_what_a_method_touches_is_refused_beforehand(llama_folder):
    recipe = tiny.recipe_for(llama_folder, method="entrodrop", target=0.3)
    for refuse in (check, make_plan):
        with pytest.raises(UserError, match=r"'entrodrop' never removes .* blocks 0, 1, 4\. Choose"):
            refuse(recipe)
    check(recipe.replace(method="block-influence"))


def test_a_run_that_ends_because_all_is_spared(llama_folder, monkeypatch):
    monkeypatch.setattr(
        type(get_scorer("entrodrop")), "protects", lambda self, blocks: frozenset(range(blocks))
    )
    monkeypatch.setattr("pip_core.engine.context.budget_for", lambda r, a, s, p=(): budget_of(r, a, p))
    found = list(run(tiny.recipe_for(llama_folder, method="entrodrop")))
    assert isinstance(found[-1], ev.Failed)
    assert found[-1].message == NOTHING_LEFT
    assert not tiny.only(found, ev.Removed)


@pytest.mark.parametrize(("value", "inf_protects"), [(math.inf, False), (math.nan, True), (-math.inf, True)])
def test_scores_that_mean_nothing_are_refused(llama_folder, value, inf_protects):
    model = zoo.build("llama")
    sites, recipe = sites_in(model, BLOCKS), tiny.recipe_for(llama_folder)
    goal = budget_of(recipe, anatomy_of(model.config))
    found = [torch.tensor([value if i == 2 else 1.0 + i]) for i in range(5)]
    with pytest.raises(UserError, match="not finite numbers"):
        choose(recipe, goal, 1, 0, sites, found, inf_protects=inf_protects)
    found[2] = torch.tensor([math.inf])
    assert choose(recipe, goal, 1, 0, sites, found, inf_protects=True) == [(BLOCKS, 0, 0)]


def test_sleb_measures_again_after_each_removal(llama_folder, opened):
    recipe = tiny.recipe_for(llama_folder, method="sleb", windows=2)
    found = list(run(recipe))
    model, left = opened("llama", "float32").model, list(range(5))
    pairs = tiny.draw(recipe, opened("llama", "float32").tokenizer, 1)
    for scored, removed in zip(tiny.only(found, ev.Scored), tiny.only(found, ev.Removed), strict=True):
        with bypassed(model, [(BLOCKS, b, (0,)) for b in range(5) if b not in left]):
            expected = torch.cat(naive.sleb("llama", model, BLOCKS, pairs))
        torch.testing.assert_close(
            torch.tensor([scored.scores[b] for b in left]), expected[left], rtol=1e-5, atol=0
        )
        assert removed.blocks == (min(left, key=lambda b: float(expected[b])),)
        left.remove(removed.blocks[0])
    assert len(left) == 3


def test_sleb_runs_half_the_blocks(pairs, monkeypatch):
    model, runs = zoo.build("llama"), []
    for block in blocks_of(model):
        block.mlp.register_forward_hook(lambda *_: runs.append(1))
    scores(model, "sleb", BLOCKS, pairs[:1])
    assert len(runs) == 5 + (4 + 3 + 2 + 1 + 0)
    assert get_scorer("sleb").cost(5) * 5 == pytest.approx(17.5)  # an estimate that rounds upwards


def test_flap_is_standardised_by_layer_and_kind(pairs):
    model = zoo.build("llama")
    before = scores(model, "flap", CHANNELS, pairs)
    for found in before:
        assert float(found.mean()) == pytest.approx(0, abs=1e-5)
        assert float(found.std()) == pytest.approx(1, abs=1e-4)
    # A last layer ten times as loud ranks no higher.
    model.model.layers[-1].mlp.down_proj.weight.data *= 10
    torch.testing.assert_close(scores(model, "flap", CHANNELS, pairs), before, rtol=1e-3, atol=1e-3)


def test_flap_ranks_scores_and_counts_what_each_unit_costs(llama_folder, opened):
    flap = get_scorer("flap")
    recipe = tiny.recipe_for(llama_folder, method="flap", target=0.15, **flap.usual)
    model = zoo.build("llama")
    anatomy, sites = anatomy_of(model.config), sites_in(model, HEADS, CHANNELS)
    heads, channels = (next(s for s in sites if s.kind == kind) for kind in (HEADS, CHANNELS))
    # q, k, v and o of two query heads and their key-value head; gate, up and down.
    assert (heads.cost, channels.cost) == (32 * 4 * (2 + 1 + 1 + 2), 32 * 3)
    found = list(run(recipe))
    assert isinstance(found[-1], ev.Finished), found[-1]
    (removed,) = tiny.only(found, ev.Removed)
    gone = {(u.kind, u.block, unit) for u in removed.units for unit in u.units}
    assert {u.kind for u in removed.units} == {HEADS, CHANNELS}
    cost = sum(heads.cost if kind == HEADS else channels.cost for kind, _, _ in gone)
    assert anatomy.parameters - found[-1].parameters == cost
    assert abs(cost - 0.15 * anatomy.parameters) <= heads.cost / 2
    # Raw scores decide, and the same ones as in a list of all units: the cheap and the dear side by side.
    pairs = tiny.draw(recipe, opened("llama", "float32").tokenizer, 1)
    ranked = sorted(
        (float(score), (site.kind, site.block, unit))
        for site, found in zip(sites, scores(model, "flap", (HEADS, CHANNELS), pairs), strict=True)
        for unit, score in enumerate(found)
    )
    highest = max(score for score, unit in ranked if unit in gone)
    assert {unit for score, unit in ranked if score < highest} - gone == set()
    assert removed.score == pytest.approx(highest, abs=1e-5)


def test_multi_domain_needs_domains(llama_folder, pairs):
    recipe = tiny.recipe_for(llama_folder, method="multi-domain", units=(CHANNELS,))
    check(recipe)
    for changes in ({"calibration": "code"}, {"windows": 1}):
        with pytest.raises(UserError, match="only one"):
            check(recipe.replace(**changes))
    with pytest.raises(UserError, match="compares domains"):
        scores(zoo.build("llama"), "multi-domain", CHANNELS, pairs[:1])


def test_multi_domain_hears_every_domain_alike(pairs):
    """Three texts of one domain weigh as much as one text of another."""
    model = zoo.build("llama")
    few = [pairs[0], pairs[1]]
    many = [pairs[0], pairs[1], pairs[1], pairs[1]]
    found, again = (torch.cat(scores(model, "multi-domain", CHANNELS, p)) for p in (few, many))
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)
    assert float(found.mean()) == pytest.approx(1, abs=1e-4)


def test_methods_not_defined_for_what_is_asked(llama_folder):
    cases = (("flap", BLOCKS), ("sleb", MLP), ("entrodrop", HEADS), ("block-influence", CHANNELS))
    for name, kind in cases:
        with pytest.raises(UserError, match=f"'{name}' is not defined for {kind}"):
            check(tiny.recipe_for(llama_folder, method=name, units=(kind,)))


@pytest.mark.parametrize("scorer", RIVALS, ids=lambda m: m.name)
def test_prunes_as_published(llama_folder, scorer):
    recipe = tiny.recipe_for(
        llama_folder, method=scorer.name, windows=4, window_tokens=40, target=0.1, **scorer.usual
    )
    found = list(run(recipe))
    assert isinstance(found[-1], ev.Finished), found[-1]
    started = tiny.only(found, ev.Started)[0]
    assert 1 - found[-1].parameters / started.parameters == pytest.approx(started.planned_share, abs=0.002)
    again = list(run(recipe))
    assert [r.units for r in tiny.only(again, ev.Removed)] == [r.units for r in tiny.only(found, ev.Removed)]


def test_a_layer_that_lost_its_halves_is_still_scored(pairs):
    """Halves go one by one, so a stream must be read around what a block has left."""
    from pip_core.structure.surgery import reshape

    model = zoo.build("llama")
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    shape = dense.without([Units(MLP, 2, (0,)), Units(ATTENTION, 3, (0,))])
    reshape(model, anatomy, dense, shape)
    sites = sites_of(anatomy, shape, (ATTENTION, MLP))
    assert len(sites) == 8
    found = tiny.scores(get_scorer("block-influence"), model, sites, pairs)
    assert all(float(s) > 1e-4 for s in found)
    whole = tiny.scores(get_scorer("block-influence"), model, sites_of(anatomy, shape, (BLOCKS,)), pairs)
    # Of a block with one half, the half is the block.
    for block, site in ((2, ATTENTION), (3, MLP)):
        half = next(f for f, s in zip(found, sites, strict=True) if (s.block, s.kind) == (block, site))
        torch.testing.assert_close(half, whole[block], rtol=1e-4, atol=1e-6)
