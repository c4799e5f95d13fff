"""PIP Studio's page: its layout, and which handler answers what. What it shows and does comes from
`pip_core.ui`; runs are worker processes that outlive it. Start it with `python app.py`."""

from __future__ import annotations

from pip_core.core.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment()  # before torch is imported

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path

import gradio as gr
import plotly

from pip_core.core.errors import UserError, told
from pip_core.core.recipe import Recipe
from pip_core.data.files import PACKED, TABLES
from pip_core.engine import stages
from pip_core.inspection.processes import ModelProcesses
from pip_core.planning.estimate import make_plan
from pip_core.reporting.run_summary import RunSummary
from pip_core.reporting.theme import sendable
from pip_core.runs.queue import RunQueue
from pip_core.scoring import METHODS
from pip_core.ui import (
    comparison,
    curves,
    download,
    fields,
    form,
    handlers,
    heatmap,
    inspection,
    labels,
    model_tools,
    ranges,
    refresh,
    sent,
    serving,
    stage_curves,
    status,
    verdict,
)
from pip_core.ui.follow import Followers

PLOTLY = Path(plotly.__file__).parent / "package_data"
NOTHING = RunSummary()
Names = Sequence[str]
QUEUE_SECONDS = 0.02
FOLDED = {"open": False, "visible": False, "elem_classes": "card"}
Slider = ranges.forgiving(gr.Slider)
TEXT_FILES = [".txt", ".md", *TABLES, PACKED]
# No refresh waits for another one, and none of this is for programs (see `for_programs`).
QUIET = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


changing = partial(handlers.changing, update=gr.update, skip=gr.skip)


