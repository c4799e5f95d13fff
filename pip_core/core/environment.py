"""Environment variables and log levels of the libraries; programs set them, importing the package does not.

A program (the command line, the page) calls `prepare_environment` before it imports anything that imports
torch or huggingface_hub, since both read some variables only once, when they are imported. Worker processes
are started by the command line, and processes that a worker starts inherit what it set.
"""

from __future__ import annotations

import os

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
}


def prepare_environment() -> None:
    """Set `VARIABLES`, each unless the user has set it. Call it before torch is imported."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silence warnings and progress bars of transformers and huggingface_hub; imports both."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
