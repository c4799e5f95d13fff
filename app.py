"""PIP Studio's page: layout and wiring only. What it shows comes from `pip_core`; what it starts are
worker processes that outlive it. Run it with `python app.py`."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr

from pip_core import chat, figures, markup, runs, views
from pip_core.bundled import NAME as BUNDLED
from pip_core.engine import check, user_message
from pip_core.errors import UserError
from pip_core.plan import make_plan
from pip_core.preflight import inspect
from pip_core.recipe import PERTURBATION_KINDS, Recipe
from pip_core.scorers import METHODS
from pip_core.story import Story
from pip_core.studio import Studio
from pip_core.texts import ASSETS, DOMAINS

ROOT = Path(os.environ.get("PIP_STUDIO_RUNS", "runs")).resolve()
STUDIO = Studio(ROOT)
DEFAULT = Recipe()
POLL_SECONDS = 1.0
EDITS = {"swap two letters": "swap", "replace a letter": "replace", "insert a letter": "insert"}
UNITS = {
    "whole blocks": "blocks",
    "MLP channels": "channels",
    "groups of heads": "heads",
    "heads and channels": "heads,channels",
    "attention halves": "attention",
    "MLP halves": "mlp",
    "halves of either kind": "attention,mlp",
}
SHARING = {"as many from every block": "equal", "the least of all": "global"}
FIELDS = (
    *("model", "calibration", "method", "units", "target"),
    *("allocation", "plain", "kinds", "rate", "windows", "items", "seed"),
)

# Put the run's id into the address, so that the link finds it again.
SHOW_ID = """(id) => { const url = new URL(window.location);
  if (id) url.searchParams.set('run', id); else url.searchParams.delete('run');
  window.history.replaceState(null, '', url); return id; }"""
# On a phone the form folds away once there is something to watch.
FOLD = """() => { if (window.innerWidth < 700) {
  if (document.querySelector('.plan.problem')) return;
  const head = document.querySelector('#form > button.label-wrap.open'); if (head) head.click(); } }"""


def recipe_from(*values) -> Recipe:
    given = dict(zip(FIELDS, values, strict=True))
    given["model"] = (given["model"] or "").strip()
    given["target"] = given["target"] / 100
    given["rate"] = given["rate"] / 100
    given["units"] = tuple(given["units"].split(","))
    for name in ("windows", "items", "seed"):
        number = given[name]
        given[name] = int(number) if number is not None and number == int(number) else number
    return Recipe(**given)


def to_form(recipe: Recipe) -> list:
    values = {**recipe.to_dict(), "target": recipe.target * 100, "rate": recipe.rate * 100}
    values["kinds"], values["units"] = list(recipe.kinds), ",".join(recipe.units)
    return [values[name] for name in FIELDS]


def preview(*values):
    """What the form means: the model, the plan, and the two views of a text."""
    try:
        recipe = recipe_from(*values)
    except UserError as error:
        return gr.skip(), gr.skip(), markup.problem(str(error)), gr.skip()
    note, shown = markup.method_note(recipe.method), gr.skip()
    try:
        shown = markup.two_views(*views.preview(recipe))
        facts = markup.model_facts(inspect(recipe))
    except UserError as error:
        return markup.no_facts(), note, markup.problem(str(error)), shown
    try:
        return facts, note, markup.plan(make_plan(recipe), recipe.target), shown
    except UserError as error:
        return facts, note, markup.problem(str(error)), shown


def start(*values):
    """Prune: make a run, start its worker, and look at it."""
    try:
        recipe = recipe_from(*values)
        check(recipe)
        make_plan(recipe)  # refuses what cannot work before a run is made
        run_id = STUDIO.start(recipe)
    except UserError as error:
        return gr.skip(), gr.skip(), markup.problem(str(error)), gr.skip()
    return run_id, run_id, gr.skip(), gr.Timer(active=True)


def look(run_id: str, seen: tuple):
    """One glance at the run: what changed since the last is sent, the rest is left alone."""
    try:
        story, state = STUDIO.story(run_id)
    except UserError as error:  # a run of another version
        return markup.problem(str(error)), *[gr.skip()] * 12, seen, gr.Timer(active=False)
    now = (run_id, story.steps, state)
    STUDIO.tend()
    folder = STUDIO.folder(run_id)
    line = markup.status(story, state, runs.why_interrupted(folder) if state == "interrupted" else None)
    live = state in ("waiting", "starting", "running", "stopping")
    timer = gr.Timer(active=live)
    if now == seen:
        return line, *[gr.skip()] * 12, now, timer
    if seen[:2] == now[:2]:  # only the state changed
        charts = [gr.skip(), gr.skip()]
    else:
        charts = [figures.importance_heatmap(story), figures.cost_curves(story)]
    again = state in ("stopped", "paused", "interrupted", "failed")
    download, badge = gr.DownloadButton(visible=False), markup.no_verdict()
    if state == "finished":
        download, badge = download_part(run_id, story)
    return (
        line,
        *charts,
        markup.tiles(story),
        markup.tasks(story),
        markup.removals(story),
        markup.log(story),
        gr.Button(interactive=state in ("none", "finished", "failed", "stopped", "interrupted")),
        gr.Button(visible=live, interactive=state != "stopping"),
        gr.Button(visible=again),
        gr.Button(visible=again and bool(story.removals)),
        download,
        badge,
        now,
        timer,
    )


def download_part(run_id: str, story: Story) -> tuple[gr.DownloadButton, str]:
    """The button with the zipped model behind it, and what was verified."""
    label = f"Download the pruned model ({story.exported.bytes / 1e6:.0f} MB, zip)"
    try:
        return gr.DownloadButton(label, value=STUDIO.zipped(run_id), visible=True), markup.verdict(story)
    except UserError as error:
        return gr.DownloadButton(visible=False), markup.verdict(story) + markup.problem(str(error))


def stop(run_id: str) -> None:
    if STUDIO.folder(run_id):
        STUDIO.stop(run_id)


def go_on(run_id: str):
    if STUDIO.folder(run_id):
        STUDIO.resume(run_id)
    return gr.Timer(active=True)


def export_now(run_id: str):
    if STUDIO.folder(run_id):
        STUDIO.export_now(run_id)
    return gr.Timer(active=True)


def found_again(stored: str, request: gr.Request):
    """On opening the page: the run in the address, else the browser's last one, with its settings."""
    for run_id in (request.query_params.get("run"), stored):
        if folder := STUDIO.folder(run_id or ""):
            try:
                form = to_form(runs.recipe_of(folder))
            except UserError:  # of another version; `look` says so
                form = to_form(DEFAULT)
            return run_id, run_id, gr.Timer(active=True), *form
    return "", "", gr.Timer(active=False), *to_form(DEFAULT)


