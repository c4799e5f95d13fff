"""PIP Studio's page: layout and wiring only. What it shows and does comes from `pip_core.ui`; what it
starts are worker processes that outlive it. Run it with `python app.py`."""

from __future__ import annotations

from pip_core.core.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment()  # before torch is imported

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import gradio as gr
import plotly

from pip_core.core.errors import UserError
from pip_core.core.paths import ASSETS
from pip_core.core.recipe import Recipe
from pip_core.core.settings import AUTO
from pip_core.data.files import TABLES, UPLOADS
from pip_core.engine.stages.load import DTYPES
from pip_core.planning.estimate import make_plan
from pip_core.reporting.run_summary import RunSummary
from pip_core.reporting.theme import sendable
from pip_core.runs import retention
from pip_core.runs.queue import UPLOADS as UPLOADED
from pip_core.runs.queue import RunQueue
from pip_core.scoring import METHODS
from pip_core.ui import (
    comparison,
    curves,
    download,
    form,
    heatmap,
    inspection,
    labels,
    model_tools,
    refresh,
    status,
)
from pip_core.ui.handlers import FIELDS, NO, YES, PageHandlers, to_form

ROOT = Path(os.environ.get("PIP_STUDIO_RUNS", "runs")).resolve()
STUDIO = RunQueue(ROOT)
DESK = PageHandlers(STUDIO)
PLOTLY = Path(plotly.__file__).parent / "package_data"
DEFAULT, NOTHING = Recipe(), RunSummary()
DEFAULTS = {name: change["value"] for name, change in to_form(DEFAULT).items()}
ACTIONS = [("stop", "Stop"), ("pause", "Pause"), ("undo", "Undo last"), ("resume", "Resume")]
ACTIONS += [("export_now", "Export now"), ("get", "Download")]
FILES = [("card", "Model card"), ("recipe", "Recipe"), ("events", "Events"), ("csv", "Measurements, CSV")]
FILES += [("scores_csv", "Scores, CSV")]
QUEUE_SECONDS = 0.02
# Gradio's own copies of what was uploaded: looked through every hour, kept for a day.
CACHE = (3600, 86400)
TEXTS = [".txt", ".md", ".jsonl", ".csv", ".parquet"]
# Nobody's glance waits for another's, and none of this is for programs (see `for_programs`).
QUIET = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}

ui: dict[str, gr.components.Component] = {}


def changing(handler: Callable, outputs: Sequence[str]) -> Callable:
    """A handler of the desk as one of gradio's: what it does not name is left alone."""

    def handle(*values):
        changes = handler(*values)
        told = [gr.update(**changes[name]) if name in changes else gr.skip() for name in outputs]
        return told if len(told) > 1 else told[0]

    return handle


def on(event: Callable, handler: Callable, inputs: Sequence[str], outputs: Sequence[str], **options):
    """Wire one event of the page."""
    targets = [ui[name] for name in outputs]
    return event(changing(handler, outputs), [ui[name] for name in inputs], targets, **{**QUIET, **options})


