"""Checkpoints as people have them that were always read and written well, so that it stays so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core.checkpoints.load import load_model
from pip_core.core.errors import UserError

from .. import tiny, zoo
from .test_found_checkpoints import opened, rewrite_config, written

TEMPLATE = "{{ messages[0].content }}!"


@pytest.fixture
def own(checkpoints, tmp_path) -> Path:
    return shutil.copytree(checkpoints["qwen2"], tmp_path / "own")


def in_parts(folder: Path) -> list[Path]:
    """The weights in several files, beside the whole file or not."""
    zoo.build("qwen2").save_pretrained(folder, max_shard_size="40KB")
    return sorted(folder.glob("model-*.safetensors"))


def test_weights_in_several_files(own):
    (own / "model.safetensors").unlink()
    parts = in_parts(own)
    assert len(parts) > 2
    assert not opened(own).notes
    parts[1].unlink()
    with pytest.raises(UserError, match=f"lacks 1 of its files of weights, such as {parts[1].name}"):
        load_model(str(own))


def test_a_whole_file_beside_parts_is_what_transformers_reads(own):
    whole = load_file(own / "model.safetensors")
    in_parts(own)
    save_file({n: w + 1 for n, w in whole.items()}, own / "model.safetensors", metadata={"format": "pt"})
    loaded, plain = opened(own).model, AutoModelForCausalLM.from_pretrained(own)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), plain.parameters(), strict=True))


def test_pickled_weights_alone_are_refused(own):
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no safetensors"):
        load_model(str(own))


def test_settings_of_generation_that_transformers_will_not_save(own, tmp_path):
    (own / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.7}))
    out = written(opened(own), tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(out)


def test_a_chat_template_in_a_file_of_its_own(own, tmp_path):
    (own / "chat_template.jinja").write_text(TEMPLATE)
    out = written(opened(own), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE


def test_rows_without_tokens(own, tmp_path):
    tiny.fixed_tokenizer().save_pretrained(own)
    out = written(opened(own), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert (
        model.get_input_embeddings().weight.shape[0]
        == zoo.VOCABULARY
        > len(AutoTokenizer.from_pretrained(out))
    )


@pytest.mark.parametrize("start", ["_orig_mod.", "module.", "base_model.model."])
def test_names_that_a_wrapper_left(own, start):
    weights = load_file(own / "model.safetensors")
    save_file(
        {start + n: w for n, w in weights.items()}, own / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(UserError, match=f"begin with '{start}'"):
        load_model(str(own))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs(own, name):
    (own / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n")
    with pytest.raises(UserError, match=f"{name} is only a pointer"):
        load_model(str(own))


@pytest.mark.parametrize("length", [0, 5, 20_000])
def test_half_a_file(own, length):
    path = own / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"model.safetensors is damaged or not whole"):
        load_model(str(own))


def test_what_a_trainer_leaves_and_no_metadata(own, tmp_path):
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json"):
        (own / name).write_bytes(b"x")
    (own / "checkpoint-5").mkdir()
    save_file(load_file(own / "model.safetensors"), own / "model.safetensors")
    out = written(opened(own), tmp_path / "out")
    assert not {"optimizer.pt", "training_args.bin"} & {path.name for path in out.iterdir()}
    AutoModelForCausalLM.from_pretrained(out)


def test_several_chat_templates(own, tmp_path):
    path = own / "tokenizer_config.json"
    both = [{"name": name, "template": TEMPLATE} for name in ("default", "rag")]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": both}))
    out = written(opened(own), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out).chat_template == {"default": TEMPLATE, "rag": TEMPLATE}


@pytest.mark.parametrize("format_", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_numbers_are_kept_as_numbers_of_sixteen(own, tmp_path, format_):
    """Tables of eight bits beside norms of thirty-two, without scales: their file would grow fourfold."""
    whole = load_file(own / "model.safetensors")
    small = {n: w.to(format_) if w.ndim == 2 else w for n, w in whole.items()}
    save_file(small, own / "model.safetensors", metadata={"format": "pt"})
    loaded = opened(own)
    assert any("8-bit" in note for note in loaded.notes)
    exported = load_file(written(loaded, tmp_path / "out") / "model.safetensors")
    name = "model.layers.0.mlp.gate_proj.weight"
    assert exported[name].dtype == torch.bfloat16
    assert torch.equal(exported[name].float(), small[name].float())


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "model.safetensors"
    save_file({change(n): w for n, w in load_file(path).items()}, path, metadata={"format": "pt"})


def added(folder: Path, *names: str) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **{n: torch.ones(1) for n in names}}, path, metadata={"format": "pt"})


FOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "only Mistral's own file": (
        lambda own: (own / "model.safetensors").rename(own / "consolidated.safetensors"),
        r"consolidated.safetensors\), but neither",
    ),
    "parts without their index": (
        lambda own: (own / "model.safetensors").rename(own / "model-00001-of-00001.safetensors"),
        "but neither model.safetensors nor model.safetensors.index.json",
    ),
    "an index that is no JSON": (
        lambda own: (
            (own / "model.safetensors").rename(own / "model-00001-of-00001.safetensors"),
            (own / "model.safetensors.index.json").write_text("{"),
        ),
        "model.safetensors.index.json is damaged or not whole",
    ),
    "a tokenizer's half file": (
        lambda own: (own / "tokenizer.json").write_text((own / "tokenizer.json").read_text()[:99]),
        "tokenizer.json is damaged or not whole",
    ),
    "scales of a config that was lost": (
        lambda own: added(own, "model.layers.0.mlp.up_proj.weight_scale_inv"),
        "quantised",
    ),
    "a trainer's head": (lambda own: added(own, "v_head.summary.weight"), "pretrained_model.save_pretrained"),
    "the head left out, and said to be its own": (
        lambda own: rewrite_config(own, tie_word_embeddings=False),
        '"tie_word_embeddings": true',
    ),
    "a lower number of blocks written by hand": (
        lambda own: rewrite_config(own, num_hidden_layers=3, layer_types=["full_attention"] * 3),
        r"more blocks than its config says \(num_hidden_layers\)",
    ),
    "more kinds of blocks than blocks": (
        lambda own: rewrite_config(own, layer_types=["full_attention"] * 40),
        r"kinds of 40 blocks \(layer_types\)",
    ),
    "blocks taken out by hand": (
        lambda own: renamed(own, lambda n: n.replace("layers.4.", "layers.7.")),
        "not numbered from 0 on without a gap",
    ),
    "padding beyond the rows": (
        lambda own: rewrite_config(own, pad_token_id=zoo.VOCABULARY),
        r"pads with token 1,600 \(pad_token_id\)",
    ),
    "a number format that is none": (lambda own: rewrite_config(own, torch_dtype="auto"), "Take the line"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_no_program_reads_is_refused_with_what_to_do(own, case):
    change, words = FOUND[case]
    change(own)
    with pytest.raises(UserError, match=words):
        load_model(str(own))


@pytest.mark.parametrize("field", ["_attn_implementation", "attn_implementation"])
def test_a_kernel_that_is_not_here_is_not_asked_for(own, tmp_path, field):
    before = opened(own).model.config._attn_implementation
    rewrite_config(own, **{field: "flash_attention_2"})
    assert opened(own).model.config._attn_implementation == before
    out = written(opened(own), tmp_path / "out")
    assert field not in json.loads((out / "config.json").read_text())


def test_a_table_stored_as_the_head_alone(own):
    renamed(own, lambda n: n.replace("model.embed_tokens", "lm_head"))
    model = opened(own).model
    stored = load_file(own / "model.safetensors")["lm_head.weight"]
    assert torch.equal(model.get_input_embeddings().weight, stored)
    assert torch.equal(model.get_output_embeddings().weight, stored)
