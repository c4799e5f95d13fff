"""Checkpoints as people have them: files that say something else than their config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core.checkpoints import load as load_module
from pip_core.checkpoints.export import write_checkpoint
from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import Loaded, config_of, load_folder, resolve
from pip_core.checkpoints.reference import fingerprint
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.units import Units
from pip_core.engine.run import run
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape

from .. import tiny, zoo

WEIGHTS = "model.safetensors"


def opened(folder: Path, dtype: str = "auto") -> Loaded:
    return load_folder(Source(folder, folder.name, "made for the tests", None), dtype)


def written(loaded: Loaded, folder: Path) -> Path:
    write_checkpoint(loaded, Shape.dense(anatomy_of(loaded.config)), folder, {})
    return folder


def rewrite_config(folder: Path, **changes) -> None:
    """Change fields of a folder's config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({n: v for n, v in config.items() if v is not None}))


def add_head(folder: Path, head: torch.Tensor) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "lm_head.weight": head}, folder / WEIGHTS, metadata={"format": "pt"})


def parameters(folder: Path) -> int:
    return sum(w.numel() for w in load_file(folder / WEIGHTS).values())


@pytest.fixture(params=["llama", "gpt2", "gemma2"])
def own_head(request, checkpoints, tmp_path) -> Path:
    """A config that says tied, beside a head of its own."""
    folder = tmp_path / "merged"
    shutil.copytree(checkpoints[request.param], folder)
    head = torch.randn(zoo.VOCABULARY, 32, generator=torch.Generator().manual_seed(5))
    add_head(folder, 0.2 * head)
    rewrite_config(folder, tie_word_embeddings=True)
    return folder


def test_a_head_of_its_own_makes_the_model_untied(own_head):
    loaded = opened(own_head)
    assert not loaded.config.tie_word_embeddings
    assert not loaded.model.config.tie_word_embeddings
    assert torch.equal(loaded.model.lm_head.weight, load_file(own_head / WEIGHTS)["lm_head.weight"])
    anatomy = anatomy_of(config_of(str(own_head)))
    assert anatomy.parameters == sum(p.numel() for p in loaded.model.parameters()) == parameters(own_head)
    assert anatomy.row_parameters == 2 * 32
    assert "a head of its own" in " ".join(loaded.notes)


def test_the_same_table_twice_stays_tied(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path / "twice")
    weights = load_file(tmp_path / "twice" / WEIGHTS)
    add_head(tmp_path / "twice", weights["model.embed_tokens.weight"].clone())
    loaded = opened(tmp_path / "twice")
    assert loaded.config.tie_word_embeddings
    assert loaded.notes == ()
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_a_head_that_was_replaced_is_seen(checkpoints, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(checkpoints["llama"], folder)
    before = fingerprint(str(folder))
    assert config_of(str(folder)).tie_word_embeddings
    add_head(folder, torch.ones(zoo.VOCABULARY, 32))
    assert not config_of(str(folder)).tie_word_embeddings
    assert fingerprint(str(folder)) != before


def test_a_run_keeps_both_tables(own_head, tasks, tmp_path):
    recipe = tiny.recipe_for(own_head, tasks, target=0.3, vocabulary=0.3, measure="end")
    events = list(run(recipe, tmp_path / "out"))
    assert isinstance(events[-1], ev.Finished), events[-1]
    dense, pruned = parameters(own_head), parameters(tmp_path / "out")
    assert [e.parameters for e in tiny.only(events, ev.Evaluated)] == [dense, pruned]
    assert 1 - pruned / dense == pytest.approx(0.3, abs=0.03)
    assert "a head of its own" in tiny.only(events, ev.Warned)[0].message
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    was, now = (AutoModelForCausalLM.from_pretrained(f) for f in (own_head, tmp_path / "out"))
    tokenizers = [AutoTokenizer.from_pretrained(f) for f in (own_head, tmp_path / "out")]
    old = tokenizers[0].convert_tokens_to_ids(tokenizers[1].convert_ids_to_tokens(range(len(tokenizers[1]))))
    for table in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(now, table)().weight, getattr(was, table)().weight[old])


