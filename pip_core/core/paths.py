"""Folders: the project, its assets, what it has fetched, and what a run's directory holds."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
# The folder that holds the package `pip_core`; processes that this package starts have it on their path.
ROOT = _PACKAGE.parent


def _shipped(name: str) -> Path:
    """A file or folder shipped with the package: inside it when installed, beside it in the repository."""
    inside = _PACKAGE / name
    return inside if inside.exists() else ROOT / name


ASSETS = _shipped("assets")
PAGE = _shipped("app.py")
# Files of a run's directory; `MODEL` is the folder of the model that it exported.
RECIPE, EVENTS, MODEL = "recipe.json", "events.jsonl", "model"


def is_run(folder: Path) -> bool:
    """Whether `folder` is the directory of a run, which its own files tell."""
    return (folder / RECIPE).is_file() and (folder / EVENTS).is_file()


def named_path(name: str) -> Path | None:
    """The path that somebody named; None where it cannot be one (nobody's home, far too long)."""
    try:
        path = Path(name).expanduser()
        path.stat()
    except FileNotFoundError:
        return path
    except (OSError, ValueError, RuntimeError):
        return None
    return path


def python_path() -> str:
    """PYTHONPATH for a process of this project, which runs in the user's folder, where relative paths mean
    something."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def cache_folder() -> Path:
    """The folder for what this project fetched; `PIP_STUDIO_CACHE` overrides it."""
    if chosen := os.environ.get("PIP_STUDIO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pip-studio"
