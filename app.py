"""PIP Studio's page: layout and wiring only. What it shows and does comes from `pip_core.page`; what it
starts are worker processes that outlive it. Run it with `python app.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
import plotly

from pip_core.errors import UserError
from pip_core.files import UPLOADS
from pip_core.page import comparison, curves, download, form, heatmap, inspection, live, talk, words
from pip_core.page.desk import FIELDS, Desk, from_form
from pip_core.page.desk import UPLOADS as UPLOADED
from pip_core.page.ink import sendable
from pip_core.plan import make_plan
from pip_core.recipe import DTYPES, Recipe
from pip_core.scorers import METHODS
from pip_core.story import Story
from pip_core.studio import Studio
from pip_core.texts import ASSETS, DOMAINS, KNOWN, MIXED

ROOT = Path(os.environ.get("PIP_STUDIO_RUNS", "runs")).resolve()
STUDIO = Studio(ROOT)
DESK = Desk(STUDIO)
PLOTLY = Path(plotly.__file__).parent / "package_data"
DEFAULT, NOTHING = Recipe(), Story()
MODELS = ["smollm2-135m"]
POLL_SECONDS = 1.0
EDITS = [("swap two letters", "swap"), ("replace a letter", "replace"), ("insert a letter", "insert")]
SHARING = [("as many from every block", "equal"), ("the least of all", "global")]
# Nobody's glance waits for another's, and none of this is for programs (see `for_programs`).
QUIET = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}

ui: dict[str, gr.components.Component] = {}


def changing(handler: Callable, outputs: Sequence[str]) -> Callable:
    """A handler of the desk as one of gradio's: what it does not name is left alone."""

    def handle(*values):
        changes = handler(*values)
        return [gr.update(**changes[name]) if name in changes else gr.skip() for name in outputs]

    return handle


def on(event: Callable, handler: Callable, inputs: Sequence[str], outputs: Sequence[str], **options):
    """Wire one event of the page."""
    targets = [ui[name] for name in outputs]
    return event(changing(handler, outputs), [ui[name] for name in inputs], targets, **{**QUIET, **options})


MEANT = [
    "model_line",
    "method_note",
    "units",
    "keep",
    "drop",
    "plan",
    "views",
    "views_small",
    "map",
    "notice",
]
GLANCE = [
    *("status", "timer", "seen", "runs", "chosen", "stop", "pause", "resume", "undo", "export_now", "onward"),
    *("upto", "heatmap", "curves", "tiles", "log", "measurements", "scores", "tasks", "maps", "verdict"),
    *("command", "zip", "recipe", "events", "csv", "scores_csv", "card", "comparison", "summary"),
    *("compare_csv", "notice"),
]
GOING = ["run", "memory", "notice", "timer", "tabs"]


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="PIP Studio", fill_width=True, analytics_enabled=False) as page:
        ui["run"], ui["seen"] = gr.State(""), gr.State(())
        # Of a run only its id is kept in the browser, and whose browser it is.
        ui["memory"] = gr.BrowserState({}, storage_key="pip-studio", secret="pip-studio")
        ui["timer"] = gr.Timer(POLL_SECONDS, active=False)
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
        wire(page)
        for_programs()
    return page


def masthead() -> None:
    with gr.Row(elem_id="head", equal_height=True):
        gr.HTML(words.HEAD, elem_id="brand")
        ui["runs"] = gr.Dropdown(
            [("new run", "")],
            value="",
            label="Runs",
            show_label=False,
            elem_id="runs",
            min_width=160,
            scale=0,
        )
        gr.HTML(words.DARK + words.HELP, elem_id="tools")


