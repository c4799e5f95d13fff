"""A model whose blocks are read from disk comes to the same as one in memory."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import Loaded, config_of, load_folder
from pip_core.checkpoints.placing import DISK, MEMORY, places
from pip_core.checkpoints.streaming import load_streamed
from pip_core.checkpoints.verify import STREAMED_TOKENS, verify
from pip_core.core.errors import UserError
from pip_core.core.events import Evaluated, Event, Exported, Failed, Loading, Removed
from pip_core.core.recipe import DISPATCHED, RESIDENT, STREAMED, Recipe
from pip_core.engine.run import check, run
from pip_core.planning.estimate import make_plan
from pip_core.scoring import METHODS
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.structure.streamed import StreamedWeight, is_streamed

from .. import tiny

# On the device that computes, in memory beside it, and on disk.
SPREAD = {0: torch.device("cpu"), 1: MEMORY, 2: DISK, 3: torch.device("cpu")}


def opened(folder: Path, placement: str) -> Loaded:
    return load_folder(Source(folder, "test", "made for the tests", "mit"), "float32", "", placement)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_scores_are_the_same_and_one_block_is_in_memory(checkpoints, tokenizer, family) -> None:
    whole, streamed = (opened(checkpoints[family], p).model for p in (RESIDENT, STREAMED))
    dispatched, _, _ = load_streamed(checkpoints[family], family, whole.config, torch.float32, SPREAD)
    anatomy, pairs = anatomy_of(whole.config), tiny.pairs_for(tokenizer, 2)
    for scorer in METHODS:
        kinds = [kind for kind in scorer.kinds if kind not in anatomy.refused]
        for kind in (kinds[0], kinds[-1]):
            sites = sites_of(anatomy, Shape.dense(anatomy), (kind,))
            expected, *found = (tiny.scores(scorer, m, sites, pairs) for m in (whole, streamed, dispatched))
            for one, *others in zip(expected, *found, strict=True):
                same = [torch.allclose(one, other, rtol=1e-5, atol=1e-7) for other in others]
                assert all(same), (scorer.name, kind)
    here = {w.block for w in blocks_of(streamed).parameters() if isinstance(w, StreamedWeight) and w.here}
    assert len(here) == 1
    assert [is_streamed(block) for block in blocks_of(dispatched)][:4] == [False, True, True, False]


def _same(events: list[Event]) -> tuple[list, list]:
    assert not [e for e in events if isinstance(e, Failed)], events[-1]
    removed = [(e.units, e.score) for e in events if isinstance(e, Removed)]
    return removed, [replace(e, seconds=0.0) for e in events if isinstance(e, Evaluated)]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"refit": True, "refit_tokens": 512}),  # a block is handed over to the one before
        ("gpt2", {"units": ("channels",), "step": 0.999, "vocabulary": 0.1}),
    ],
)
def test_a_streamed_run_is_the_same_run(checkpoints, tasks, tmp_path, monkeypatch, family, changes) -> None:
    recipe = tiny.recipe_for(checkpoints[family], tasks[:1], windows=2, **changes)
    events = {RESIDENT: list(run(recipe.replace(placement=RESIDENT), tmp_path / RESIDENT))}
    if family == "llama":
        monkeypatch.setattr("pip_core.engine.stages.verify.verify", verify)
    events[STREAMED] = list(run(recipe.replace(placement=STREAMED), tmp_path / STREAMED))
    assert _same(events[STREAMED]) == _same(events[RESIDENT])
    others = [STREAMED]
    if family == "gpt2":  # in memory beside the device, and on disk
        monkeypatch.setattr("pip_core.checkpoints.load.places", lambda *_: SPREAD)
        spread = recipe.replace(placement=DISPATCHED)
        events[DISPATCHED] = list(run(spread, tmp_path / DISPATCHED))
        assert _same(events[DISPATCHED]) == _same(events[RESIDENT])
        others.append(DISPATCHED)
    said = next(e for e in events[STREAMED] if isinstance(e, Loading))
    assert "block by block" in said.what
    (exported,) = (e for e in events[STREAMED] if isinstance(e, Exported))
    if family == "llama":  # a fresh process has read it block by block, and generated
        assert exported.tokens == STREAMED_TOKENS
    one = load_file(tmp_path / RESIDENT / "model.safetensors")
    for placement in others:
        other = load_file(tmp_path / placement / "model.safetensors")
        assert {n: w.dtype for n, w in one.items()} == {n: w.dtype for n, w in other.items()}
        assert all(torch.allclose(one[n], other[n], rtol=1e-5, atol=1e-7) for n in one)
    for name in ("config.json", "generation_config.json"):
        first, second = (json.loads((tmp_path / p / name).read_text()) for p in (RESIDENT, STREAMED))
        assert first == second


def test_memory_at_hand_decides(recipe: Recipe, tokenizer, tmp_path, monkeypatch) -> None:
    whole = make_plan(recipe)
    count = len(whole.anatomy.blocks)
    for name in ("memory_at_hand", "memory_of_all"):
        monkeypatch.setattr(f"pip_core.engine.context.{name}", lambda: at_hand)
    at_hand = whole.memory - 1
    dispatched = make_plan(recipe)
    at_hand = 1
    streamed = make_plan(recipe)
    plans = (whole, dispatched, streamed)
    assert [p.placement for p in plans] == [RESIDENT, DISPATCHED, STREAMED]
    assert 0 < dispatched.resident_blocks < count
    assert streamed.memory < dispatched.memory < whole.memory
    chosen = places(config_of(recipe.model), torch.float32, dispatched.resident_blocks)
    there = [place == torch.device("cpu") for place in chosen.values()]
    assert there == [n < dispatched.resident_blocks for n in range(count)]
    assert streamed.seconds > whole.seconds / 2
    # What cannot be streamed is not, and who insists is told why.
    assert make_plan(recipe.replace(recover="short")).placement == RESIDENT
    with pytest.raises(UserError, match=r"streamed.*'Recover' needs the whole model.*resident"):
        check(recipe.replace(recover="short", placement=STREAMED))
    mixture = recipe.replace(model=str(tiny.save(tmp_path / "mixtral", "mixtral", tokenizer)))
    for placement in (STREAMED, DISPATCHED):
        with pytest.raises(UserError, match=r"experts.*'resident', which holds the whole model in memory\.$"):
            check(mixture.replace(placement=placement))


def test_what_cannot_be_read_is_said(checkpoints, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["llama"], folder)
    model = opened(folder, STREAMED).model
    weight = next(blocks_of(model)[1].parameters())
    with pytest.raises(RuntimeError, match="overwrite"):
        weight.mul_(2)
    file = folder / "model.safetensors"
    with file.open("r+b") as cut:
        cut.truncate(file.stat().st_size // 2)
    with pytest.raises(UserError, match=r"model\.safetensors.*shorter"):
        model(torch.arange(8)[None])
