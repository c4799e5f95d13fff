"""The exported folder: complete, loadable by anyone, and refused where it is not right."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core.checkpoints import export, load
from pip_core.checkpoints.export import (
    export_checkpoint,
    prepare_folder,
    put_in_place,
    round_to_stored,
    write_checkpoint,
)
from pip_core.checkpoints.load import Loaded, Source, load_folder
from pip_core.checkpoints.nonuniform import load_nonuniform
from pip_core.checkpoints.verify import GENERATED_TOKENS, Verdict
from pip_core.core.disk_use import bytes_of
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
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
    return drain(export_checkpoint(loaded, shape, folder, "# A card\n", FACTS, PROBE))


@pytest.fixture
def trusting(monkeypatch) -> None:
    """Without the fresh process, for tests of everything around it."""
    monkeypatch.setattr(export, "verify", tiny.unverified)


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
    assert bytes_of(folder) == sum(os.path.getsize(p) for p in folder.iterdir())


def test_verdict(exported):
    verdict = exported[2]
    assert verdict.largest_difference < 1e-5
    assert verdict.tokens == GENERATED_TOKENS
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
        yield 0.0
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
        (tmp_path / "model.partial.check-abc").mkdir()
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
    assert verdict.tokens == GENERATED_TOKENS
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


def test_writing_does_not_change_the_model_in_memory(rounded, tmp_path):
    with torch.no_grad():
        for weight in rounded.model.parameters():
            weight.mul_(1.001)  # no longer what bfloat16 can state
    before = {n: w.clone() for n, w in rounded.model.state_dict().items()}
    write_checkpoint(rounded, Shape.dense(anatomy_of(rounded.config)), tmp_path / "out", FACTS)
    after = rounded.model.state_dict()
    assert all(torch.equal(w, after[n]) and w.dtype == after[n].dtype for n, w in before.items())
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(w, before[n].to(torch.bfloat16)) for n, w in written.items())


def test_rounding_makes_memory_equal_to_what_is_written(rounded, tmp_path):
    assert not round_to_stored(rounded.model, torch.bfloat16)
    with torch.no_grad():
        rounded.model.lm_head.weight.mul_(1.001)
    assert round_to_stored(rounded.model, torch.bfloat16)
    assert not round_to_stored(rounded.model, torch.bfloat16)
    assert {w.dtype for w in rounded.model.parameters()} == {torch.float32}
    write_checkpoint(rounded, Shape.dense(anatomy_of(rounded.config)), tmp_path / "out", FACTS)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    rows = tiny.token_rows(2, 40)
    assert torch.equal(again(rows).logits, rounded.model(rows).logits)


def test_large_weights_are_written_in_several_files(rounded, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SHARD_GB", 0.0001)
    write_checkpoint(rounded, Shape.dense(anatomy_of(rounded.config)), tmp_path / "out", FACTS)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1
    tensors = {n: t for path in shards for n, t in load_file(path).items()}
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {w.dtype for w in model.parameters()} == {torch.bfloat16}


def test_weights_that_are_not_finite_are_not_exported(opened, tmp_path):
    loaded = opened("llama")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight[3, 2] = float("inf")
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj"):
        write_checkpoint(loaded, Shape.dense(anatomy_of(loaded.config)), tmp_path / "out", FACTS)
    assert not (tmp_path / "out").exists()


def test_facts_that_are_not_finite_are_not_written(opened, tmp_path):
    loaded = opened("llama")
    with pytest.raises(UserError, match="finite"):
        write_checkpoint(
            loaded, Shape.dense(anatomy_of(loaded.config)), tmp_path / "out", {"score": float("nan")}
        )
    assert not (tmp_path / "out").exists()


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("earlier", [True, False])
def test_a_crash_while_replacing_leaves_a_complete_model(tmp_path, monkeypatch, step, earlier):
    folder, partial = tmp_path / "model", tmp_path / "model.partial"
    partial.mkdir()
    (partial / "weights").write_text("new")
    if earlier:
        folder.mkdir()
        (folder / "weights").write_text("old")
    calls = []

    def dying(real):
        def call(*given, **options):
            if len(calls) == step:
                raise Crash
            calls.append(real)
            return real(*given, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        with contextlib.suppress(Crash):
            put_in_place(partial, folder)
    complete = {p.name for p in tmp_path.iterdir() if p.name != "model.partial"}
    assert complete or not earlier
    assert prepare_folder(folder) == partial
    if complete:
        assert [p.name for p in tmp_path.iterdir()] == ["model"]
        assert (folder / "weights").read_text() in ("old", "new")
