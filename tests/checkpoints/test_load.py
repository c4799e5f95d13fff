"""Local checkpoints: number formats, names, licences; and where a model keeps its blocks."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from pip_core.checkpoints import load as load_module
from pip_core.checkpoints.checksum import weights_sha256
from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import config_of, load, load_folder, resolve
from pip_core.core.device import user_message
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.structure.families import blocks_of, check_config, replace_blocks

from .. import zoo


@pytest.fixture
def own(llama_folder, tmp_path):
    """A copy of the tiny Llama that a test may change."""
    shutil.copytree(llama_folder, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="module")
def half(tmp_path_factory, tokenizer):
    """A checkpoint stored in bfloat16."""
    folder = tmp_path_factory.mktemp("half") / "half"
    zoo.build("llama").to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_loads_a_folder(llama_folder):
    told = []
    work = load(str(llama_folder))
    while True:
        try:
            told.append(next(work).what)
        except StopIteration as end:
            loaded = end.value
            break
    assert told == ["loading llama"]
    source = loaded.source
    assert (source.folder, source.name, source.licence) == (llama_folder, "llama", None)
    assert (source.reference, source.revision) == (str(llama_folder), "")
    assert source.weights_sha256 == weights_sha256(llama_folder)
    assert not loaded.model.training
    expected = zoo.build("llama").state_dict()
    assert all(torch.equal(w, expected[n]) for n, w in loaded.model.state_dict().items())


@pytest.mark.parametrize(
    ("fast", "dtype", "computed", "stored"),
    [
        (True, "auto", "bfloat16", "bfloat16"),
        (False, "auto", "float32", "bfloat16"),
        # The export keeps the format of the file, whatever is computed in.
        (True, "float32", "float32", "bfloat16"),
        (True, "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_formats_of_a_bfloat16_checkpoint(half, monkeypatch, fast, dtype, computed, stored):
    monkeypatch.setattr(load_module, "fast_bfloat16", lambda: fast)
    loaded = load_folder(Source(half, "x", "x", None), dtype)
    assert loaded.model.dtype == getattr(torch, computed)
    assert loaded.stored == getattr(torch, stored)


def test_a_failed_allocation_is_no_damaged_checkpoint(llama_folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(load_module.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(RuntimeError) as raised:
        load_folder(Source(llama_folder, "x", "x", None))
    assert "memory" in user_message(raised.value)


def test_a_float32_checkpoint_is_never_rounded(opened, monkeypatch):
    monkeypatch.setattr(load_module, "fast_bfloat16", lambda: True)
    loaded = opened("llama")
    assert loaded.model.dtype == loaded.stored == torch.float32


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
        ("---\nlanguage: en\n---\n# Model\n", None),
        ("# Model without a header\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\n- a list\n---\n", None),
        (None, None),
    ],
)
def test_licence(own, card, licence):
    if card is not None:
        (own / "README.md").write_text(card)
    assert drain(resolve(str(own))).licence == licence


def test_a_runs_folder_stands_for_its_model(own, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.json", "events.jsonl"):
        (run / name).write_text("")
    shutil.move(own, run / "model")
    assert drain(resolve(str(run))).folder == run / "model"
    assert config_of(str(run)).num_hidden_layers == zoo.BLOCKS


@pytest.mark.parametrize("since", [None, ["Removed"], ["Exported", "RemovalUndone"], ["Exported", "Undone"]])
def test_a_run_that_changed_after_its_export_stands_for_none(own, tmp_path, since):
    """`since`: its last events; None is a run without an export."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("")
    (run / "events.jsonl").write_text("".join(f'{{"event": "{name}", "at": 1}}\n' for name in since or ()))
    if since:
        shutil.move(own, run / "model")
    with pytest.raises(UserError, match=f"pip-studio export {run}"):
        config_of(str(run))


def test_a_folder_is_called_what_it_is_called(own):
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "_name_or_path": "org/its-ancestor"}))
    assert drain(resolve(str(own))).name == "own"


def test_a_space_reads_no_folders(own, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "org/space")
    for find in (lambda r: drain(resolve(r)), config_of):
        with pytest.raises(UserError, match="Local folders cannot be read"):
            find(str(own))


@pytest.mark.parametrize("reference", ["./gone", "/gone", "~/gone-for-good", "a/b/c", "..\\gone"])
def test_folders_that_are_not_there(reference):
    for find in (lambda r: drain(resolve(r)), config_of):
        with pytest.raises(UserError, match="does not exist"):
            find(reference)


def test_code_in_the_folder_is_never_run(own, tmp_path):
    marker = tmp_path / "it ran"
    (own / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((own / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    (own / "config.json").write_text(json.dumps(config))
    loaded = drain(load(str(own)))
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert not marker.exists()


def test_tied_weights_are_no_missing_ones(llama_folder):
    loaded = drain(load(str(llama_folder)))
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("family", zoo.CONFIGS)
def test_blocks_are_found(family):
    model = zoo.build(family)
    blocks = blocks_of(model)
    assert len(blocks) == model.config.num_hidden_layers
    assert len({type(b) for b in blocks}) == 1
    check_config(model.config)
    replace_blocks(model, [blocks[2], blocks[0]])
    model.config.num_hidden_layers = 2
    assert list(blocks_of(model)) == [blocks[2], blocks[0]]


def test_no_plain_list_of_blocks():
    model = zoo.build("llama")
    model.model.layers = nn.ModuleList(list(model.model.layers)[:-1])
    with pytest.raises(UserError, match="one plain list"):
        blocks_of(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "single block"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"is_encoder_decoder": True}, "not a text-generating decoder"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification"),
    ],
)
def test_configs_that_are_refused(llama_folder, changes, message):
    config = AutoConfig.from_pretrained(llama_folder)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(UserError, match=message):
        check_config(config)