class StudioPage:
    """The page over the runs of one queue.

    Attributes:
        ui: components by name.
    """

    def __init__(self, queue: RunQueue) -> None:
        self.queue, self.handlers, self.followers = queue, handlers.PageHandlers(queue), Followers(queue)
        self.tools = model_tools.ModelTools(queue, ModelProcesses(server=queue.server))
        self.ui: dict[str, gr.components.Component] = {}
        self.recipe = Recipe()
        self.values = {name: change["value"] for name, change in fields.to_form(self.recipe).items()}
        # The usual recipe's preview is there from the start: a slow one that came later could replace that of
        # what was entered meanwhile. A session makes components anew from what their constructors were given.
        self.preview = self.handlers.preview_form("", *(self.values[name] for name in fields.fields()))

    def build(self) -> gr.Blocks:
        """The page's components and events."""
        ui = self.ui
        with serving.guarded(gr.Blocks, gr.Error)(**serving.PAGE) as page:
            ui["run"], ui["picked"] = gr.State(""), gr.State(())
            ui["seen"] = gr.JSON([], visible="hidden", elem_id="seen")
            # The browser keeps the id of its last run, and its secret token.
            ui["memory"] = gr.BrowserState({}, storage_key="pip-studio", secret="pip-studio")
            ui["timer"] = gr.Timer(refresh.IDLE_SECONDS)
            self.head()
            with gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=0, min_width=360, elem_id="left"):
                    self.form()
                with gr.Column(scale=9, min_width=340, elem_id="right"):
                    self.status()
                    self.outcome()
                    with gr.Tabs(elem_id="tabs") as ui["tabs"]:
                        for name in ("live", "inspect", "compare", "download"):
                            with gr.Tab(name.capitalize(), id=name):
                                getattr(self, f"{name}_tab")()
            self.wire(page)
            self.for_programs()
        return page

    # Layout

    def control(self, name: str, kind: type, *values, **options) -> None:
        """A control with its label, its one short line, and the usual recipe's value."""
        label, info = labels.CONTROLS[name]
        if name in self.values:
            options.setdefault("value", self.values[name])
        options |= self.preview.get(name, {})
        self.ui[name] = kind(*values, label=label, info=info, elem_id=name, **options)

    def button(self, name: str, label: str, kind: type = gr.Button, **options) -> None:
        """A small button."""
        self.ui[name] = kind(label, size="sm", min_width=80, elem_id=name, **options)

    def generated(self, made: fields.Control) -> None:
        """The control of a setting that has none made by hand."""
        options = {"label": made.label, "info": made.info, "value": self.values[made.name], **made.options}
        self.ui[made.name] = getattr(gr, made.component)(elem_id=made.name, **options)

    def head(self) -> None:
        with gr.Row(elem_id="head", equal_height=True):
            gr.HTML(labels.HEAD, elem_id="brand")
            options = {"value": "", "label": "Runs", "show_label": False, "elem_id": "runs", "scale": 0}
            self.ui["runs"] = gr.Dropdown([("new run", "")], **options)
            gr.HTML(labels.DARK + labels.HELP, elem_id="tools")

    def form(self) -> None:
        """The form: model, text, method and units, target; then what few people change."""
        ui = self.ui
        with gr.Accordion("What to prune, and how", elem_id="form"):
            with gr.Column(elem_classes="step"):
                self.control("model", gr.Dropdown, form.MODELS, allow_custom_value=True)
                self.html("model_line")
            with gr.Column(elem_classes="step"):
                self.control("calibration", gr.Dropdown, form.TEXTS, allow_custom_value=True)
                with gr.Accordion("See the two texts, or use your own", open=False):
                    self.control("kinds", gr.CheckboxGroup, form.EDITS)
                    self.control("rate", Slider, 5, 100, step=5)
                    self.html("views_small")
                    self.control("pasted", gr.Textbox, lines=2, max_lines=6)
                    ui["upload"] = gr.UploadButton("Upload a text file", size="sm", file_types=TEXT_FILES)
            with gr.Column(elem_classes="step"):
                with gr.Row():
                    self.control("method", gr.Dropdown, [(m.title, m.name) for m in METHODS], min_width=140)
                    self.control("units", gr.Dropdown, min_width=140)
                self.html("method_note")
            with gr.Column(elem_classes="step"):
                self.control("target", Slider, 2, 60, step=1)
                self.html("plan")
            # Enabled once the browser has sent its token: a run started before would have no owner.
            ui["go"] = gr.Button("Prune", variant="primary", elem_id="go", interactive=False)
            self.html("kept", **serving.kept(self.queue.root))
            with gr.Accordion("Keep or drop single blocks", open=False):
                self.control("keep", gr.Dropdown, multiselect=True)
                self.control("drop", gr.Dropdown, multiselect=True)
                self.html("locks")
            with gr.Accordion("What is measured", open=False):
                several = {"multiselect": True, "allow_custom_value": True}
                self.control("measured_tasks", gr.Dropdown, form.MEASURED_TASKS, **several)
                self.control("items", gr.Number)
                self.control("questions", gr.Textbox, lines=2, max_lines=6)
                ui["upload_task"] = gr.UploadButton(
                    "Upload questions", size="sm", file_types=[*TABLES, PACKED]
                )
            with gr.Accordion("Advanced", open=False):
                for group, controls in groupby(fields.controls(), lambda control: control.group):
                    gr.HTML(f"<h3 class='group'>{group}</h3>")
                    for control in controls:
                        self.generated(control)

    def status(self) -> None:
        with gr.Row(elem_id="status-row", equal_height=True):
            self.html("status", status.status(NOTHING, "none"))
            with gr.Row(elem_id="controls"):
                for name, label in labels.ACTIONS:
                    loud = "primary" if name == "resume" else "secondary"
                    self.button(name, label, variant=loud, visible=False)
        self.html("notice", "")
        self.html("latest_message", "")

    def outcome(self) -> None:
        """What a run came to: the verdict, and figures. Above all charts, in a place that is kept for it."""
        with gr.Row(elem_id="outcome", elem_classes=["when-run", "outcome"], equal_height=True):
            self.html("banner", verdict.banner(NOTHING, "none"))
            with gr.Row(elem_id="take"):
                for name, label in labels.TAKE:
                    self.button(name, label, visible=False)
        self.html("tiles", status.tiles(NOTHING), elem_classes="when-run")

    def chart(self, name: str, value: dict) -> None:
        """A Plotly figure that is redrawn in place."""
        script = f"<script src='/gradio_api/file={PLOTLY.as_posix()}/plotly.min.js'></script>"
        draw = "pip.chart(element, props, watch)"
        options = {"html_template": "<div class='plot'></div>", "js_on_load": draw, "head": script}
        self.html(name, value, elem_classes="chart", **options)

    def html(self, name: str, value: str | dict = "", **options) -> None:
        self.ui[name] = gr.HTML(**{"value": value, "elem_id": name, **options, **self.preview.get(name, {})})

    def card(self, title: str, *classes: str, **options) -> gr.Column:
        """A framed part of the page with a title."""
        with gr.Column(elem_classes=["card", *classes], **options) as column:
            gr.HTML(f"<h2 class='title'>{title}</h2>")
        return column

    def live_tab(self) -> None:
        with gr.Row(elem_classes="when-idle", equal_height=True):
            with gr.Column(min_width=330, elem_classes="card"):
                self.html("map")
            with gr.Column(min_width=330, elem_classes="card"):
                self.html("views")
        with gr.Row(elem_classes="when-run", equal_height=True):
            with self.card(labels.IMPORTANCE, min_width=330):
                self.chart("heatmap", sendable(heatmap.importance_heatmap(NOTHING)))
            with self.card(labels.COST, min_width=330):
                self.chart("curves", sendable(curves.cost_curves(NOTHING)))
        with self.card(labels.STAGE_CURVES, "when-run", visible=False) as self.ui["stage_card"]:
            self.chart("stage_curves", sendable(stage_curves.stage_curves(NOTHING)))
        gr.HTML(labels.STEPS, elem_classes="when-idle")
        with self.card("Log", "when-run"):
            self.html("log", status.log(NOTHING))
        with gr.Accordion("Charts as numbers", open=False, elem_classes=["card", "when-run"]):
            self.html("measurements", curves.measurement_table(NOTHING))
            gr.HTML("<p class='line'>The score and rank of every block are under Inspect.</p>")
        with gr.Accordion("Continue or branch", elem_id="onward", **FOLDED) as self.ui["onward"]:
            gr.HTML("<p class='line'>All of these use the settings that the form has now.</p>")
            with gr.Row(visible=False) as self.ui["repeats"]:
                for kind in stages.repeatable():
                    self.button(f"repeat_{kind.name}", f"{kind.title} this run")
            with gr.Row():
                self.button("extend", "Continue this run to the form's target")
                self.control("upto", gr.Number, value=0, min_width=120)
                self.button("fork", "Branch: a new run with the form's settings")

    def inspect_tab(self) -> None:
        with self.card("The network"):
            self.html("maps", "<p class='empty'>The dense and the pruned model appear here.</p>")
        with self.card("Task by task"):
            self.html("tasks", inspection.tasks(NOTHING))
        with self.card("Scores"):
            self.html("scores", heatmap.score_table(NOTHING))
        with self.card("Chat with both"):
            with gr.Row(equal_height=True):
                self.control("prompt", gr.Textbox, value=labels.PROMPT, scale=6, max_lines=4)
                self.button("ask", "Ask both", scale=1)
            with gr.Row():
                for name, text in model_tools.no_answers().items():
                    self.html(name, text)
        with self.card("Where their predictions differ"):
            with gr.Row(equal_height=True):
                self.control("text", gr.Textbox, value=labels.SAMPLE, scale=6, max_lines=6)
                self.button("differ", "Compare predictions", scale=1)
            self.html("places", inspection.disagreements([]))
        with self.card("Speed and memory"):
            self.html("speed", inspection.speed(None))
            self.button("measure", "Measure both now")

    def compare_tab(self) -> None:
        with gr.Column(elem_classes="card"):
            self.control("chosen", gr.CheckboxGroup, [])
            self.chart("comparison", sendable(comparison.chart([])))
            self.html("summary", comparison.summary([]))
            self.button("compare_csv", "Download as CSV", gr.DownloadButton, visible=False)
        with gr.Accordion("Try several methods at once", open=False, elem_classes="card"):
            self.control("methods", gr.CheckboxGroup, [(m.title, m.name) for m in METHODS])
            self.button("sweep", "Run them all")
        with self.card("Your runs"):
            self.html("table")
        with gr.Accordion("Rename or delete the shown run", **FOLDED) as self.ui["own"]:
            with gr.Row():
                self.control("name", gr.Textbox, scale=4)
                self.button("rename", "Rename")
                self.button("delete", "Delete …")
            with gr.Row(visible=False, elem_id="sure") as self.ui["sure"]:
                self.html("sure_words")
                self.button("delete_it", "Delete it", variant="stop")
                self.button("keep_it", "Keep it")

    def download_tab(self) -> None:
        with gr.Column(elem_classes="card"):
            self.html("verdict", download.verdict(NOTHING))
            self.button("zip", "Download", gr.DownloadButton, visible=False, variant="primary")
            with gr.Row(elem_id="files"):
                for name, text in labels.FILES:
                    self.button(name, text, gr.DownloadButton, visible=False)
            self.html("load", "")
            self.html("command", "")

    # Events

    def on(self, event: Callable, handler: Callable, inputs: Names, outputs: Names, **options):
        """Answer one event of the page with a handler."""
        return self.growing(event, changing(handler, outputs), inputs, outputs, **options)

    def growing(self, event: Callable, handler: Callable, inputs: Names, outputs: Names, **options):
        """Answer an event with values of components, which may grow while they are shown."""
        sources, targets = ([self.ui[name] for name in names] for names in (inputs, outputs))
        return event(sent.checking(handler, inputs, as_errors), sources, targets, **{**QUIET, **options})

    def wire(self, page: gr.Blocks) -> None:
        """Which handler answers which event."""
        ui, on, act = self.ui, self.on, self.handlers
        names = list(fields.fields())
        changed = partial(refresh.refresh, self.queue)
        refreshing = (changed, ["memory", "run", "seen", "picked"], refresh.OUTPUTS)

        def refreshed(after):
            return on(after.then, *refreshing).then(None, [ui["memory"]], None, js="m => pip.address(m.run)")

        shown = ["memory", "run", "go", *names]

        def open_page(memory: dict, request: gr.Request):
            run_id = request.query_params.get("run")
            opening = changing(lambda known: act.open_page(known, run_id), shown)
            return sent.checking(opening, ["memory"], as_errors)(memory)

        outputs = [ui[name] for name in shown]
        ready = page.load(open_page, [ui["memory"]], outputs, js="m => { pip.begin(); return m; }", **QUIET)
        refreshed(ready).then(None, [ui["memory"]], None, js="m => { if (m.run) pip.fold(); }")
        changes = [ui[name].change for name in names]
        last = {"trigger_mode": "always_last"}  # of what is chosen quickly one after the other
        on(partial(gr.on, changes), act.preview_form, ["run", *names], handlers.PREVIEW, **last)
        # Answered at once, by one request, where gradio's queue needs a request and a stream.
        on(ui["timer"].tick, *refreshing, queue=False)
        started = refreshed(on(ui["go"].click, act.start, ["memory", *names], handlers.NEW_RUN))
        started.then(None, None, None, js="() => pip.fold()")
        chosen = ["memory", "run", "notice", *names]
        refreshed(on(ui["runs"].input, act.choose, ["memory", "runs"], chosen, **last))
        for action in ("stop", "pause", "resume", "undo", "export_now"):
            refreshed(on(ui[action].click, partial(act.act, action), ["memory", "run"], ["notice"]))
        for name, tab in labels.LEADS.items():
            on(ui[name].click, partial(dict, tabs={"selected": tab}), [], ["tabs"])
        refreshed(on(ui["extend"].click, act.extend, ["memory", "run", "target"], ["notice"]))
        for kind in stages.repeatable():
            again = ui[f"repeat_{kind.name}"].click, partial(act.repeat, kind.name), ["memory", "run", *names]
            refreshed(on(*again, ["notice"]))
        refreshed(on(ui["fork"].click, act.fork, ["memory", "run", "upto", *names], handlers.NEW_RUN))
        refreshed(on(ui["sweep"].click, act.sweep, ["memory", "methods", *names], handlers.SWEPT))
        refreshed(on(ui["rename"].click, act.rename, ["memory", "run", "name"], ["seen", "notice"]))
        on(ui["delete"].click, act.ask_delete, ["memory", "run"], ["sure", "sure_words", "notice"])
        on(ui["keep_it"].click, partial(dict, sure={"visible": False}), [], ["sure"])
        refreshed(on(ui["delete_it"].click, act.delete, ["memory", "run"], handlers.DELETED))
        comparing = partial(refresh.show_comparison, self.queue), ["chosen"], refresh.COMPARISON
        refreshed(on(ui["chosen"].input, *comparing, **last))
        on(ui["upload"].upload, act.upload, ["upload"], ["calibration", "pasted"])
        on(ui["upload_task"].upload, act.upload_task, ["upload_task", "measured_tasks"], ["measured_tasks"])
        asking, tools = partial(gr.on, [ui["ask"].click, ui["prompt"].submit]), self.tools
        self.growing(asking, tools.chat, ["run", "prompt"], ["dense-answer", "pruned-answer"])
        self.growing(ui["differ"].click, tools.predictions, ["run", "text"], ["places"])
        self.growing(ui["measure"].click, tools.speeds, ["run"], ["speed"])

    def for_programs(self) -> None:
        """The main job for `gradio_client`: start, follow, result."""

        def start(recipe: dict, name: str = "") -> str:
            """Start a run. `recipe` holds the settings that are not the usual ones, see `python -m pip_core
            prune --help`. Returns the run's id."""
            with as_errors():
                return self.handlers.launch(sent.settings(recipe), sent.text(name))

        async def follow(run: str) -> dict:  # of every yield: that is how gradio counts what a program gets
            """A run's state (a JSON object) whenever it changes, until it ends."""
            with as_errors():
                async for facts in self.followers.follow(sent.text(run)):
                    yield facts

        def result(run: str) -> str:
            """The exported model of a finished run, as the path of a zip file."""
            with as_errors():
                return str(self.queue.packed(sent.text(run)))

        for job in (start, follow):
            gr.api(job, api_name=job.__name__, concurrency_limit=None)
        run = gr.Textbox(visible=False)
        run.submit(result, run, gr.File(visible=False), api_name="result", concurrency_limit=4)


