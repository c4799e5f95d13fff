"""PIP Studio's page in gradio: `pip_core.ui` says what stands on it and what answers, this file makes it so.
Runs are worker processes that outlive the page. Start it with `python app.py`."""

from __future__ import annotations

import sys

from pip_core.core.environment import prepare_environment
from pip_core.core.public_text import public
from pip_core.core.variables import take_no_options

if __name__ == "__main__":
    take_no_options(sys.argv[1:])
    prepare_environment(
        keep=["OAUTH_CLIENT_SECRET"]
    )  # before torch is imported; gradio signs visitors in with it

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import gradio as gr
import plotly
from gradio.state_holder import SessionState, StateHolder

from pip_core.core.errors import UserError, told
from pip_core.core.limits import can_sign_in
from pip_core.core.recipe import Recipe
from pip_core.evaluation import statistics
from pip_core.inspection.processes import ModelProcesses
from pip_core.planning.estimate import make_plan
from pip_core.runs import gallery
from pip_core.runs.queue import RunQueue
from pip_core.ui import answers, fields, handlers, model_tools, page, ranges, sent, serving, sessions
from pip_core.ui.follow import Followers
from pip_core.ui.layout import Node, Services, Wire

PLOTLY = Path(plotly.__file__).parent / "package_data"
PLOTLY_ADDRESS = f"/gradio_api/file={PLOTLY.as_posix()}/plotly.min.js"
QUEUE_SECONDS, NO_PROGRESS_SECONDS = 0.1, 60.0
# No refresh waits for another one, and none of this is for programs (see `for_programs`).
QUIET = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
# A figure is a gr.HTML that the browser hands to Plotly.
CHART = {
    "elem_classes": "chart",
    "html_template": "<div class='plot'></div>",
    "js_on_load": "pip.chart(element, props, watch)",
    "head": f"<script src='{PLOTLY_ADDRESS}'></script>",
}
KINDS = {"Slider": ranges.forgiving(gr.Slider), "Chart": partial(gr.HTML, **CHART)}
# Those that are not in the document.
UNSEEN = ("State", "BrowserState", "Timer")
changing = partial(answers.changing, update=gr.update, skip=gr.skip)