MEANT = [
    *("model_line", "method_note", "units", "keep", "drop", "locks", "plan"),
    *("views", "views_small", "map", "notice"),
]
GLANCE = [
    *("status", "timer", "seen", "runs", "chosen", "picked", "onward", "upto", "notice"),
    *("stop", "pause", "resume", "undo", "export_now", "get"),
    *("heatmap", "curves", "tiles", "log", "said", "measurements", "scores", "tasks", "maps"),
    *("verdict", "load", "command", "zip", "recipe", "events", "csv", "scores_csv", "card"),
    *("comparison", "summary", "compare_csv"),
]
GOING = ["run", "memory", "notice", "tabs"]


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="PIP Studio", fill_width=True, analytics_enabled=False, delete_cache=CACHE) as page:
        ui["run"], ui["picked"] = gr.State(""), gr.State(())
        ui["seen"] = gr.JSON([], visible="hidden", elem_id="seen")
        # Of a run only its id is kept in the browser, and whose browser it is.
        ui["memory"] = gr.BrowserState({}, storage_key="pip-studio", secret="pip-studio")
        ui["timer"] = gr.Timer(refresh.IDLE_SECONDS)
        masthead()
        with gr.Row(equal_height=False, elem_id="bench"):
            with gr.Column(scale=0, min_width=360, elem_id="left"):
                form_part()
            with gr.Column(scale=9, min_width=340, elem_id="right"):
                status_part()
                with gr.Tabs(elem_id="tabs") as ui["tabs"]:
                    with gr.Tab("Live", id="live"):
                        live_part()
                    with gr.Tab("Inspect", id="inspect"):
                        inspect_part()
                    with gr.Tab("Compare", id="compare"):
                        compare_part()
                    with gr.Tab("Download", id="download"):
                        download_part()
        # What the usual recipe means stands there from the start; nothing that is slow can come later
        # and say it over what has been typed meanwhile.
        for name, change in DESK.meaning("", *(DEFAULTS[field] for field in FIELDS)).items():
            for attribute, value in change.items():
                setattr(ui[name], attribute, value)
        wire(page)
        for_programs()
    return page


def masthead() -> None:
    with gr.Row(elem_id="head", equal_height=True):
        gr.HTML(labels.HEAD, elem_id="brand")
        new = [("new run", "")]
        ui["runs"] = gr.Dropdown(new, value="", label="Runs", show_label=False, elem_id="runs", scale=0)
        gr.HTML(labels.DARK + labels.HELP, elem_id="tools")


def put(name: str, kind: type, *values, **options) -> None:
    """A control of the page, with its label, its one short line, and the usual recipe's value."""
    label, info = labels.CONTROLS[name]
    if name in DEFAULTS:
        options.setdefault("value", DEFAULTS[name])
    ui[name] = kind(*values, label=label, info=info, elem_id=name, **options)


def press(name: str, label: str, kind: type = gr.Button, **options) -> None:
    """A small button."""
    ui[name] = kind(label, size="sm", min_width=80, elem_id=name, **options)


def form_part() -> None:
    """What goes in, in four steps."""
    with gr.Accordion("What to prune, and how", elem_id="form"):
        with gr.Column(elem_classes="step"):
            put("model", gr.Dropdown, form.MODELS, allow_custom_value=True)
            ui["model_line"] = gr.HTML("<div class='line'>&nbsp;<br>&nbsp;</div>")
        with gr.Column(elem_classes="step"):
            put("calibration", gr.Dropdown, form.READ, allow_custom_value=True)
            with gr.Accordion("See both views, bring your own text", open=False):
                put("kinds", gr.CheckboxGroup, form.EDITS)
                put("rate", gr.Slider, 5, 100, step=5)
                ui["views_small"] = gr.HTML()
                put("pasted", gr.Textbox, lines=2, max_lines=6)
                ui["upload"] = gr.UploadButton("Upload a text file", size="sm", file_types=TEXTS)
        with gr.Column(elem_classes="step"):
            with gr.Row():
                put("method", gr.Dropdown, [(m.title, m.name) for m in METHODS], min_width=140)
                put("units", gr.Dropdown, form.unit_choices(DEFAULT), min_width=140)
            ui["method_note"] = gr.HTML(form.method_note(DEFAULT.method))
        with gr.Column(elem_classes="step"):
            put("target", gr.Slider, 2, 60, step=1)
            ui["plan"] = gr.HTML("<div class='plan'>&nbsp;</div>", elem_id="plan")
        # Pressed before the browser has said who it is, a run would be nobody's.
        ui["go"] = gr.Button("Prune", variant="primary", elem_id="go", interactive=False)
        with gr.Accordion("Lock or force blocks", open=False):
            put("keep", gr.Dropdown, multiselect=True)
            put("drop", gr.Dropdown, multiselect=True)
            ui["locks"] = gr.HTML("", elem_id="locks")
        with gr.Accordion("What is measured", open=False):
            put("asked", gr.Dropdown, form.ASKED, multiselect=True, allow_custom_value=True)
            put("items", gr.Number, precision=0)
            put("questions", gr.Textbox, lines=2, max_lines=6)
            ui["upload_task"] = gr.UploadButton("Upload questions", size="sm", file_types=list(TABLES))
        with gr.Accordion("Advanced", open=False):
            for name in ("windows", "window_tokens", "seed"):
                put(name, gr.Number, precision=0)
            put("allocation", gr.Radio, form.SHARING)
            put("depth_share", gr.Slider, 5, 95, step=5)
            put("step", gr.Number)
            put("vocabulary", gr.Dropdown, [AUTO, "0", "20", "40", "60"], allow_custom_value=True)
            put("refit", gr.Radio, [AUTO, YES, NO])
            put("dtype", gr.Radio, list(DTYPES))


