"""The environment variables that the page takes in place of options, for `--help` and the documentation."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence

from . import limits

# (variable, what it sets, what it is where none is set), in markdown.
VARIABLES = (
    ("PIP_STUDIO_RUNS", "folder of the page's runs", "`./runs`"),
    (
        "PIP_STUDIO_DEVICE",
        "`cpu` computes on the processor where an accelerator is found too; a number takes that accelerator "
        "alone",
        "all accelerators, where there are some",
    ),
    (
        "PIP_STUDIO_CACHE",
        "where SmolLM2 and rows of datasets are kept once fetched",
        "a folder of the user's cache",
    ),
    (
        "PIP_STUDIO_UPLOADS",
        "folders of uploaded files, the only local ones that visitors may read",
        "`uploads` among the runs",
    ),
    (
        limits.LOCAL_FILES,
        "`yes` or `no`: whether files and folders of this machine may be named, and its login to the Hub be "
        "used",
        "`yes` where only this machine reaches the page, otherwise `no`",
    ),
    (
        "PIP_STUDIO_PLACE",
        "where runs are worked on: `here`, in worker processes, `zero-gpu`, in calls that "
        "[ZeroGPU](space.md#on-zerogpu) lends its GPU to, or `hf-job:HARDWARE`, by "
        "[jobs on the Hub](space.md#a-job-on-the-hub)",
        "`zero-gpu` on a ZeroGPU Space, else `here`",
    ),
    (
        "PIP_STUDIO_JOB_SPACE",
        "the Space (`OWNER/NAME`) in whose image jobs run",
        "the Space itself, or `pip-studio` of who pays",
    ),
    (
        "PIP_STUDIO_LLAMA_CPP",
        "folder of llama.cpp's sources (2026 or later), whose converter makes GGUF files of results",
        "the converter that the package auto-round ships, for Python 3.11 and later",
    ),
    (
        "PIP_STUDIO_STAGES",
        "further stages, `module:Class`, separated by commas; see [extending.md](extending.md)",
        "none",
    ),
    ("GRADIO_SERVER_NAME", "gradio's own: the address to listen at", "`127.0.0.1`, this machine alone"),
    (
        "GRADIO_SERVER_PORT",
        "gradio's own: the port; without it the first from here that is free",
        "`7860`",
    ),
)
ABOUT = """\
Serve the page over the runs below PIP_STUDIO_RUNS. It takes no options: environment variables set where it is
and what it may take, for example

  PIP_STUDIO_RUNS=~/runs GRADIO_SERVER_PORT=8000 python app.py
"""
WIDTH, INDENT = 110, " " * 6


def take_no_options(arguments: Sequence[str]) -> None:
    """Print the variables and end where help is asked for; end with code 2 where anything else is."""
    parser = argparse.ArgumentParser(
        "app.py",
        description=ABOUT,
        epilog=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)


def _listed() -> str:
    rows = [*VARIABLES, *((name, meaning, here) for name, meaning, here, _ in limits.rows())]
    lines = ["environment variables:"]
    for name, meaning, usual in rows:
        words = _plain(f"{meaning} (usually: {usual})")
        lines += [f"  {name}", *textwrap.wrap(words, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)]
    return "\n".join(lines)


def _plain(markdown: str) -> str:
    """Markdown without links and code marks."""
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", markdown).replace("`", "")
