"""Recipes in files: of a run, or beside an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from ..core.paths import is_run

if TYPE_CHECKING:
    from ..core.recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """A recipe from a file: of a run, or of an exported model.

    Raises:
        UserError: it cannot be read, or is no recipe.
    """
    from ..core.recipe import Recipe

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The recipe '{path}' cannot be read: {why}.") from None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and isinstance(values.get("recipe"), dict):
        text = json.dumps({**values["recipe"], **_left_out(path, values.get("left_out"))})
    return Recipe.from_json(text)


def _left_out(path: Path, names: object) -> dict[str, object]:
    """What the recipe of an exported model leaves out, where the folder is still in that of its run."""
    from ..runs import files, run_directory

    run = path.absolute().parent.parent
    if not isinstance(names, list) or path.absolute().parent != run / files.MODEL or not is_run(run):
        return {}
    own = run_directory.recipe_of(run).to_dict()
    return {name: own[name] for name in names if name in own}