def answer(run_id: str, prompt: str):
    """Both models answer, side by side."""
    folder = STUDIO.folder(run_id)
    if folder is None or not (folder / runs.MODEL).is_dir():
        yield "There is no pruned model yet: finish a run first.", ""
        return
    pruned = folder / runs.MODEL
    try:
        dense = runs.recipe_of(folder).model
        yield "loading...", "loading..."
        yield from chat.answers(dense, str(pruned), pruned.stat().st_mtime, prompt)
    except Exception as error:
        if (message := user_message(error)) is None:
            raise
        yield message, ""


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="PIP Studio", fill_width=True, analytics_enabled=False) as page:
        run_id, seen = gr.State(""), gr.State(("", -1, ""))
        # Only the id is kept in the browser; the run itself is a directory on this machine.
        remembered = gr.BrowserState("", storage_key="pip-studio-run", secret="pip-studio")
        timer = gr.Timer(POLL_SECONDS, active=False)
        gr.HTML(
            "<div id='masthead'><h1>PIP Studio</h1>"
            "<p>make a language model smaller, and see what it costs</p></div>"
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=310):
                form, facts, note, shown_plan, prune = form_part()
            with gr.Column(scale=9, min_width=340):
                outputs, stop_button, resume, export = live_part()
                two_views, download, badge, prompt, ask, dense_says, pruned_says = tabs_part(outputs)

        fields = [form[name] for name in FIELDS]
        status, heatmap, curves, tiles, tasks, removals, log = (
            outputs[n] for n in ("status", "heatmap", "curves", "tiles", "tasks", "removals", "log")
        )
        glance = [status, heatmap, curves, tiles, tasks, removals, log]
        glance += [prune, stop_button, resume, export, download, badge, seen, timer]
        # Nobody's glance waits for another's.
        quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}

        meaning = [facts, note, shown_plan, two_views]
        page.load(found_again, [remembered], [run_id, remembered, timer, *fields], **quiet).then(
            preview, fields, meaning, **quiet
        ).then(look, [run_id, seen], glance, **quiet).then(None, [remembered], None, js=SHOW_ID)
        gr.on(
            [f.change for f in fields],
            preview,
            fields,
            meaning,
            trigger_mode="always_last",
            **quiet,
        )
        prune.click(
            start, fields, [run_id, remembered, shown_plan, timer], show_progress="hidden", api_name="prune"
        ).then(look, [run_id, seen], glance, **quiet).then(None, [remembered], None, js=SHOW_ID).then(
            None, None, None, js=FOLD
        )
        timer.tick(look, [run_id, seen], glance, **quiet)
        stop_button.click(stop, [run_id], None, **quiet)
        resume.click(go_on, [run_id], [timer], **quiet)
        export.click(export_now, [run_id], [timer], **quiet)
        gr.on([ask.click, prompt.submit], answer, [run_id, prompt], [dense_says, pruned_says], **quiet)
    return page


