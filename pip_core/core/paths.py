"""Where things lie: the project, its assets, and what it has fetched."""

from __future__ import annotations

import os
from pathlib import Path

# The folder that holds the package `pip_core`; processes of ours are started with it on their path.
ROOT = Path(__file__).resolve().parent.parent.parent
ASSETS = ROOT / "assets"


def cache_folder() -> Path:
    """Where this project keeps what it fetched; `PIP_STUDIO_CACHE` overrides it."""
    if chosen := os.environ.get("PIP_STUDIO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pip-studio"
