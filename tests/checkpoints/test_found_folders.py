"""Model references as people give them: files in a folder, GGUF files, folders with something missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pip_core.checkpoints import gguf_files
from pip_core.checkpoints.load import config_of, load_model, resolve
from pip_core.checkpoints.reference import fingerprint
from pip_core.core.errors import UserError, shortened
from pip_core.core.progress import drain

from .. import zoo

TABLE = "model.embed_tokens.weight"


@pytest.fixture
def own(llama_folder, tmp_path) -> Path:
    return shutil.copytree(llama_folder, tmp_path / "own")


def refusal(reference: Path | str) -> str:
    with pytest.raises(UserError) as refused:
        load_model(str(reference))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_the_folder_stands_for_it(own, name):
    assert drain(resolve(str(own / name))).folder == own
    assert config_of(str(own / name)).model_type == "llama"
    assert fingerprint(str(own / name)) == fingerprint(str(own))


@pytest.mark.parametrize("name", ["a/b.gguf", "b.safetensors", "model/config.json", "a/pytorch_model.bin"])
def test_a_file_that_is_not_there_is_no_hub_id(name):
    assert refusal(name) == f"The file '{name}' does not exist."


def test_other_files_are_no_models(own):
    (own / "pytorch_model.bin").write_bytes(b"x")
    assert "Choose the folder" in refusal(own / "pytorch_model.bin")


@pytest.mark.parametrize("change", [-7, 5])
def test_tables_with_other_rows_than_the_config_says(own, change):
    weights = load_file(own / "model.safetensors")
    for name, weight in weights.items():
        if len(weight) == zoo.VOCABULARY:
            weights[name] = torch.cat([weight, weight])[: zoo.VOCABULARY + change].contiguous()
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    message = refusal(own)
    assert f"{TABLE} has the shape {zoo.VOCABULARY + change} x 32" in message
    assert f"write vocab_size {zoo.VOCABULARY + change} into its config.json" in message


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_folder_without_a_tokenizer(checkpoints, tmp_path, family):
    own = shutil.copytree(checkpoints[family], tmp_path / "own")
    (own / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(own)
    (own / "tokenizer.json").write_text("{")
    assert "In 'own' tokenizer.json is damaged or not whole" in refusal(own)


def test_a_byte_order_mark_in_the_config(own):
    path = own / "config.json"
    path.write_text("\ufeff" + path.read_text())
    assert "byte order mark" in refusal(own)


def test_messages_of_libraries_are_cut_between_words():
    assert shortened("one two\n three.") == "one two three"
    cut = shortened("word " * 100, 60)
    assert len(cut) <= 60
    assert set(cut.split()) == {"word", "..."}


def write_gguf(path: Path, tokenizer, splitting: str = "qwen2") -> torch.nn.Module:
    """A model as llama.cpp's converter writes it, in float32; returns it."""
    model = zoo.build("qwen2")
    config, blocks = model.config, model.config.num_hidden_layers
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(blocks)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_string("general.license", "mit")
    backend = tokenizer.backend_tokenizer
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in tokens])
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, blocks)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, last = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{last}", weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_gguf_file_is_unpacked_once(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "Small.GGUF"
    model = write_gguf(path, tokenizer)
    before = fingerprint(str(path))
    assert config_of(str(path)).num_hidden_layers == model.config.num_hidden_layers
    assert not (tmp_path / "cache").exists()
    source = drain(resolve(str(path)))
    assert (source.name, source.licence, source.reference) == ("Small", "mit", str(path))
    assert fingerprint(str(path)) != before
    loaded, found = load_model(str(path))
    for name, weight in AutoModelForCausalLM.from_pretrained(source.folder).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    text = "The dog ran around the tree, and it is good."
    assert found(text).input_ids == tokenizer(text).input_ids
    digits = found("1234").input_ids
    assert len(digits) == 4
    assert loaded.dtype == torch.float32
    assert list(gguf_files.unpack(path)) == []


def test_gguf_files_that_cannot_be_read(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert "The GGUF file 'broken.gguf' could not be read" in refusal(tmp_path / "broken.gguf")
    # transformers splits texts for a qwen2 as for every qwen2, whatever the file says.
    for splitting, message in (("unheard-of", "'unheard-of'.* not known"), ("gpt-2", "not the usual one")):
        write_gguf(tmp_path / "odd.gguf", tokenizer, splitting)
        with pytest.raises(UserError, match=message):
            gguf_files.convert(tmp_path / "odd.gguf", tmp_path / "made", "odd")
    assert not list((tmp_path / "cache" / "gguf").glob("*/"))
    (tmp_path / "a-00001-of-00002.gguf").write_bytes(b"GGUF")
    assert "Join them first" in refusal(tmp_path / "a-00001-of-00002.gguf")
    folder = shutil.copytree(drain(resolve("demo")).folder, tmp_path / "only")
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "model.gguf' itself" in refusal(folder)
