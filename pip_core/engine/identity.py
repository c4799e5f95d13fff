"""Whether a run goes on with what it began with: the settings of its recipe, and the contents of the model's
files, of its texts and of its tasks.

`Started` records both whenever a worker begins. Weights are told apart by the setting `weights`, a checksum
(`checkpoints.checksum`). What an earlier version began records neither, and is not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..checkpoints.checksum import file_sha256, weights_sha256
from ..checkpoints.load import check_expected, resolve
from ..checkpoints.reference import local_folder
from ..core.errors import OtherWeights, UserError
from ..core.events import Started
from ..core.progress import drain
from ..core.recipe import Recipe
from ..data.corpora import title

# Longer values of settings are recorded by their checksum.
LONGEST_VALUE = 60
# Hexadecimal digits of a checksum.
DIGITS = 32
# Files of a checkpoint, beside its weights, that decide what the model computes and how it reads a text.
MODEL_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "pip_shape.json"),
)


def settings_of(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """(setting, value) of a recipe, each value as short JSON or as a checksum."""
    return tuple((name, _short(value)) for name, value in recipe.to_dict().items())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"sha256 {_sha256([text])}"


def digest(texts: Iterable[str], extent: object = "") -> str:
    """What tells contents apart. Contents of another `extent` (how much of a text was read) say nothing."""
    return f"{extent} {_sha256(texts)}"


def _sha256(texts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", errors="surrogatepass")
        found.update(f"{len(data)} ".encode())
        found.update(data)
    return found.hexdigest()[:DIGITS]


def model_digest(folder: Path) -> str:
    """`digest` of a checkpoint's files beside its weights (see `MODEL_FILES`)."""
    paths = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    return digest(f"{path.name} {file_sha256(path)}" for path in paths)


def folder_contents(recipe: Recipe) -> dict[str, str]:
    """The digest of the recipe's model, by its setting's name, where that is a folder of this machine, whose
    weights must have the recipe's checksum. Others are told apart by their commit.

    Raises:
        UserError: the weights are others, or there is no such folder.
    """
    folder = local_folder(recipe.model)
    if folder is None:
        return {}
    found = replace(drain(resolve(recipe.model)), weights_sha256=weights_sha256(folder))
    try:
        check_expected(recipe.model, found, recipe.weights)
    except OtherWeights:  # of a folder: it held the run's weights when that began
        raise weights_changed(recipe.model) from None
    return {"model": model_digest(folder)}


def check_settings(recipe: Recipe, began: Started, since: Collection[str]) -> None:
    """Check that a run's recipe is the one that its last worker began with.

    Args:
        since: names of settings that the run's own events changed since.

    Raises:
        UserError: it is not.
    """
    pinned, now, values = dict(began.pinned), dict(settings_of(recipe)), recipe.to_dict()
    different = [
        f"{name}: {now[name]} instead of {before}"
        for name, before in began.settings
        if name in now and name not in since and now[name] != before and values[name] != pinned.get(name)
    ]
    if different:
        raise UserError(
            f"The run's recipe.json was changed since the run began ({'; '.join(different[:3])}), and what "
            "was removed was chosen by the old one. Put it back, or start a new run with these settings."
        )


def check_contents(recipe: Recipe, began: Started, now: Mapping[str, str], since: Collection[str]) -> None:
    """Check that what a run reads holds what it held when its last worker began.

    Args:
        now: what is read, by a setting's name (and more behind a colon), to its `digest`.
        since: as for `check_settings`.

    Raises:
        UserError: something holds something else.
    """
    for what, before in began.contents:
        setting, found = what.partition(":")[0], now.get(what)
        if found is None or setting in since or found.rpartition(" ")[0] != before.rpartition(" ")[0]:
            continue
        if found != before:
            raise UserError(
                f"{_words(what, recipe)} since this run began, so what comes now would not go with what was "
                "removed and measured. Put the old contents back to go on; for the new ones start a new run, "
                "or branch with them under another name."
            )


def weights_changed(name: str) -> UserError:
    """The error to raise where a model's weights are not those that the run began with."""
    return UserError(
        f"The weights of {name} have changed since this run began. Put the old ones back, or start a new run."
    )


def _words(what: str, recipe: Recipe) -> str:
    setting, _, name = what.partition(":")
    if setting == "model":
        return f"The config or the tokenizer of '{title(recipe.model)}' changed"
    value = name or title(str(getattr(recipe, setting)))
    return f"The contents of '{value}' ({setting}) changed"