def form_part() -> tuple[dict, gr.HTML, gr.HTML, gr.HTML, gr.Button]:
    """What goes in."""
    form = {}
    with gr.Accordion("What to prune, and how", elem_id="form"):
        form["model"] = gr.Dropdown(
            [BUNDLED],
            value=DEFAULT.model,
            allow_custom_value=True,
            label="Model",
            info="smollm2-135m, a Hugging Face id, or a local folder",
        )
        facts = gr.HTML(markup.no_facts(), elem_classes="studio-html", elem_id="facts")
        form["method"] = gr.Radio(
            [(m.title, m.name) for m in METHODS],
            value=DEFAULT.method,
            label="Method",
            info="what decides what goes",
        )
        form["units"] = gr.Dropdown(
            list(UNITS.items()), value=",".join(DEFAULT.units), label="What goes", info="the units of removal"
        )
        form["target"] = gr.Slider(
            3, 60, DEFAULT.target * 100, step=1, label="How much, %", info="share of all parameters to remove"
        )
        form["calibration"] = gr.Dropdown(
            ["mixed", *DOMAINS],
            value=DEFAULT.calibration,
            allow_custom_value=True,
            label="Text",
            info="what the model reads while it is scored",
        )
        with gr.Accordion("Perturbation and more", open=False):
            form["allocation"] = gr.Radio(
                list(SHARING.items()),
                value=DEFAULT.allocation,
                label="Heads and channels",
                info="how many each block gives",
            )
            form["plain"] = gr.Checkbox(
                DEFAULT.plain,
                label="Ordinary checkpoint only",
                info="else shapes that only this project's loader can load are allowed",
            )
            form["kinds"] = gr.CheckboxGroup(
                list(EDITS.items()),
                value=list(PERTURBATION_KINDS),
                label="Perturbation",
                info="how the second view differs, preferring real words",
            )
            form["rate"] = gr.Slider(
                5, 100, DEFAULT.rate * 100, step=5, label="Words edited, %", info="how strongly it differs"
            )
            form["windows"] = gr.Number(
                DEFAULT.windows, label="Windows", precision=0, info="of 128 tokens, per iteration"
            )
            form["items"] = gr.Number(
                DEFAULT.items, label="Items per task", precision=0, info="measured after every removal"
            )
            form["seed"] = gr.Number(
                DEFAULT.seed, label="Seed", precision=0, info="same recipe, same removals, always"
            )
        plan = gr.HTML("<div class='plan'></div>")
        prune = gr.Button("Prune", variant="primary", elem_id="go")
        note = gr.HTML(markup.method_note(DEFAULT.method))
    return form, facts, note, plan, prune