def test_before_the_weights_are_here_the_config_is_believed(own_head, tasks, monkeypatch):
    """As with a model of the Hub: only its config is here when the run is planned."""
    tied = config_of(str(own_head))
    tied.tie_word_embeddings = True
    monkeypatch.setattr("pip_core.engine.context.config_of", lambda _: tied)
    events = list(run(tiny.recipe_for(own_head, tasks, measure="end")))
    assert isinstance(events[-1], ev.Finished), events[-1]
    assert tiny.only(events, ev.Started)[0].parameters == parameters(own_head)
    assert tiny.only(events, ev.Evaluated)[0].parameters == parameters(own_head)
    assert tiny.only(events, ev.Removed)[-1].parameters == events[-1].parameters


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("says", [None, "float32", "bfloat16"])
def test_the_files_number_format_is_kept(tmp_path, tokenizer, monkeypatch, stored, says):
    monkeypatch.setattr(load_module, "fast_bfloat16", lambda: False)
    folder = tmp_path / "dense"
    zoo.build("llama").to(stored).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rewrite_config(folder, dtype=says, torch_dtype=None)
    loaded, name = opened(folder), str(stored).removeprefix("torch.")
    assert (loaded.stored, loaded.model.dtype) == (stored, torch.float32)
    assert config_of(str(folder)).dtype == stored
    assert [name in note for note in loaded.notes] == [True] * (says not in (None, name))
    out = written(loaded, tmp_path / "out")
    before, after = load_file(folder / WEIGHTS), load_file(out / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) and after[n].dtype == stored for n in before)
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == name


def test_a_folder_called_model_is_no_run(checkpoints, tmp_path):
    """What unzipping a download inside the dense model's folder makes."""
    folder = tmp_path / "dense"
    shutil.copytree(checkpoints["llama"], folder)
    shutil.copytree(checkpoints["gpt2"], folder / "model")
    assert drain(resolve(str(folder))).folder == folder
    assert config_of(str(folder)).model_type == "llama"
    for name in ("recipe.json", "events.jsonl"):
        (folder / name).write_text("")
    assert drain(resolve(str(folder))).folder == folder / "model"


@pytest.mark.parametrize("uneven", [False, True])
def test_no_code_is_pointed_to(checkpoints, tmp_path, uneven):
    folder = tmp_path / "dense"
    shutil.copytree(checkpoints["llama"], folder)
    rewrite_config(
        folder,
        auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"},
        custom_pipelines={"own": {"impl": "own.P"}},
    )
    path = folder / "tokenizer_config.json"
    named = {"auto_map": {"AutoTokenizer": ["own.T", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    loaded, out = opened(folder), tmp_path / "out"
    anatomy = anatomy_of(loaded.config)
    before = Shape.dense(anatomy)
    shape = before.without([Units("channels", 1, (3,))] if uneven else [])
    reshape(loaded.model, anatomy, before, shape)
    write_checkpoint(loaded, shape, out, {})
    for written_file in out.glob("*.json"):
        text = written_file.read_text()
        assert not [w for w in ("auto_map", "custom_pipelines", "own.") if w in text], written_file
    AutoTokenizer.from_pretrained(out, trust_remote_code=True)
    if not uneven:
        AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters_are_refused_before_any_work(checkpoints, tmp_path, beside, name):
    folder = tmp_path / "tuned"
    if beside:
        shutil.copytree(checkpoints["llama"], folder)
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    for find in (lambda r: drain(resolve(r)), config_of):
        with pytest.raises(UserError, match=r"LoRA adapter.*merge_and_unload") as refused:
            find(str(folder))
        assert ("beside a model" in str(refused.value)) == beside
        assert name in str(refused.value)
    (failed,) = run(tiny.recipe_for(folder))
    assert isinstance(failed, ev.Failed)
    assert "LoRA adapter" in failed.message