def status_part() -> None:
    with gr.Row(elem_id="status-row", equal_height=True):
        ui["status"] = gr.HTML(status.status(NOTHING, "none"), elem_id="status")
        with gr.Row(elem_id="controls"):
            for name, label in ACTIONS:
                loud = "primary" if name in ("resume", "get") else "secondary"
                press(name, label, variant=loud, visible=False)
    ui["notice"] = gr.HTML("", elem_id="notice")
    ui["said"] = gr.HTML("", elem_id="said")


def chart(name: str, value: dict) -> None:
    """A Plotly figure that is redrawn in place."""
    ui[name] = gr.HTML(
        value,
        html_template="<div class='plot'></div>",
        js_on_load="pip.chart(element, props, watch)",
        head=f"<script src='/gradio_api/file={PLOTLY.as_posix()}/plotly.min.js'></script>",
        elem_id=name,
        elem_classes="chart",
    )


def titled(text: str) -> None:
    gr.HTML(f"<h2 class='title'>{text}</h2>")


def live_part() -> None:
    with gr.Row(elem_classes="when-idle", equal_height=True):
        with gr.Column(min_width=330, elem_classes="card"):
            ui["map"] = gr.HTML(form.checked(form.model_card_part, DEFAULT), elem_id="map")
        with gr.Column(min_width=330, elem_classes="card"):
            ui["views"] = gr.HTML(form.checked(form.two_views, DEFAULT), elem_id="views")
    with gr.Row(elem_classes="when-run", equal_height=True):
        with gr.Column(min_width=330, elem_classes="card"):
            titled("Importance <small>dark matters least · outlined goes</small>")
            chart("heatmap", sendable(heatmap.importance_heatmap(NOTHING)))
        with gr.Column(min_width=330, elem_classes="card"):
            titled("What it costs <small>band: ± one standard error</small>")
            chart("curves", sendable(curves.cost_curves(NOTHING)))
    gr.HTML(labels.STEPS, elem_classes="when-idle")
    ui["tiles"] = gr.HTML(status.tiles(NOTHING), elem_id="tiles", elem_classes="when-run")
    with gr.Column(elem_classes=["card", "when-run"]):
        titled("What happened")
        ui["log"] = gr.HTML(status.log(NOTHING), elem_id="log")
    with gr.Accordion("The charts' numbers", open=False, elem_classes=["card", "when-run"]):
        ui["measurements"] = gr.HTML(curves.measurement_table(NOTHING), elem_id="measurements")
        gr.HTML("<p class='line'>Every block's score and rank stand under Inspect.</p>")
    aside = {"open": False, "visible": False, "elem_id": "onward", "elem_classes": "card"}
    with gr.Accordion("Go on from here", **aside) as ui["onward"]:
        gr.HTML("<p class='line'>Both use what the form on the left says now.</p>")
        with gr.Row():
            press("extend", "Go on with this run to the form's target")
            put("upto", gr.Number, value=0, precision=0, min_width=120)
            press("fork", "Fork: a new run with the form's settings")