def live_part() -> tuple[dict, gr.Button, gr.Button, gr.Button]:
    """What happens, at a glance."""
    nothing = Story()
    out = {"status": gr.HTML(markup.status(nothing, "none"), elem_id="status")}
    with gr.Row():
        stop_button = gr.Button("Stop", size="sm", visible=False, elem_id="stop", min_width=90, scale=0)
        resume = gr.Button("Resume", size="sm", visible=False, elem_id="resume", min_width=90, scale=0)
        export = gr.Button(
            "Export as pruned so far", size="sm", visible=False, elem_id="export", min_width=90, scale=0
        )
    with gr.Row():
        for name, figure, label in (
            ("heatmap", figures.importance_heatmap(nothing), "Importance of every block, per iteration"),
            ("curves", figures.cost_curves(nothing), "Accuracy and perplexity against parameters kept"),
        ):
            with gr.Column(min_width=330):
                out[name] = gr.Plot(
                    figure, label=label, show_label=False, elem_id=name, elem_classes="chart", container=False
                )
    out["tiles"] = gr.HTML(markup.tiles(nothing), elem_id="tiles")
    return out, stop_button, resume, export


def tabs_part(out: dict):
    """Details, below the charts. Adds its live fragments to `out`."""
    nothing = Story()
    two_views = gr.HTML(markup.two_views(*views.preview(DEFAULT)), elem_id="views")
    with gr.Tabs():
        with gr.Tab("Events"):
            out["log"] = gr.HTML(markup.log(nothing), elem_classes="studio-html")
        with gr.Tab("Removed"):
            out["removals"] = gr.HTML(markup.removals(nothing), elem_classes="studio-html")
        with gr.Tab("Tasks"):
            out["tasks"] = gr.HTML(markup.tasks(nothing), elem_classes="studio-html")
        with gr.Tab("Download"):
            badge = gr.HTML(markup.no_verdict(), elem_classes="studio-html", elem_id="verdict")
            download = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="download")
        with gr.Tab("Talk to both"):
            with gr.Row():
                prompt = gr.Textbox(
                    "Why is the sky blue?", label="Prompt", info="both models answer it", scale=5, max_lines=4
                )
                ask = gr.Button("Ask both", scale=1, min_width=110, elem_id="ask")
            with gr.Row():
                dense_says = gr.Textbox(label="Dense model", lines=6, interactive=False, elem_id="dense-says")
                pruned_says = gr.Textbox(
                    label="Pruned model", lines=6, interactive=False, elem_id="pruned-says"
                )
    return two_views, download, badge, prompt, ask, dense_says, pruned_says


def theme() -> gr.themes.Base:
    sans = ["Inter", "system-ui", "sans-serif"]
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=sans, font_mono=["ui-monospace", "monospace"]
    ).set(
        button_primary_background_fill="#2f6fde",
        button_primary_background_fill_hover="#285fc0",
        body_text_color_subdued="#586173",
        body_text_color_subdued_dark="#a7b0bf",
        block_info_text_color="#586173",
        block_info_text_color_dark="#a7b0bf",
        block_label_text_color="#333b49",
        block_title_text_color="#333b49",
    )


def main() -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    make_plan(DEFAULT)  # measures this machine before a browser on it takes its share
    # A finished model is served from where it lies, not copied into a cache first. The folder's
    # ids cannot be guessed, and knowing one is the right to see that run.
    gr.set_static_paths([ROOT])
    build().launch(
        theme=theme(),
        css_paths=ASSETS / "page.css",
        footer_links=["api"],
        server_name=os.environ.get("GRADIO_SERVER_NAME"),
    )


if __name__ == "__main__":
    main()
