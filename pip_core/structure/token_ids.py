"""Token ids in the settings of a model and of its tokenizer, wherever they stand.

Fields that hold token ids are known by their names; each may hold one id, or lists of them in lists.
Everything here works on plain values: what a config holds, or what a file of JSON holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedConfig

# Fields of configs, generation configs and tokenizer configs that hold token ids, alone or in lists.
IDS = re.compile(
    r".*_token_ids?|.*_token_ind(ex|exes|ices)|(begin_)?suppress_tokens|(bad|force)_words_ids|stop_token_ids"
)
# A list of [position, token id].
PLACED = "forced_decoder_ids"
# Biases of sequences of token ids: a mapping from tuples, or a list of [ids, bias].
BIASES = "sequence_bias"
Change = Callable[[int], int]


def change_ids(values: Any, change: Change) -> Any:
    """`values` with every token id in it changed.

    Args:
        values: settings by name, with settings inside them; anything else is returned as it is.
        change: id -> its new id. Raises KeyError for an id that must be dropped: a list is left without it,
            a list of sequences without its sequence, and a field that holds it alone becomes None.
    """
    if isinstance(values, Mapping):
        return {name: _changed(name, value, change) for name, value in values.items()}
    if isinstance(values, list):
        return [change_ids(value, change) for value in values]
    return values


def ids_in(values: Any) -> set[int]:
    """Every token id in `values`, see `change_ids`."""
    found: set[int] = set()

    def note(token: int) -> int:
        found.add(token)
        return token

    change_ids(values, note)
    return found


def change_config(config: Any, change: Change) -> None:
    """Change every token id in a config or generation config, and in the configs inside it, in place."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            change_config(value, change)
        elif (changed := _changed(name, value, change)) != value:
            setattr(config, name, changed)


def ids_in_config(config: Any) -> set[int]:
    """Every token id that a config or generation config names."""
    found: set[int] = set()
    for name, value in vars(config).items():
        found |= ids_in_config(value) if isinstance(value, PreTrainedConfig) else ids_in({name: value})
    return found


def ids_in_tokenizer(written: Mapping[str, Any]) -> set[int]:
    """The ids that a `tokenizer.json` names beside its vocabulary: added, put around a text, padded with."""
    found: set[int] = {token["id"] for token in written.get("added_tokens") or ()}

    def note(token: int) -> int:
        found.add(token)
        return token

    change_around({**written, "added_tokens": []}, note)
    return found


def change_around(written: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """A `tokenizer.json` with the ids changed that it puts around a text or pads with."""
    made = dict(written)
    if made.get("post_processor"):
        made["post_processor"] = _changed_processor(made["post_processor"], change)
    if isinstance(made.get("padding"), Mapping) and "pad_id" in made["padding"]:
        made["padding"] = {**made["padding"], "pad_id": change(made["padding"]["pad_id"])}
    return made


def _changed_processor(processor: Mapping[str, Any], change: Change) -> dict[str, Any]:
    made = dict(processor)
    if "processors" in made:
        made["processors"] = [_changed_processor(inner, change) for inner in made["processors"]]
    if isinstance(made.get("special_tokens"), Mapping):
        made["special_tokens"] = {
            name: {**token, "ids": [change(i) for i in token["ids"]]}
            for name, token in made["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if isinstance(made.get(name), list | tuple):
            made[name] = [made[name][0], change(made[name][1])]
    return made


def _changed(name: Any, value: Any, change: Change) -> Any:
    if value is None or not isinstance(name, str):
        return value
    if IDS.fullmatch(name):
        return _ids(value, change)
    if name == PLACED:
        return [[place, _one(token, change)] for place, token in value]
    if name == BIASES and isinstance(value, Mapping):
        pairs = [(tuple(_ids(ids, change)), ids, bias) for ids, bias in value.items()]
        return {made: bias for made, ids, bias in pairs if len(made) == len(ids)}
    if name == BIASES:
        made = [(_ids(ids, change), ids, bias) for ids, bias in value]
        return [[new, bias] for new, ids, bias in made if len(new) == len(ids)]
    return change_ids(value, change)


def _ids(value: Any, change: Change) -> Any:
    """Token ids in lists in lists, each changed."""
    if not isinstance(value, list | tuple):
        return _one(value, change)
    made = []
    for inner in value:
        changed = _ids(inner, change)
        # Half of a sequence would be another sequence.
        if changed is not None and (not isinstance(inner, list | tuple) or len(changed) == len(inner)):
            made.append(changed)
    return made


def _one(value: Any, change: Change) -> Any:
    """One id changed; None where it is dropped. Text, and the -1 of a field that names no token, stay."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return value
    try:
        return change(value)
    except KeyError:
        return None