class StudioPage:
    """The page over the runs of one queue.

    Attributes:
        ui: components by name.
    """

    def __init__(self, queue: RunQueue) -> None:
        self.queue, self.handlers, self.followers = queue, handlers.PageHandlers(queue), Followers(queue)
        tools = model_tools.ModelTools(queue, ModelProcesses(server=queue.server))
        self.services = Services(queue, self.handlers, tools)
        self.usual = page.usual(self.services)
        self.ui: dict[str, gr.blocks.Block] = {}

    def build(self) -> gr.Blocks:
        """The page's components and events."""
        with serving.guarded(gr.Blocks, gr.Error, self.queue.root)(**serving.PAGE) as blocks:
            for node in page.layout(self.services):
                self.make(node)
            self.opening(blocks)
            for wire in page.wires(self.services):
                self.connect(wire)
            self.for_programs()
        return blocks

    def make(self, node: Node) -> None:
        """A component, and those that it contains."""
        kind = KINDS.get(node.kind) or getattr(gr, node.kind)
        seen = {"elem_id": node.name} if node.name and node.kind not in UNSEEN else {}
        made = kind(**{**seen, **node.options, **self.usual.get(node.name, {})})
        if node.name:
            self.ui[node.name] = made
        if node.children:
            with made:
                for child in node.children:
                    self.make(child)

    def connect(self, wire: Wire) -> None:
        """Let a handler answer events; components that its changes do not name are left alone."""
        events = [getattr(self.ui[name], kind) for name, kind in (e.split(".") for e in wire.events)]
        event = events[0] if len(events) == 1 else partial(gr.on, events)
        after = self.answer(event, wire)
        if wire.refreshes:
            after = self.refreshed(after)
        if wire.finally_js:
            after.then(None, None, None, js=wire.finally_js)

    def answer(self, event: Callable, wire: Wire):
        handler = wire.handler if wire.grows else changing(wire.handler, wire.outputs)
        handler = sent.checking(handler, wire.inputs, as_errors)
        if can_sign_in():
            handler = answers.for_signed_in(handler, gr.OAuthProfile | None, gr.OAuthToken | None)
        options = {**QUIET, **wire.options}
        return event(handler, self.named(wire.inputs), self.named(wire.outputs), **options)

    def named(self, names: Sequence[str]) -> list[gr.blocks.Block]:
        return [self.ui[name] for name in names]

    def refreshed(self, after):
        """Refresh the page after an event."""
        done = self.answer(after.then, page.refreshing(self.services))
        return done.then(None, [self.ui["memory"]], None, js=page.ADDRESS_JS)

    def opening(self, blocks: gr.Blocks) -> None:
        """Show the run that the address names, or the browser's last one."""
        shown = ("memory", "run", "go", *fields.fields())

        def open_page(memory: dict, request: gr.Request):
            run_id = request.query_params.get("run")
            opening = changing(lambda known: self.handlers.open_page(known, run_id), shown)
            return sent.checking(opening, ["memory"], as_errors)(memory)

        memory = [self.ui["memory"]]
        ready = blocks.load(open_page, memory, self.named(shown), js=page.BEGIN_JS, **QUIET)
        self.refreshed(ready).then(None, memory, None, js=page.OPENED_JS)

    def for_programs(self) -> None:
        """The main job for `gradio_client`: start, follow, stop, result."""

        def start(recipe: dict, name: str = "", key: str = "") -> str:
            """Start a run. `recipe` holds the settings that are not the usual ones, see `python -m pip_core
            prune --help`; `key` is a secret of your own, with which `stop` ends it. Returns the run's id."""
            with as_errors():
                return self.handlers.launch(sent.settings(recipe), sent.text(name), sent.text(key, 128))

        def stop(run: str, key: str = "") -> str:
            """Stop a run that was started with this key. Returns the run's id."""
            with as_errors():
                self.handlers.halt(sent.text(run), sent.text(key, 128))
                return run

        async def follow(run: str) -> dict:  # of every yield: that is how gradio counts what a program gets
            """A run's state (a JSON object) whenever it changes, until it ends."""
            with as_errors():
                async for facts in self.followers.follow(sent.text(run)):
                    yield facts

        def result(run: str) -> str:
            """The exported model of a finished run, as the path of a zip file."""
            with as_errors():
                return str(self.queue.packed(sent.text(run)))

        for job in (start, follow, stop):
            gr.api(job, api_name=job.__name__, concurrency_limit=None)
        run = gr.Textbox(visible=False)
        run.submit(result, run, gr.File(visible=False), api_name="result", concurrency_limit=4)


@contextmanager
def as_errors() -> Iterator[None]:
    """What a person reads on the page, a program gets as an error."""
    try:
        yield
    except UserError as error:
        raise gr.Error(public(str(error)), print_exception=False) from None


def main() -> None:
    """Serve the page over the runs below PIP_STUDIO_RUNS (usually ./runs)."""
    root = Path(os.environ.get("PIP_STUDIO_RUNS", "runs")).resolve()
    prepare_environment()  # gradio has read what it needs
    serving.prepare_to_serve(root)
    with suppress(UserError):  # where the usual model is missing, the form says so
        make_plan(Recipe())  # measures this machine before a browser on it takes its share
    gallery.place(root)
    queue = RunQueue(root)
    queue.schedule_in_background()
    # A finished model is served from where it is, not copied into a cache first. Ids of runs cannot be
    # guessed, and whoever knows one may see that run.
    gr.set_static_paths([root, PLOTLY])
    blocks = StudioPage(queue).build().queue(max_size=serving.MOST_EVENTS)
    # Gradio looks into its queue a thousand times a second, and for progress to show, of which this page has
    # none, a hundred times, which alone takes some percent of a core.
    blocks._queue.sleep_when_free = QUEUE_SECONDS
    blocks._queue.progress_update_sleep_when_free = NO_PROGRESS_SECONDS
    ready = threading.Event()
    app, *_ = blocks.launch(
        prevent_thread_lock=True,
        # Fonts as objects: gradio compares themes at the start, and cannot compare plain names.
        theme=gr.themes.Base(
            primary_hue="blue",
            neutral_hue="slate",
            font=[gr.themes.Font(name) for name in ("Inter", "system-ui", "sans-serif")],
        ),
        **serving.serving_options(root, ready, scripts=[PLOTLY_ADDRESS]),
    )
    app.state_holder = sessions.lean(StateHolder, SessionState)()
    app.state_holder.set_blocks(blocks)
    ready.set()
    statistics.warm_up()
    blocks.block_thread()


if __name__ == "__main__":
    told(main)