@contextmanager
def as_errors() -> Iterator[None]:
    """What a person reads on the page, a program gets as an error."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def main() -> None:
    """Serve the page over the runs below PIP_STUDIO_RUNS (usually ./runs)."""
    root = Path(os.environ.get("PIP_STUDIO_RUNS", "runs")).resolve()
    serving.prepare_to_serve(root)
    with suppress(UserError):  # where the usual model is missing, the form says so
        make_plan(Recipe())  # measures this machine before a browser on it takes its share
    queue = RunQueue(root)
    queue.schedule_in_background()
    # A finished model is served from where it is, not copied into a cache first. Ids of runs cannot be
    # guessed, and whoever knows one may see that run.
    gr.set_static_paths([root, PLOTLY])
    page = StudioPage(queue).build().queue(max_size=serving.MOST_EVENTS)
    # Gradio looks into its queue a thousand times a second, which alone takes some percent of a core.
    page._queue.sleep_when_free = QUEUE_SECONDS
    page.launch(
        # Fonts as objects: gradio compares themes at the start, and cannot compare plain names.
        theme=gr.themes.Base(
            primary_hue="blue",
            neutral_hue="slate",
            font=[gr.themes.Font(name) for name in ("Inter", "system-ui", "sans-serif")],
        ),
        **serving.serving_options(root),
    )


if __name__ == "__main__":
    told(main)
