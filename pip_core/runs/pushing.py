"""Pushing models to the Hub for the page: each in a process of its own, which alone knows the token.

`python -m pip_core.runs.pushing` is that process. It reads one JSON object from its standard input (what to
push, and the token), pushes as the command line does (`checkpoints.publish`), and writes a JSON object for
every step to its standard output, and one for the end. A push ends with the page: what it made on the Hub is
taken back, and the next push continues with what was uploaded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from ..checkpoints.publish import Pushed
from ..core.environment import child_environment
from ..core.errors import UserError
from ..core.fork_server import ForkServer, Process, start_afresh
from ..core.limits import limits

ENDED = (
    "The push ended before it was done, perhaps because memory ran out. Push again: what was uploaded is not "
    "sent twice."
)


@dataclass(frozen=True)
class Order:
    """What is to be pushed, and where to.

    Attributes:
        folder: of the exported model.
        token: of whoever pushes; empty for that of the person whose machine this is.
    """

    folder: Path
    repo: str
    public: bool = False
    overwrite: bool = False
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class PushState:
    """How far a push is. It is over when there is either `pushed` or `error`.

    Attributes:
        what, done, total: what it is at, and how many bytes of how many.
        pushed: what is on the Hub, verified.
        error: what went wrong, in a sentence.
    """

    repo: str
    what: str = "starting"
    done: int = 0
    total: int = 0
    pushed: Pushed | None = None
    error: str = ""

    @property
    def busy(self) -> bool:
        return self.pushed is None and not self.error


class Pushes:
    """The pushes of this process by whoever asked for them. No token is kept.

    Args:
        server: returns what forks their processes, so that they need not load their libraries.
    """

    def __init__(self, server: Callable[[], ForkServer | None] = lambda: None) -> None:
        self._server = server
        self._states: dict[Hashable, PushState] = {}
        self._processes: dict[Hashable, Process] = {}
        self._lock = threading.Lock()

    def start(self, key: Hashable, order: Order) -> None:
        """Begin a push; `state` tells how far it is.

        Args:
            key: the run, and whoever asks.

        Raises:
            UserError: this push is under way, or too many are, or the system starts no process.
        """
        with self._lock:
            if key in self._processes:
                raise UserError("This model is being pushed already. Stop that first, or wait for it.")
            if len(self._processes) >= (most := limits().pushes):
                raise UserError(
                    f"{most} model{'s are' if most > 1 else ' is'} being pushed already. Try again when "
                    "that is done."
                )
            self._processes[key], answers = self._launch(order)
            self._states[key] = PushState(order.repo)
        threading.Thread(target=self._follow, args=(key, answers), name="push", daemon=True).start()

    def state(self, key: Hashable) -> PushState | None:
        """How far a push is; None where there was none."""
        return self._states.get(key)

    def stop(self, key: Hashable) -> None:
        """End a push, which then takes back what it made."""
        if process := self._processes.get(key):
            process.send_signal(signal.SIGINT)

    def forget(self, key: Hashable) -> None:
        """Forget how a push that is over ended."""
        if key not in self._processes:
            self._states.pop(key, None)

    def _launch(self, order: Order) -> tuple[Process, IO[str]]:
        theirs, ours = os.pipe()
        answers, output = os.pipe()
        server = self._server()
        try:
            process = (server.start if server else start_afresh)(
                __name__, [], child_environment(), stdin=theirs, stdout=output, stderr=None
            )
        except OSError as error:
            os.close(ours)
            os.close(answers)
            raise UserError(f"No process could be started for the push: {error.strerror}.") from None
        finally:
            os.close(theirs)
            os.close(output)
        with suppress(BrokenPipeError), os.fdopen(ours, "w") as requests:
            json.dump({**asdict(order), "folder": str(order.folder)}, requests)
        return process, os.fdopen(answers)

    def _follow(self, key: Hashable, answers: IO[str]) -> None:
        state = self._states[key]
        with answers, suppress(OSError, ValueError):
            for line in answers:
                told = json.loads(line)
                if "pushed" in told:
                    told["pushed"] = Pushed(**told["pushed"])
                self._states[key] = state = replace(state, **told)
        if state.busy:
            self._states[key] = replace(state, error=ENDED)
        self._processes[key].wait()
        with self._lock:
            del self._processes[key]


def push_and_tell(order: Order, tell: Callable[[dict], None]) -> None:
    """Push, and tell of every step and of the end."""
    from ..checkpoints.publish import push

    steps = push(order.folder, order.repo, public=order.public, overwrite=order.overwrite, token=order.token)
    try:
        while True:
            step = next(steps)
            tell({"what": step.what, "done": step.done, "total": step.total})
    except StopIteration as end:
        tell({"pushed": asdict(end.value)})
    except UserError as error:
        tell({"error": str(error)})
    except KeyboardInterrupt:  # between two steps
        steps.close()
        tell({"error": "The push was stopped."})
    except Exception as error:
        traceback.print_exc()
        tell({"error": f"The push failed ({type(error).__name__}), which is a fault of this program."})
    finally:
        steps.close()


def main() -> None:
    """Do the push that the standard input asks for."""
    # Libraries print to standard output too; what they print goes to standard error instead.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from ..core.environment import quiet_libraries
    from ..core.memory import die_first

    for number in (signal.SIGINT, signal.SIGTERM):  # so that nothing half made is left on the Hub
        signal.signal(number, signal.default_int_handler)
    die_first()
    quiet_libraries()

    def tell(what: dict) -> None:
        print(json.dumps(what), file=output, flush=True)

    asked = json.load(sys.stdin)
    push_and_tell(Order(**{**asked, "folder": Path(asked["folder"])}), tell)


if __name__ == "__main__":
    main()
