"""PIP Studio's engine: makes a language model smaller by removing what matters least, and measures the cost.

    import pip_core

    found = pip_core.inspect("demo", target=0.2)        # what can be removed, from the config alone
    recipe = pip_core.Recipe(model="demo", target=0.2)  # what to remove, how, and how to measure it
    for event in pip_core.run(recipe, out=Path("pruned")):
        print(event)
    model, tokenizer = pip_core.load("pruned")
    print(pip_core.evaluate("pruned").accuracy)

Importing this package imports nothing else and changes no environment variable; each name is imported when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoints.load import load_model as load
    from .comparing.compare import compare
    from .core.recipe import Recipe
    from .engine.evaluate import evaluate_model as evaluate
    from .engine.run import run
    from .planning.inspect_model import inspect_reference as inspect

__version__ = "0.1.0"
__all__ = ["Recipe", "compare", "evaluate", "inspect", "load", "run"]

# Public name -> module and name in it.
_HOMES = {
    "Recipe": (".core.recipe", "Recipe"),
    "compare": (".comparing.compare", "compare"),
    "evaluate": (".engine.evaluate", "evaluate_model"),
    "inspect": (".planning.inspect_model", "inspect_reference"),
    "load": (".checkpoints.load", "load_model"),
    "run": (".engine.run", "run"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    importlib.import_module(".engine.stages", __name__)  # the stages own the settings of a recipe
    found = getattr(importlib.import_module(module, __name__), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