def form_part() -> None:
    """What goes in, in four steps."""
    with gr.Accordion("What to prune, and how", elem_id="form"):
        with gr.Column(elem_classes="step"):
            ui["model"] = gr.Dropdown(
                MODELS,
                value=DEFAULT.model,
                allow_custom_value=True,
                label="Model",
                elem_id="model",
                info="from the list, a Hugging Face id, or a folder",
            )
            ui["model_line"] = gr.HTML("<div class='line'>&nbsp;<br>&nbsp;</div>")
        with gr.Column(elem_classes="step"):
            ui["calibration"] = gr.Dropdown(
                [MIXED, *DOMAINS, *KNOWN],
                value=DEFAULT.calibration,
                allow_custom_value=True,
                label="Text",
                elem_id="calibration",
                info="to read while scoring: a name, a file, hub:OWNER/NAME",
            )
            with gr.Accordion("See both views, bring your own text", open=False):
                ui["kinds"] = gr.CheckboxGroup(
                    EDITS, value=list(DEFAULT.kinds), label="Edits of the second view"
                )
                ui["rate"] = gr.Slider(5, 100, DEFAULT.rate * 100, step=5, label="Words edited, %")
                ui["views_small"] = gr.HTML()
                ui["pasted"] = gr.Textbox(label="Your own text", lines=2, max_lines=6, info="is read instead")
                ui["upload"] = gr.UploadButton(
                    "Upload a text file", size="sm", file_types=[".txt", ".md", ".jsonl", ".csv", ".parquet"]
                )
        with gr.Column(elem_classes="step"):
            with gr.Row():
                ui["method"] = gr.Dropdown(
                    [(m.title, m.name) for m in METHODS],
                    value=DEFAULT.method,
                    label="Method",
                    info="what decides",
                    min_width=140,
                    elem_id="method",
                )
                ui["units"] = gr.Dropdown(
                    [(name, ",".join(kinds)) for name, kinds in form.UNIT_SETS],
                    value=",".join(DEFAULT.units),
                    label="Removes",
                    info="what goes",
                    min_width=140,
                    elem_id="units",
                )
            ui["method_note"] = gr.HTML(form.method_note(DEFAULT.method))
        with gr.Column(elem_classes="step"):
            ui["target"] = gr.Slider(
                2,
                60,
                DEFAULT.target * 100,
                step=1,
                elem_id="target",
                label="How much, %",
                info="of all parameters, to remove",
            )
            ui["plan"] = gr.HTML("<div class='plan'>&nbsp;</div>", elem_id="plan")
        ui["go"] = gr.Button("Prune", variant="primary", elem_id="go")
        with gr.Accordion("Lock or force blocks", open=False):
            ui["keep"] = gr.Dropdown([], multiselect=True, label="Keep", info="blocks that lose nothing")
            ui["drop"] = gr.Dropdown(
                [], multiselect=True, label="Drop", info="blocks that go first, in order"
            )
        with gr.Accordion("Advanced", open=False):
            advanced_part()


def advanced_part() -> None:
    for name, label, info in (
        ("windows", "Windows", "pairs of views that are read, per iteration"),
        ("window_tokens", "Window length", "tokens of a clean view"),
        ("items", "Items per task", "measured after every removal; 0 is all of them"),
        ("seed", "Seed", "same recipe, same removals, always"),
    ):
        ui[name] = gr.Number(getattr(DEFAULT, name), label=label, info=info, precision=0)
    ui["allocation"] = gr.Radio(
        SHARING, value=DEFAULT.allocation, label="Heads and channels", info="how many each block gives"
    )
    ui["step"] = gr.Number(
        DEFAULT.step, label="Step", info="units per iteration, or a share below 1; 0 is the usual"
    )
    ui["dtype"] = gr.Radio(list(DTYPES), value=DEFAULT.dtype, label="Number format", info="to compute in")


def status_part() -> None:
    with gr.Row(elem_id="status-row", equal_height=True):
        ui["status"] = gr.HTML(live.status(NOTHING, "none"), elem_id="status")
        with gr.Row(elem_id="controls"):
            for name, words_, hint in (
                ("stop", "Stop", "stop"),
                ("pause", "Pause", "pause"),
                ("undo", "Undo last", "primary"),
                ("resume", "Resume", "resume"),
                ("export_now", "Export now", "export"),
            ):
                ui[name] = gr.Button(words_, size="sm", visible=False, elem_id=hint and name, min_width=60)
    ui["notice"] = gr.HTML("", elem_id="notice")


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
            titled(
                "How much every block matters <small>dark matters least; outlined goes; dotted may be next</small>"
            )
            chart("heatmap", sendable(heatmap.importance_heatmap(NOTHING)))
        with gr.Column(min_width=330, elem_classes="card"):
            titled("What it costs <small>band: ± one standard error</small>")
            chart("curves", sendable(curves.cost_curves(NOTHING)))
    gr.HTML(words.STEPS, elem_classes="when-idle")
    ui["tiles"] = gr.HTML(live.tiles(NOTHING), elem_id="tiles", elem_classes="when-run")
    with gr.Column(elem_classes=["card", "when-run"]):
        titled("What happened")
        ui["log"] = gr.HTML(live.log(NOTHING))
    with gr.Accordion("The charts' numbers", open=False, elem_classes="when-run"):
        ui["measurements"] = gr.HTML(curves.measurement_table(NOTHING), elem_id="measurements")
        ui["scores"] = gr.HTML(heatmap.score_table(NOTHING), elem_id="scores")
    with gr.Accordion("Go on from here", open=False, visible=False, elem_id="onward") as ui["onward"]:
        gr.HTML("<p class='line'>Both use what the form on the left says now.</p>")
        with gr.Row():
            ui["extend"] = gr.Button("Go on with this run to the form's target", size="sm", elem_id="extend")
            ui["upto"] = gr.Number(0, label="Removals taken over", precision=0, min_width=120)
            ui["fork"] = gr.Button("Fork: a new run with the form's settings", size="sm", elem_id="fork")


