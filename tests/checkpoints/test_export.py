"""The exported folder: complete, loadable by anyone, and refused where it is not right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core.checkpoints import export, load, reload_check
from pip_core.checkpoints.export import Verdict, folder_bytes, verify, write_checkpoint, zip_folder
from pip_core.checkpoints.load import Loaded, Source, load_folder
from pip_core.checkpoints.nonuniform import load_nonuniform
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape

from .. import tiny, zoo
from ..bypass import logits_without

PROBE = "The dog ran around the tree. Then it slept, and the cat sat on the mat for a while."
FACTS = {"recipe": Recipe().to_dict(), "removed_blocks": [1, 3]}


def written(loaded: Loaded, folder: Path, shape: Shape | None = None) -> Verdict:
    shape = shape or Shape.dense(anatomy_of(loaded.config))
    return write_checkpoint(loaded, shape, folder, "# A card\n", FACTS, PROBE)


@pytest.fixture
def trusting(monkeypatch) -> None:
    """Without the fresh process, for tests of everything around it."""
    monkeypatch.setattr(export, "verify", lambda *_: Verdict(0.0, 20, 0.1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, llama_folder) -> tuple[Loaded, Path, Verdict]:
    """A tiny Llama without its blocks 1 and 3, exported and verified."""
    folder = tmp_path_factory.mktemp("export") / "run" / "model"
    loaded = load_folder(Source(llama_folder, "test/llama", "made for the tests", "mit"))
    verdict = written(loaded, folder, tiny.without_blocks(loaded, [1, 3]))
    return loaded, folder, verdict


def test_files(exported):
    _, folder, _ = exported
    names = {p.name for p in folder.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "pip_recipe.json",
    }
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    assert (folder / "README.md").read_text() == "# A card\n"
    assert json.loads((folder / "pip_recipe.json").read_text()) == json.loads(json.dumps(FACTS))
    assert folder_bytes(folder) == sum(os.path.getsize(p) for p in folder.iterdir())


def test_verdict(exported):
    verdict = exported[2]
    assert verdict.largest_difference < 1e-5
    assert verdict.tokens == export.GENERATED_TOKENS
    assert verdict.seconds > 0


def test_loads_again_with_equal_logits(exported, tokenizer):
    loaded, folder, _ = exported
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = tiny.token_rows(2, 40)
    assert torch.equal(model(rows).logits, loaded.model(rows).logits)
    again = AutoTokenizer.from_pretrained(folder)
    assert again(PROBE)["input_ids"] == tokenizer(PROBE)["input_ids"]
    assert again.eos_token == "</s>"


def test_equals_the_dense_model_with_blocks_bypassed(exported):
    dense, rows = zoo.build("llama"), tiny.token_rows(2, 40)
    model = AutoModelForCausalLM.from_pretrained(exported[1]).eval()
    torch.testing.assert_close(model(rows).logits, logits_without(dense, rows, [1, 3]), rtol=0, atol=1e-5)


def test_config_tells_older_readers(exported):
    config = json.loads((exported[1] / "config.json").read_text())
    assert config["num_hidden_layers"] == 3
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert "rope_scaling" not in config
    assert "auto_map" not in config
    tokenizer_config = json.loads((exported[1] / "tokenizer_config.json").read_text())
    assert tokenizer_config["tokenizer_class"] == "PreTrainedTokenizerFast"
    # Else transformers 4 hands `token_type_ids` to a model that knows none.
    assert tokenizer_config["model_input_names"] == ["input_ids", "attention_mask"]


def test_scaled_rotary_positions_are_told_older_readers(opened, tmp_path, trusting):
    loaded = opened("llama")
    loaded.model.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    written(loaded, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["rope_theta"] == 5000.0
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_other_families_are_verified_too(opened, tmp_path, family):
    loaded = opened(family)
    verdict = written(loaded, tmp_path / "model", tiny.without_blocks(loaded, [0, 2]))
    assert verdict.largest_difference < 1e-5
    assert verdict.tokens == 20


@pytest.mark.parametrize("removed", [[0], [1, 2], [3]])
@pytest.mark.parametrize("family", tiny.SAVED)
def test_every_family_loads_again(opened, tmp_path, trusting, family, removed):
    loaded, rows = opened(family), tiny.token_rows(2, 40)
    written(loaded, tmp_path / "model", tiny.without_blocks(loaded, removed))
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(model.eval()(rows).logits, loaded.model(rows).logits, rtol=0, atol=1e-6)


def corrupted(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] + 0.05
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_changed_weight_is_noticed(exported, tmp_path):
    loaded, folder, _ = exported
    with pytest.raises(UserError, match=r"answers differently: logits differ by .* It was not kept"):
        verify(loaded, corrupted(folder, tmp_path / "bad"), PROBE)
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_a_folder_that_does_not_load_is_noticed(exported, tmp_path):
    loaded, folder, _ = exported
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "config.json").unlink()
    with pytest.raises(UserError, match="did not load in a fresh process") as refused:
        verify(loaded, tmp_path / "bad", PROBE)
    assert "\n" not in str(refused.value)


def answering(monkeypatch, **found) -> None:
    """Let the fresh process say `found`."""
    said = json.dumps({"largest_difference": 0.0, "cache_gap": 0.0, "tokens": 20, **found})
    done = SimpleNamespace(returncode=0, stdout=f"a library's advice\n{said}\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


def test_a_difference_between_cache_and_none_is_noticed(exported, monkeypatch):
    loaded, folder, _ = exported
    answering(monkeypatch)
    assert verify(loaded, folder, PROBE).tokens == 20
    answering(monkeypatch, cache_gap=0.5)
    with pytest.raises(UserError, match="with its key-value cache than without"):
        verify(loaded, folder, PROBE)


@pytest.mark.parametrize("field", ["largest_difference", "cache_gap"])
def test_no_number_is_a_difference(exported, monkeypatch, field):
    loaded, folder, _ = exported
    answering(monkeypatch, **{field: float("nan")})
    with pytest.raises(UserError, match="It was not kept"):
        verify(loaded, folder, PROBE)


def test_the_fresh_process_compares_cache_and_none(exported, tmp_path, capsys, monkeypatch):
    loaded, folder, _ = exported
    ids = tiny.token_rows(1, 10)
    probe = tmp_path / "probe.safetensors"
    with torch.inference_mode():
        save_file({"ids": ids, "logits": loaded.model(ids).logits}, probe)
    reload_check.main(str(folder), str(probe), 12)
    found = json.loads(capsys.readouterr().out)
    assert found == {"largest_difference": 0.0, "cache_gap": 0.0, "tokens": 12}

    def wrong(self, ids, use_cache, max_new_tokens, **_):
        return torch.cat([ids, torch.full((1, max_new_tokens), 5 if use_cache else 6)], dim=1)

    monkeypatch.setattr(type(loaded.model), "generate", wrong)
    reload_check.main(str(folder), str(probe), 12)
    assert json.loads(capsys.readouterr().out)["cache_gap"] > 0.01


def fill_disk(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))


def test_a_full_disk_leaves_nothing(opened, tmp_path, monkeypatch):
    fill_disk(monkeypatch)
    with pytest.raises(UserError, match=r"needs \d+ MB and 10 MB are free"):
        written(opened("llama"), tmp_path / "run" / "model")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_disk_leaves_an_earlier_export(exported, opened, tmp_path, monkeypatch):
    kept = tmp_path / "model"
    shutil.copytree(exported[1], kept)
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    fill_disk(monkeypatch)
    with pytest.raises(UserError, match="Make room"):
        written(opened("llama"), kept)
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before


@pytest.mark.parametrize("fault", [UserError("answers differently"), OSError(28, "No space left on device")])
def test_a_refused_export_leaves_an_earlier_one(exported, opened, tmp_path, monkeypatch, fault):
    kept = tmp_path / "model"
    shutil.copytree(exported[1], kept)
    before = {p.name: p.read_bytes() for p in kept.iterdir()}

    def refuse(*_):
        raise fault

    monkeypatch.setattr(export, "verify", refuse)
    with pytest.raises(type(fault)):
        written(opened("llama"), kept)
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_new_export_replaces_an_earlier_one(opened, tmp_path, trusting):
    for removed in ([1], [0, 2]):
        loaded = opened("llama")
        shape = tiny.without_blocks(loaded, removed)
        (tmp_path / "model.partial").mkdir()
        (tmp_path / "model.partial" / "left over by a killed run").touch()
        written(loaded, tmp_path / "model", shape)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"] == 3
    assert not list((tmp_path / "model").glob("left*"))


@pytest.fixture
def rounded(tmp_path, tokenizer, monkeypatch) -> Loaded:
    """A bfloat16 checkpoint on a machine that computes it in float32."""
    zoo.build("llama").to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    tokenizer.save_pretrained(tmp_path / "bf16")
    monkeypatch.setattr(load, "fast_bfloat16", lambda: False)
    return load_folder(Source(tmp_path / "bf16", "test/bf16", "made for the tests", None))


def test_rotary_buffers_are_not_rounded(rounded, tmp_path):
    assert rounded.stored == torch.bfloat16
    assert rounded.model.dtype == torch.float32
    before = {n: b.clone() for n, b in rounded.model.named_buffers()}
    assert any("inv_freq" in n for n in before)
    verdict = written(rounded, tmp_path / "out" / "model")
    for name, buffer in rounded.model.named_buffers():
        assert buffer.dtype == torch.float32
        assert torch.equal(buffer, before[name])
    assert verdict.largest_difference == 0.0
    weights = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"


def test_the_stored_format_is_kept_bit_by_bit(rounded, tmp_path, trusting):
    written(rounded, tmp_path / "out" / "model")
    before = load_file(tmp_path / "bf16" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, llama_folder) -> tuple[Loaded, Path, Verdict]:
    """A tiny Llama without an attention half and with blocks of unequal width, exported and verified."""
    folder = tmp_path_factory.mktemp("uneven") / "model"
    loaded = load_folder(Source(llama_folder, "test/llama", "made for the tests", "mit"))
    anatomy = anatomy_of(loaded.config)
    dense = Shape.dense(anatomy)
    gone = [Units("attention", 0, (0,)), Units("channels", 2, (1, 5)), Units("heads", 3, (0,))]
    shape = dense.without(gone)
    reshape(loaded.model, anatomy, dense, shape)
    return loaded, folder, written(loaded, folder, shape)


def test_a_shape_of_our_own_is_verified_with_our_loader(uneven):
    loaded, folder, verdict = uneven
    assert verdict.largest_difference < 1e-5
    assert verdict.tokens == export.GENERATED_TOKENS
    rows = tiny.token_rows(2, 40)
    assert torch.equal(load_nonuniform(folder)(rows).logits, loaded.model(rows).logits)


def test_a_shape_of_our_own_never_loads_wrongly(uneven):
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(uneven[1])


def test_a_shape_of_our_own_can_be_measured_and_not_pruned(uneven, opened):
    loaded, folder, _ = uneven
    again = load_folder(Source(folder, "x", "y", None))
    rows = tiny.token_rows(1, 20)
    assert torch.equal(again.model(rows).logits, loaded.model(rows).logits)
    with pytest.raises(UserError, match="not pruned again"):
        load.config_of(str(folder))


@pytest.mark.parametrize("harm", ["shape", "weights", "order"])
def test_a_damaged_shape_of_our_own_is_told(uneven, tmp_path, harm):
    folder = tmp_path / "bad"
    shutil.copytree(uneven[1], folder)
    if harm == "weights":
        (folder / "pip_model.safetensors").write_bytes(b"nothing")
    elif harm == "shape":
        (folder / "pip_shape.json").write_text("{")
    else:
        facts = json.loads((folder / "pip_shape.json").read_text())
        facts["layers"].reverse()
        (folder / "pip_shape.json").write_text(json.dumps(facts))
    with pytest.raises(UserError) as refused:
        load_nonuniform(folder)
    assert "\n" not in str(refused.value)


def test_a_config_that_cannot_say_what_is_left_is_not_written(tmp_path, tokenizer):
    """Attention scaled by the number of its layer: a plain config cannot keep the scale of what moved up."""
    zoo.build("gpt2")  # the zoo's seed and sizes
    config = zoo.CONFIGS["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    loaded = load_folder(Source(tmp_path / "dense", "x", "y", None))
    with pytest.raises(UserError, match="cannot describe what is left"):
        written(loaded, tmp_path / "out", tiny.without_blocks(loaded, [0]))
    assert not (tmp_path / "out").exists()


def test_zip(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 1000)
    (folder / "sub" / "more").write_text("more")
    made = zip_folder(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(made) as archive:
        assert archive.testzip() is None
        assert archive.read("model/weights") == b"x" * 1000
        assert archive.read("model/sub/more") == b"more"
    stamp = made.stat().st_mtime_ns
    assert zip_folder(folder, made).stat().st_mtime_ns == stamp
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.zip"]


def test_zip_of_a_new_export_is_made_anew(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    made = zip_folder(folder, tmp_path / "model.zip")
    old = made.stat().st_mtime
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "weights").write_text("new")
    os.utime(folder / "weights", (old + 5, old + 5))
    with zipfile.ZipFile(zip_folder(folder, made)) as archive:
        assert archive.read("model/weights") == b"new"


def test_zip_asked_for_by_several_at_once(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(20_000_000))
    target = tmp_path / "model.zip"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(zip_folder, folder, target) for _ in range(4)]
    assert [a.result() for a in asked] == [target] * 4
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.zip"]
