"""`python -m pip_core` and the command `pip-studio`: see `pip_core.cli`."""

from __future__ import annotations

import sys

from .cli.main import main


def run() -> None:
    """Run the command line, and end this process with its exit code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
