"""What an export says in the words of transformers 4 too, which other programs, as llama.cpp, read as well.

transformers 5 has new names for some settings. A reader that does not know them takes its own defaults
without a word, so an export states both, and states them alike. For rotary positions:

| transformers 5, in `rope_parameters` | transformers 4 |
|---|---|
| `rope_theta` | `rope_theta`; `rotary_emb_base` in gpt_neox |
| `partial_rotary_factor` | `partial_rotary_factor`; `rotary_pct` in gpt_neox |
| `rope_type` and what belongs to it | `rope_scaling`, where the type is not the default one |
| `original_max_position_embeddings` of longrope | the config's field of this name too |
| `full_attention` and `sliding_attention` of gemma3 | as above for the former; `rope_local_base_freq` |

A tokenizer of the tokenizers library is described by `tokenizer.json` alone. Its class in transformers 4 may
change it when it is loaded, by defaults of its own; the export names the one class that does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..core.device import number_name
from ..core.finite import to_json

# Names that one family alone has, or had, for a setting.
_OF_NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
OWN_NAMES = {
    "gpt_neox": _OF_NEOX,
    "gpt_neox_japanese": _OF_NEOX,
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
# Families whose layers have rotary positions of two kinds, and the name of the second one's base.
LOCAL_BASE = {"gemma3_text": "rope_local_base_freq"}
FULL, SLIDING = "full_attention", "sliding_attention"
FIRST_SLIDING = "max_window_layers"
DEFAULT, LONG = "default", "longrope"
# The limit that a model was first trained with.
FIRST_LIMIT = "original_max_position_embeddings"
# Families that take exactly the fields of `rope_scaling` that they know, and the type by its older name.
COUNTED = {"phi3": ("short_factor", "long_factor"), "olmo": ("factor",), "olmo2": ("factor",)}
# Fields of `rope_parameters` that are not part of `rope_scaling`.
BESIDE = ("rope_theta", "partial_rotary_factor", "rope_type", "type")
# The class that takes `tokenizer.json` as it is, in both versions.
PLAIN_CLASS = "PreTrainedTokenizerFast"
# What a class may have its own default for.
STATED = ("model_input_names", "padding_side", "truncation_side", "clean_up_tokenization_spaces")
# A text of one token.
LETTER = "a"


def write_older_names(folder: Path, tokenizer: PreTrainedTokenizerBase, stored: torch.dtype) -> None:
    """Complete the config and the tokenizer's config in `folder`, as `save_pretrained` wrote them.

    Args:
        tokenizer: the one that was written.
        stored: number format of the weights.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = config["torch_dtype"] = number_name(stored)
    path.write_text(
        to_json(config | older_settings(config), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    path, backend = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if path.exists() and backend.exists():
        made = tokenizer_settings(
            json.loads(path.read_text(encoding="utf-8")),
            json.loads(backend.read_text(encoding="utf-8")),
            tokenizer,
        )
        path.write_text(to_json(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def older_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config of transformers 5 that transformers 4 knows by other names.

    Args:
        config: contents of a `config.json`.

    Returns:
        Fields to add to it.
    """
    kind = config.get("model_type", "")
    found = _rotary_settings(config, kind)
    if FIRST_SLIDING in config and FULL in (kinds := config.get("layer_types") or ()):
        # Programs that do not read the kinds of the layers take this many as full ones, from the first on.
        found[FIRST_SLIDING] = next((n for n, kind in enumerate(kinds) if kind != FULL), len(kinds))
    known = {**config, **found}
    return found | {old: known[name] for name, old in OWN_NAMES.get(kind, {}).items() if name in known}


def _rotary_settings(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    rope: Any = config.get("rope_parameters")
    found: dict[str, Any] = {}
    if kind in LOCAL_BASE and isinstance(rope, Mapping) and FULL in rope and SLIDING in rope:
        found[LOCAL_BASE[kind]] = rope[SLIDING]["rope_theta"]
        rope = rope[FULL]
    if not isinstance(rope, Mapping) or "rope_theta" not in rope:
        return {}
    names = ("rope_theta", "partial_rotary_factor")
    found |= {name: rope[name] for name in names if rope.get(name) is not None}
    scaled = rope.get("rope_type", DEFAULT)
    if scaled == LONG and FIRST_LIMIT in rope:
        found[FIRST_LIMIT] = rope[FIRST_LIMIT]
    if scaled != DEFAULT and kind in COUNTED:
        found["rope_scaling"] = {"type": scaled, **{name: rope[name] for name in COUNTED[kind]}}
    elif scaled != DEFAULT:
        scaling = {name: value for name, value in rope.items() if name not in BESIDE and value is not None}
        found["rope_scaling"] = {"rope_type": scaled, **scaling}
    return found


def tokenizer_settings(
    written: Mapping[str, Any], backend: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """A tokenizer's config that both versions read alike.

    Args:
        written: contents of the `tokenizer_config.json` that transformers 5 wrote.
        backend: contents of the `tokenizer.json` beside it.
        tokenizer: the tokenizer that they were written from.
    """
    made = {**written, "tokenizer_class": PLAIN_CLASS}
    made |= {name: getattr(tokenizer, name) for name in STATED}
    made |= _put_around(tokenizer)
    # transformers 4 changes the splitting of words to what is stated here.
    splitter = backend.get("pre_tokenizer") or {}
    if "add_prefix_space" in splitter:
        made["add_prefix_space"] = splitter["add_prefix_space"]
    # In transformers 4 `extra_special_tokens` are tokens with names, and the nameless ones are the others.
    nameless, named = made.pop("extra_special_tokens", None), made.pop("model_specific_special_tokens", None)
    if nameless:
        made["additional_special_tokens"] = nameless
    if named:
        made["extra_special_tokens"] = named
    return made


def _put_around(tokenizer: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Whether texts are put between the tokens of beginning and end.

    Both versions see it in `tokenizer.json`; others, llama.cpp among them, read it here.
    """
    bare = tokenizer(LETTER, add_special_tokens=False)["input_ids"]
    whole = tokenizer(LETTER)["input_ids"]
    before = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
    return {
        "add_bos_token": tokenizer.bos_token_id in whole[:before],
        "add_eos_token": tokenizer.eos_token_id in whole[before + len(bare) :],
    }
