"""Environment variables and log levels of the libraries; programs set them, importing the package does not.

A program (the command line, the page) calls `prepare_environment` before it imports anything that imports
torch or huggingface_hub, since both read some variables only once, when they are imported. Worker processes
are started by the command line, and processes that a worker starts inherit what it set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping

from .limits import on_space
from .paths import python_path

VARIABLES = {
    # How long the threads of a matrix product spin before they sleep, when they wait for one another. torch's
    # OpenMP spins so long by default that a run takes three times as long as soon as another program (a
    # browser, say) wants a core; sleeping at once costs a third when no other program does.
    "GOMP_SPINCOUNT": "1000",
    # Progress bars of the library would break the one line that is printed for each event.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Gradio would report to its makers that a page was started.
    "GRADIO_ANALYTICS_ENABLED": "False",
    # The tokenizers library warns whenever a process that used it starts another one.
    "TOKENIZERS_PARALLELISM": "false",
    # cuBLAS repeats itself with buffers of fixed sizes alone.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # What torch has no kernel for on Apple's GPUs is computed by the processor.
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
}


# What a public Space holds that is not its visitors': tokens, secrets, passwords.
_SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|KEY)(_PATH)?$", re.IGNORECASE)
NO_TOKEN = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}


def prepare_environment(keep: Container[str] = ()) -> None:
    """Set `VARIABLES`, each unless the user has set it; on a Space also drop its secrets. Call it before
    torch is imported.

    Args:
        keep: secrets that a library reads when it is imported; call it again then.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if on_space():
        for name in filter(_SECRET.search, list(os.environ)):
            if name not in keep:
                del os.environ[name]
        os.environ.update(NO_TOKEN)


def several_launched() -> bool:
    """Whether `torchrun` or `accelerate launch` started this process as one of several."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a process that this program starts: its own and `more`, without the secrets of a
    Space."""
    kept: Mapping[str, str] = os.environ
    if on_space():
        kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)} | NO_TOKEN
    return {**kept, "PYTHONPATH": python_path(), **more}


def quiet_libraries() -> None:
    """Silence warnings and progress bars of transformers and huggingface_hub; imports both."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
