"""How large the numbers of a config may be.

Checked before anything is built from it, since a few bytes can ask for any memory and time. The largest
published models are far below."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..core.errors import UserError

MOST_LAYERS, MOST_OF_ANYTHING = 1000, 2**31
# Of all layers together: what the units of a model are listed by.
MOST_UNITS = 50_000_000
_LAYERS = re.compile(r"^(n|num|num_hidden|n_hidden|num_decoder)_?layers?$", re.IGNORECASE)
_WIDTHS = re.compile(
    r"^(ffn_|moe_|shared_expert_)?(intermediate|hidden|inner|ffn|d_ff|n_embd|n_inner|d_model|head_dim)"
)
# A model without any of these has no parameters, and nothing is a share of them.
_AT_LEAST_ONE = ("hidden_size", "n_embd", "d_model", "vocab_size")
# What has one entry, or one letter, a layer; and what transformers makes a list of.
_LENGTHS = dict.fromkeys(("layer_types", "block_types", "hybrid_override_pattern"), MOST_LAYERS)
_LABELS, MOST_LABELS = "num_labels", 50_000
# Bytes of files that are read whole, by how their names end; in memory they take up to twenty times as much.
# The largest published tokenizer has 35 MB, the largest index of weights 20 MB.
_MB = 10**6
LARGEST_FILES = {"config.json": 20 * _MB, ".index.json": 100 * _MB, ".json": 100 * _MB}
LARGEST_FILES |= {".model": 50 * _MB, ".txt": 50 * _MB, ".jinja": _MB, "README.md": 2 * _MB}


def check_sizes(files: Iterable[tuple[str, int]], name: str) -> None:
    """Refuse files beside the weights that are larger than any model's.

    Args:
        files: names and bytes of a checkpoint's files.
        name: what people call the model.

    Raises:
        UserError: one of them is.
    """
    for file, size in files:
        most = next((most for end, most in LARGEST_FILES.items() if file.endswith(end)), None)
        if most is not None and size > most:
            raise UserError(
                f"The {file} of '{name}' has {size / _MB:.0f} MB, more than any model's: at most "
                f"{most / _MB:.0f} MB are read. Choose another model."
            )


def check_bounds(config: dict) -> None:
    """Refuse a config whose numbers no model has.

    Raises:
        UserError: one of its numbers is too large or too small, or its layers have too many units altogether.
    """
    for name in _AT_LEAST_ONE:
        value = config.get(name)
        if isinstance(value, int | float) and not value >= 1:
            raise UserError(
                f"This config cannot be a model's: {name} is {value}, and no model has fewer than one. "
                "Choose another model."
            )
    layers, widest = 1, 1
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            if isinstance(value, list) and len(value) > _LENGTHS.get(name, 10**6):
                raise _too_large(name, f"a list of {len(value)}")
            if isinstance(value, dict) and len(value) > MOST_LABELS:
                raise _too_large(name, f"a table of {len(value)}")
            if isinstance(value, str) and name in _LENGTHS and len(value) > _LENGTHS[name]:
                raise _too_large(name, f"{len(value)} letters")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if _LAYERS.match(name):
                layers = max(layers, int(min(value, MOST_OF_ANYTHING)))
            elif _WIDTHS.match(name):
                widest = max(widest, int(min(value, MOST_OF_ANYTHING)))
            if name == _LABELS and value > MOST_LABELS:
                raise _too_large(name, str(value)[:20])
            if isinstance(value, int) and abs(value) > MOST_OF_ANYTHING and name != "model_max_length":
                raise _too_large(name, str(value)[:20])
    if layers > MOST_LAYERS:
        raise _too_large("the number of layers", str(layers))
    if layers * widest > MOST_UNITS:
        raise _too_large("the width of its layers", f"{widest} in {layers} layers")


def _too_large(name: str, value: str) -> UserError:
    return UserError(
        f"This config cannot be a model's: {name} is {value}, more than any model has. Choose another model."
    )
