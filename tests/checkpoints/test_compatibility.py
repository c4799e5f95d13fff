"""What an export says under the names of transformers 4; `test_read_by_transformers4.py` has it read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
from tokenizers import pre_tokenizers, processors
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from pip_core.checkpoints.compatibility import older_settings, write_older_names

from .. import tiny

FIRST = "original_max_position_embeddings"
LONG = {"short_factor": [1.0, 1.2], "long_factor": [2.0, 3.0]}
SIZE = {"hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 300}
# Model type, settings as transformers 4 writes them, and those of them that must be there again.
TOLD = [
    ("llama", {"rope_theta": 5e4}),
    ("llama", {"rope_theta": 5e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, FIRST: 64, "beta_fast": 16.0}}),
    ("granite", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    ("phi", {"rope_theta": 5e4, "partial_rotary_factor": 0.75}),
    ("stablelm", {"partial_rotary_factor": 0.5}),
    ("stablelm", {"partial_rotary_factor": 0.25}),
    ("glm4", {"partial_rotary_factor": 0.25}),
    ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 50000}),
    ("gpt_neox", {"rotary_pct": 0.5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("gpt_neox_japanese", {"rotary_emb_base": 50000, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("gemma3_text", {"rope_theta": 2e6, "rope_local_base_freq": 5e3}),
    ("gemma3_text", {"rope_theta": 2e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    # These refuse a field that they do not know.
    ("phi3", {FIRST: 64, "rope_scaling": {"type": "longrope", **LONG}}),
    ("olmo2", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("qwen3_moe", {"num_experts": 6}),
    ("mixtral", {"num_local_experts": 6}),
]


def as_written(kind: str, told: dict) -> dict:
    """The config of transformers 5 after it read settings as 4 writes them."""
    # It changes what it is given.
    return json.loads(AutoConfig.for_model(kind, **SIZE, **copy.deepcopy(told)).to_json_string())


@pytest.mark.parametrize(("kind", "told"), TOLD, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_configs_say_what_transformers_4_said(kind, told):
    config = as_written(kind, told)
    found = config | older_settings(config)
    assert {name: found.get(name) for name in told} == told
    # Transformers 5 reads the same from both kinds of names.
    again = AutoConfig.for_model(**found)
    assert again.rope_parameters.items() >= config["rope_parameters"].items()


def test_a_long_rope_is_told_where_both_look():
    scaling = {"rope_type": "longrope", "factor": 4.0, FIRST: 64, **LONG}
    found = older_settings(as_written("llama", {"rope_scaling": scaling}))
    assert (found[FIRST], found["rope_scaling"]) == (64, scaling)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bloom"])
def test_without_rotary_positions_nothing_is_added(kind):
    assert older_settings(as_written(kind, {})) == {}


@pytest.fixture
def written(tmp_path) -> Callable[[PreTrainedTokenizerFast], dict]:
    """A tokenizer -> what its config says in an export, which is read as the same tokenizer."""

    def write(tokenizer: PreTrainedTokenizerFast) -> dict:
        folder = tiny.save(tmp_path, "llama", tokenizer)
        write_older_names(folder, tokenizer, torch.float32)
        again = AutoTokenizer.from_pretrained(folder)
        for text in ("The <tool> dog", " two", ""):
            assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.extra_special_tokens == tokenizer.extra_special_tokens
        assert again.special_tokens_map == tokenizer.special_tokens_map
        assert (again.padding_side, again.truncation_side) == (
            tokenizer.padding_side,
            tokenizer.truncation_side,
        )
        return json.loads((folder / "tokenizer_config.json").read_text())

    return write


def test_no_class_may_change_a_tokenizer(written):
    tokenizer = tiny.fixed_tokenizer(bos=True)
    tokenizer.padding_side = "left"
    told = written(tokenizer)
    assert told["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert told["padding_side"] == "left"
    assert (told["add_bos_token"], told["add_eos_token"]) == (True, False)


def test_tokens_at_the_end_are_told(written):
    tokenizer = tiny.fixed_tokenizer()
    ends = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.backend_tokenizer.post_processor = ends
    told = written(tokenizer)
    assert (told["add_bos_token"], told["add_eos_token"]) == (False, True)


def test_a_space_before_texts_is_told(written):
    tokenizer = tiny.fixed_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert written(tokenizer)["add_prefix_space"] is True


def test_special_tokens_with_names_and_without(written):
    inner = tiny.fixed_tokenizer().backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="</s>",
        extra_special_tokens=["<tool>", "<end>"],
        model_specific_special_tokens={"image_token": "<image>"},
    )
    told = written(tokenizer)
    assert told["additional_special_tokens"] == ["<tool>", "<end>"]
    assert told["extra_special_tokens"] == {"image_token": "<image>"}


@pytest.mark.parametrize(
    ("kinds", "first"),
    [("full full sliding", 2), ("full full", 2), ("sliding full", 0), ("sliding sliding", None)],
)
def test_programs_that_read_no_kinds_of_layers_count_the_full_ones(kinds, first):
    config = {"layer_types": [f"{kind}_attention" for kind in kinds.split()], "max_window_layers": 28}
    assert older_settings(config).get("max_window_layers") == first