def inspect_part() -> None:
    with gr.Column(elem_classes="card"):
        titled("The network")
        ui["maps"] = gr.HTML("<p class='empty'>The dense model and what is left of it, block by block.</p>")
    with gr.Column(elem_classes="card"):
        titled("Task by task")
        ui["tasks"] = gr.HTML(inspection.tasks(NOTHING), elem_id="tasks")
    with gr.Column(elem_classes="card"):
        titled("Talk to both")
        with gr.Row(equal_height=True):
            ui["prompt"] = gr.Textbox("Why is the sky blue?", label="Prompt", scale=6, max_lines=4)
            ui["ask"] = gr.Button("Ask both", min_width=110, scale=1, elem_id="ask")
        with gr.Row():
            for name, text in zip(("dense_says", "pruned_says"), talk.no_answers(), strict=True):
                ui[name] = gr.HTML(text, elem_id=name.replace("_", "-"))
    with gr.Column(elem_classes="card"):
        titled("Where they expect different things")
        with gr.Row(equal_height=True):
            ui["text"] = gr.Textbox(words.SAMPLE, label="A text of yours", scale=6, max_lines=6)
            ui["differ"] = gr.Button("Compare predictions", min_width=110, scale=1, elem_id="differ")
        ui["places"] = gr.HTML(inspection.disagreements([]), elem_id="places")
    with gr.Column(elem_classes="card"):
        titled("Speed and memory")
        ui["speed"] = gr.HTML(inspection.speed(None), elem_id="speed")
        ui["measure"] = gr.Button("Measure both now", size="sm", elem_id="measure")


def compare_part() -> None:
    with gr.Column(elem_classes="card"):
        ui["chosen"] = gr.CheckboxGroup(
            [], label="Runs of this browser", info="each becomes a line", elem_id="chosen"
        )
        chart("comparison", sendable(comparison.chart([])))
        ui["summary"] = gr.HTML(comparison.summary([]), elem_id="summary")
        ui["compare_csv"] = gr.DownloadButton(
            "Download as CSV", size="sm", visible=False, elem_id="compare-csv"
        )
    with gr.Accordion("Try several methods at once", open=False):
        ui["methods"] = gr.CheckboxGroup(
            [(m.title, m.name) for m in METHODS],
            label="Methods",
            info="a run for each, all else as the form says; they wait in line",
        )
        ui["sweep"] = gr.Button("Run them all", size="sm", elem_id="sweep")
    with gr.Accordion("Rename or delete the run that is shown", open=False), gr.Row(equal_height=True):
        ui["name"] = gr.Textbox(label="New name", scale=4)
        ui["rename"] = gr.Button("Rename", size="sm", min_width=80, elem_id="rename")
        ui["delete"] = gr.Button("Delete", size="sm", min_width=80, variant="stop", elem_id="delete")


def download_part() -> None:
    with gr.Column(elem_classes="card"):
        ui["verdict"] = gr.HTML(download.verdict(NOTHING), elem_id="verdict")
        ui["zip"] = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="download")
        with gr.Row():
            for name, text in (
                ("card", "Model card"),
                ("recipe", "Recipe"),
                ("events", "Events"),
                ("csv", "Measurements, CSV"),
                ("scores_csv", "Scores, CSV"),
            ):
                ui[name] = gr.DownloadButton(
                    text, size="sm", visible=False, min_width=110, elem_id=f"get-{name}"
                )
        ui["command"] = gr.HTML("", elem_id="command")