def inspect_part() -> None:
    with gr.Column(elem_classes="card"):
        titled("The network")
        ui["maps"] = gr.HTML("<p class='empty'>The dense model and what is left of it, block by block.</p>")
    with gr.Column(elem_classes="card"):
        titled("Task by task")
        ui["tasks"] = gr.HTML(inspection.tasks(NOTHING), elem_id="tasks")
    with gr.Column(elem_classes="card"):
        titled("Every block's score, iteration by iteration")
        ui["scores"] = gr.HTML(heatmap.score_table(NOTHING), elem_id="scores")
    with gr.Column(elem_classes="card"):
        titled("Talk to both")
        with gr.Row(equal_height=True):
            put("prompt", gr.Textbox, value=labels.PROMPT, scale=6, max_lines=4)
            press("ask", "Ask both", scale=1)
        with gr.Row():
            for name, text in zip(("dense_says", "pruned_says"), model_tools.no_answers(), strict=True):
                ui[name] = gr.HTML(text, elem_id=name.replace("_", "-"))
    with gr.Column(elem_classes="card"):
        titled("Where they expect different things")
        with gr.Row(equal_height=True):
            put("text", gr.Textbox, value=labels.SAMPLE, scale=6, max_lines=6)
            press("differ", "Compare predictions", scale=1)
        ui["places"] = gr.HTML(inspection.disagreements([]), elem_id="places")
    with gr.Column(elem_classes="card"):
        titled("Speed and memory")
        ui["speed"] = gr.HTML(inspection.speed(None), elem_id="speed")
        press("measure", "Measure both now")


def compare_part() -> None:
    with gr.Column(elem_classes="card"):
        put("chosen", gr.CheckboxGroup, [])
        chart("comparison", sendable(comparison.chart([])))
        ui["summary"] = gr.HTML(comparison.summary([]), elem_id="summary")
        press("compare_csv", "Download as CSV", gr.DownloadButton, visible=False)
    with gr.Accordion("Try several methods at once", open=False, elem_classes="card"):
        put("methods", gr.CheckboxGroup, [(m.title, m.name) for m in METHODS])
        press("sweep", "Run them all")
    with gr.Accordion("Rename or delete the run that is shown", open=False, elem_classes="card"), gr.Row():
        put("name", gr.Textbox, scale=4)
        press("rename", "Rename")
        press("delete", "Delete", variant="stop")


def download_part() -> None:
    with gr.Column(elem_classes="card"):
        ui["verdict"] = gr.HTML(download.verdict(NOTHING), elem_id="verdict")
        ui["zip"] = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="download")
        with gr.Row(elem_id="files"):
            for name, text in FILES:
                press(name, text, gr.DownloadButton, visible=False)
        ui["load"] = gr.HTML("", elem_id="load")
        ui["command"] = gr.HTML("", elem_id="command")


