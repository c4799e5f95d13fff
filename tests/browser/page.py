"""`python app.py`, whose workers begin as `tests.cheaper` says."""

from __future__ import annotations

import runpy
from collections.abc import Sequence

from pip_core.core.environment import prepare_environment

prepare_environment()  # before torch is imported

from pip_core.core.fork_server import AVAILABLE, ForkServer, Process  # noqa: E402
from pip_core.planning import estimate  # noqa: E402
from pip_core.runs import queue  # noqa: E402


class PatientServer(ForkServer):
    """Forks every worker, also the first, which would begin from nothing while the server gets ready."""

    def __init__(self, preload: Sequence[str]) -> None:
        super().__init__((*preload, "tests.cheaper"))

    def start(self, *arguments, **files) -> Process:
        assert not AVAILABLE or self.warm_up().wait(120), "the server does not get ready"
        return super().start(*arguments, **files)


if __name__ == "__main__":
    queue.ForkServer = PatientServer
    estimate.PROBE_SECONDS = 0.0
    runpy.run_path("app.py", run_name="__main__")