def wire(page: gr.Blocks) -> None:
    """What happens when."""
    fields = list(FIELDS)
    glance = (DESK.look, ["memory", "run", "seen", "chosen"], GLANCE)

    def look(after):
        return on(after.then, *glance).then(None, [ui["run"]], None, js="id => pip.address(id)")

    def opened(memory: dict, request: gr.Request):
        outputs = ["memory", "run", "timer", *fields]
        return changing(lambda m: DESK.opened(m, request.query_params.get("run")), outputs)(memory)

    meaning = (DESK.meaning, fields, MEANT)
    outputs = [ui[name] for name in ("memory", "run", "timer", *fields)]
    look(
        on(
            page.load(opened, [ui["memory"]], outputs, js="m => { pip.begin(); return m; }", **QUIET).then,
            *meaning,
        )
    )
    changes = [ui[name].change for name in fields]
    on(lambda *a, **k: gr.on(changes, *a, **k), *meaning, trigger_mode="always_last")
    on(ui["timer"].tick, *glance)
    started = look(on(ui["go"].click, DESK.start, ["memory", *fields], GOING))
    started.then(None, None, None, js="() => pip.fold()")
    look(on(ui["runs"].input, DESK.choose, ["memory", "runs"], ["memory", "run", "timer", "notice", *fields]))
    for action in ("stop", "pause", "resume", "undo", "export_now"):
        act = (lambda name: lambda run: DESK.act(name, run))(action)
        look(on(ui[action].click, act, ["run"], ["timer", "notice"]))
    look(on(ui["extend"].click, DESK.extend, ["run", "target"], ["timer", "notice"]))
    look(on(ui["fork"].click, DESK.fork, ["memory", "run", "upto", *fields], GOING))
    look(on(ui["sweep"].click, DESK.sweep, ["memory", "methods", *fields], [*GOING, "chosen"]))
    look(on(ui["rename"].click, DESK.rename, ["run", "name"], ["seen", "notice", "timer"]))
    look(on(ui["delete"].click, DESK.delete, ["memory", "run"], ["memory", "run", "seen", "notice", "timer"]))
    look(on(ui["chosen"].input, DESK.compare, ["chosen"], ["comparison", "summary", "compare_csv"]))
    on(ui["upload"].upload, DESK.upload, ["upload"], ["calibration", "pasted"])

    ask = [ui["ask"].click, ui["prompt"].submit]
    gr.on(ask, answer, [ui["run"], ui["prompt"]], [ui["dense_says"], ui["pruned_says"]], **QUIET)
    ui["differ"].click(expect, [ui["run"], ui["text"]], [ui["places"]], **QUIET)
    ui["measure"].click(measure, [ui["run"]], [ui["speed"]], **QUIET)


def answer(run: str, prompt: str):
    yield from talk.answers(STUDIO.folder(run), prompt)


def expect(run: str, text: str):
    yield from talk.expectations(STUDIO.folder(run), text)


def measure(run: str):
    yield from talk.speeds(STUDIO.folder(run))


def for_programs() -> None:
    """The main job for `gradio_client`: start, follow, result."""

    def start(recipe: dict, name: str = "") -> str:
        """Start a run. `recipe` holds the settings that are not the usual ones, see `python -m pip_core
        prune --help`. Returns the run's id."""
        try:
            return DESK.launch(recipe, name)
        except UserError as error:
            raise gr.Error(str(error)) from None

    def follow(run: str):
        """A run's state (a JSON object) whenever it changes, until it ends."""
        try:
            yield from DESK.follow(run)
        except UserError as error:
            raise gr.Error(str(error)) from None

    def result(run: str) -> str:
        """The exported model of a finished run, as the path of a zip file."""
        try:
            return str(STUDIO.zipped(run))
        except UserError as error:
            raise gr.Error(str(error)) from None

    for job in (start, follow):
        gr.api(job, api_name=job.__name__, concurrency_limit=None)
    run = gr.Textbox(visible=False)
    run.submit(result, run, gr.File(visible=False), api_name="result", concurrency_limit=None)


def theme() -> gr.themes.Base:
    sans = ["Inter", "system-ui", "sans-serif"]
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=["ui-monospace"])


def main() -> None:
    make_plan(DEFAULT)  # measures this machine before a browser on it takes its share
    os.environ.setdefault(UPLOADS, str(ROOT / UPLOADED))
    STUDIO.keep_tending()
    # A finished model is served from where it lies, not copied into a cache first. The folder's
    # ids cannot be guessed, and knowing one is the right to see that run.
    gr.set_static_paths([ROOT, PLOTLY])
    build().launch(
        theme=theme(),
        css_paths=ASSETS / "page.css",
        head=f"<script>{(ASSETS / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=["api"],
        server_name=os.environ.get("GRADIO_SERVER_NAME"),
    )


if __name__ == "__main__":
    main()