def wire(page: gr.Blocks) -> None:
    """What happens when."""
    fields = list(FIELDS)
    at_a_glance = (partial(refresh.refresh, STUDIO), ["memory", "run", "seen", "picked"], GLANCE)

    def look(after):
        return on(after.then, *at_a_glance).then(None, [ui["memory"]], None, js="m => pip.address(m.run)")

    shown = ["memory", "run", "go", *fields]

    def opened(memory: dict, request: gr.Request):
        return changing(lambda m: DESK.opened(m, request.query_params.get("run")), shown)(memory)

    meaning = (DESK.meaning, ["run", *fields], MEANT)
    outputs = [ui[name] for name in shown]
    ready = page.load(opened, [ui["memory"]], outputs, js="m => { pip.begin(); return m; }", **QUIET)
    look(ready).then(None, [ui["memory"]], None, js="m => { if (m.run) pip.fold(); }")
    changes = [ui[name].change for name in fields]
    on(lambda *a, **k: gr.on(changes, *a, **k), *meaning, trigger_mode="always_last")
    # A glance is answered at once: one request, where the queue needs a request and a stream.
    on(ui["timer"].tick, *at_a_glance, queue=False)
    started = look(on(ui["go"].click, DESK.start, ["memory", *fields], GOING))
    started.then(None, None, None, js="() => pip.fold()")
    look(on(ui["runs"].input, DESK.choose, ["memory", "runs"], ["memory", "run", "notice", *fields]))
    for action in ("stop", "pause", "resume", "undo", "export_now"):
        look(on(ui[action].click, partial(DESK.act, action), ["memory", "run"], ["notice"]))
    ui["get"].click(lambda: gr.Tabs(selected="download"), None, [ui["tabs"]], **QUIET)
    look(on(ui["extend"].click, DESK.extend, ["memory", "run", "target"], ["notice"]))
    look(on(ui["fork"].click, DESK.fork, ["memory", "run", "upto", *fields], GOING))
    look(on(ui["sweep"].click, DESK.sweep, ["memory", "methods", *fields], [*GOING, "chosen", "picked"]))
    look(on(ui["rename"].click, DESK.rename, ["memory", "run", "name"], ["seen", "notice"]))
    look(on(ui["delete"].click, DESK.delete, ["memory", "run"], ["memory", "run", "seen", "notice"]))
    compare = partial(refresh.show_comparison, STUDIO)
    look(on(ui["chosen"].input, compare, ["chosen"], ["picked", "comparison", "summary", "compare_csv"]))
    on(ui["upload"].upload, DESK.upload, ["upload"], ["calibration", "pasted"])
    on(ui["upload_task"].upload, DESK.upload_task, ["upload_task", "asked"], ["asked"])

    ask = [ui["ask"].click, ui["prompt"].submit]
    gr.on(
        ask,
        partial(model_tools.answers, STUDIO),
        [ui["run"], ui["prompt"]],
        [ui["dense_says"], ui["pruned_says"]],
        **QUIET,
    )
    ui["differ"].click(
        partial(model_tools.expectations, STUDIO), [ui["run"], ui["text"]], [ui["places"]], **QUIET
    )
    ui["measure"].click(partial(model_tools.speeds, STUDIO), [ui["run"]], [ui["speed"]], **QUIET)


@contextmanager
def refusals() -> Iterator[None]:
    """What a person is told, a program is told as an error."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def for_programs() -> None:
    """The main job for `gradio_client`: start, follow, result."""

    def start(recipe: dict, name: str = "") -> str:
        """Start a run. `recipe` holds the settings that are not the usual ones, see `python -m pip_core
        prune --help`. Returns the run's id."""
        with refusals():
            return DESK.launch(recipe, name)

    def follow(run: str) -> dict:  # of every yield: that is how gradio counts what a program gets
        """A run's state (a JSON object) whenever it changes, until it ends."""
        with refusals():
            yield from DESK.follow(run)

    def result(run: str) -> str:
        """The exported model of a finished run, as the path of a zip file."""
        with refusals():
            return str(STUDIO.zipped(run))

    for job in (start, follow):
        gr.api(job, api_name=job.__name__, concurrency_limit=None)
    run = gr.Textbox(visible=False)
    run.submit(result, run, gr.File(visible=False), api_name="result", concurrency_limit=None)


def main() -> None:
    with suppress(UserError):  # where the usual model is missing, the form says so
        make_plan(DEFAULT)  # measures this machine before a browser on it takes its share
    os.environ.setdefault(UPLOADS, str(ROOT / UPLOADED))
    STUDIO.keep_tending()
    # A finished model is served from where it lies, not copied into a cache first. The folder's
    # ids cannot be guessed, and knowing one is the right to see that run.
    gr.set_static_paths([ROOT, PLOTLY])
    page = build().queue()
    # Gradio looks into its queue a thousand times a second, which alone takes some percent of a core.
    page._queue.sleep_when_free = QUEUE_SECONDS
    page.launch(
        blocked_paths=[ROOT / retention.LOG],
        theme=gr.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=["Inter", "system-ui", "sans-serif"]
        ),
        css_paths=ASSETS / "page.css",
        head=f"<script>{(ASSETS / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=["api"],
        server_name=os.environ.get("GRADIO_SERVER_NAME"),
    )


if __name__ == "__main__":
    main()
