"""Values that no page sends, for every event of the page."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState

DEEP: list = []
for _ in range(400):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 1.5, 1e308, float("nan"), float("inf"), 10**40),
    *(
        "",
        " ",
        "0" * 24,
        "x" * 100_000,
        "\0",
        "\ud800",
        "~nosuchuser",
        "../../etc/passwd",
        "<script>",
        "a/b@c",
    ),
    *([], [None], ["x"] * 5000, [[]], {}, {"owner": None}, {"owner": []}, {"owner": "me", "run": 7}),
    *({"value": 1}, {"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}),
    DEEP,
)


@dataclass
class Outcome:
    """What came of calls: refusals in a sentence, answers, and faults of the program."""

    answered: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return self.answered + self.refused + len(self.faults)


class Asked:
    """A request without a run in its address."""

    session_hash, username = "odd", None

    @property
    def query_params(self) -> dict:
        return {}


def cases(blocks: gr.Blocks, calls: int, seed: int) -> Iterator[tuple[Any, list]]:
    """(event, values): in turn for every event, with one value odd or all of them."""
    draw, events = random.Random(seed), list(blocks.fns.values())
    usual = {c._id: getattr(c, "value", None) for fn in events for c in fn.inputs}
    for number in range(calls):
        fn = events[number % len(events)]
        values = [usual[c._id] for c in fn.inputs]
        if number % 3 and values:
            values[draw.randrange(len(values))] = draw.choice(ODD)
        else:
            values = [draw.choice(ODD) for _ in values]
        yield fn, values


def call_all(blocks: gr.Blocks, calls: int, seed: int = 0) -> Outcome:
    """Call events with odd values, as gradio's routes do after reading a request."""
    found = Outcome()

    async def call() -> None:
        session = SessionState(blocks)
        for fn, values in cases(blocks, calls, seed):
            try:
                # A task of its own, as a request has: gradio remembers things by task.
                await asyncio.create_task(blocks.process_api(fn, values, state=session, request=Asked()))
                found.answered += 1
            except gr.Error as error:
                if error.print_exception:
                    found.faults.append(f"{_name(fn)}: {error!r}")
                else:
                    found.refused += 1
            except Exception as error:
                found.faults.append(f"{_name(fn)} with {str(values)[:200]}: {error!r}"[:600])

    asyncio.run(call())
    return found


def _name(fn: Any) -> str:
    return f"{fn.api_name or getattr(fn.fn, '__name__', fn.fn)}"
