"""What the page shows, as plain values: the form, the maps, comparisons, downloads. No browser."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pip_core.cli.main import given_settings
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.planning.estimate import anatomy_for, make_plan
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs.queue import RunQueue
from pip_core.structure.shape import Shape
from pip_core.ui import (
    comparison,
    cost,
    download,
    form,
    heatmap,
    network_map,
    sent,
    status,
    verdict,
)
from pip_core.ui.fields import controls, fields, from_form, to_form
from pip_core.ui.handlers import PageHandlers
from pip_core.ui.html import millions, table

from ..reporting.test_messages import measured


def form_of(recipe: Recipe) -> list:
    values = to_form(recipe)
    return [values[name]["value"] for name in fields()]


def summary_of_a_run(blocks: int = 5) -> RunSummary:
    """Two iterations of a run that has a third to come: blocks 3 and 0 went."""
    started = ev.Started(
        *("<b>m</b>", "here", "llama", blocks, 100, "pip", ("blocks",), 0.6, "3 of 5 blocks", 3, 0.6),
        *("float32", "cpu"),
    )
    summary = RunSummary()
    one = ev.Removed(1, (Units("blocks", 3, (0,)),), 0.1, 0.1, 80, "1 of 5 blocks")
    two = ev.Removed(2, (Units("blocks", 0, (0,)),), 0.2, 0.2, 60, "2 of 5 blocks")
    events = [
        started,
        measured("1111"),
        ev.Scored(1, "blocks", (0.5, 0.8, 1.0, 0.1, 0.4), 1.0),
        one,
        replace(measured("1110", iteration=1), parameters=80),
        ev.Scored(2, "blocks", (0.2, 0.9, 1.0, None, 0.3), 1.0),
        two,
        replace(measured("1100", iteration=2), parameters=60),
    ]
    summary.apply((event, float(n)) for n, event in enumerate(events))
    return summary


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep": (1, 2), "drop": (4,)},
        {"units": ("heads", "channels"), "calibration": "text:my own words", "seed": 7},
        {"units": ("attention", "mlp"), "plain": False},
        {"tasks": ("facts", "arc_easy=rows.jsonl", 'text:{"query": "a"}'), "refit": True},
        {"tasks": ("auto", 'text:{"query": "a"}')},
        {"model": "a/b"},
        {"model": "a/b", "calibration": "stories"},
        {"model": "a/b", "vocabulary": 0.25, "refit": False},
        {"model": "a/b", "method": "sleb"},
    ],
)
def test_form_and_recipe_say_the_same(changes):
    recipe = Recipe(**changes)
    assert from_form(*form_of(recipe)) == recipe


def test_another_model_in_the_form_brings_its_own_texts():
    values = form_of(Recipe())
    values[fields().index("model")] = "a/b"
    assert from_form(*values) == Recipe(model="a/b")


def test_another_method_in_the_form_brings_its_own_end():
    values = form_of(Recipe(model="a/b"))
    values[fields().index("method")] = "sleb"
    assert from_form(*values) == Recipe(model="a/b", method="sleb")
    assert not Recipe(model="a/b", method="sleb").vocabulary


def test_a_share_that_is_no_number():
    for wrong in ("many", "101", "-1", "nan"):
        values = form_of(Recipe())
        values[fields().index("setting_vocabulary")] = f"{wrong} %"
        with pytest.raises(
            UserError, match=rf"Rare tokens.*from 0 to 100 or auto or measured, not '{wrong}'"
        ):
            from_form(*values)


@pytest.mark.parametrize(
    ("field", "value", "place", "said"),
    [
        ("pasted", "Too short.", "views_small", "too short"),
        ("model", "x" * 5000, "model_line", "xx … xx"),
        ("calibration", "y" * 500, "views_small", "yy … yy"),
        ("setting_windows", 2.5, "plan", "Windows: enter a whole number"),
        ("setting_seed", 1.5, "plan", "Seed: enter a whole number"),
        ("setting_sample", "7 " * 900, "plan", "Sample prompt: the prompt has"),
        ("setting_step", -3, "plan", "Removed per iteration: enter a whole number of units"),
        ("setting_depth_share", 0, "plan", "Share taken as whole blocks: enter a share above 0 %"),
        ("measured_tasks", [], "plan", "Tasks: choose at least one"),
        ("measured_tasks", ["nonsense"], "plan", "data-field='measured_tasks'>Unknown task"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_before_a_run(queue, looks, field, value, place, said):
    values = form_of(Recipe())
    values[fields().index(field)] = value
    # As a browser sends them.
    changes = PageHandlers(queue, looks).preview_form("", *sent.checked(fields(), values))
    assert said in changes[place]["value"]
    assert "Will remove" not in changes.get("plan", {}).get("value", "")
    assert "y" * 100 not in changes[place]["value"]
    assert "x" * 100 not in changes[place]["value"]


def test_a_folder_that_cannot_be_loaded_is_refused_beside_its_field(queue, looks, llama_folder, tmp_path):
    """Its config alone would make a plan."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(llama_folder / name, tmp_path)
    changes = PageHandlers(queue, looks).preview_form("", *form_of(Recipe(model=str(tmp_path))))
    assert "holds no tokenizer" in changes["model_line"]["value"]
    assert "Will remove" not in changes["plan"]["value"]
    with pytest.raises(UserError, match="holds no tokenizer"):
        looks.admitted(Recipe(model=str(tmp_path)))


def test_errors_form_and_comparison_call_a_setting_the_same():
    known = {info.name: info for info in Recipe.settings()}
    control = next(c for c in controls() if c.name == "setting_heldout")
    assert control.label == known["heldout"].label == "Held-out text"
    for info in known.values():
        with pytest.raises(UserError) as wrong:
            Recipe(**{info.name: object()})
        assert str(wrong.value).startswith(f"{info.label}: enter ")
        assert wrong.value.setting == info.name


def test_an_uploaded_task_is_asked_instead_of_the_usual_ones(tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}")
    handlers = PageHandlers(RunQueue(tmp_path / "runs"))
    first = handlers.upload_task(str(tmp_path / "mine.jsonl"), ["auto"])["measured_tasks"]["value"]
    assert [Path(p).name for p in first] == ["mine.jsonl"]
    assert Path(first[0]).read_text() == "{}"
    more = handlers.upload_task(str(tmp_path / "mine.jsonl"), ["facts", *first])["measured_tasks"]["value"]
    assert more[:2] == ["facts", first[0]]
    assert more[2] != first[0]


def test_a_form_with_a_hole_is_refused():
    values = form_of(Recipe())
    values[fields().index("setting_windows")] = None
    with pytest.raises(UserError, match="Windows: enter"):
        from_form(*values)


def test_units_are_those_that_method_and_model_allow(llama_folder):
    every = [value for _, value in form.unit_choices(Recipe(model=str(llama_folder), method="pip-gate"))]
    depth = [value for _, value in form.unit_choices(Recipe(model=str(llama_folder), method="sleb"))]
    assert every[:2] == ["auto", "blocks"]
    assert {"channels", "attention,mlp"} < set(every)
    assert depth == ["auto", "blocks"]


def test_the_first_choice_of_units_says_what_it_stands_for(llama_folder, checkpoints):
    def first(model, **changes):
        return form.unit_choices(Recipe(model=str(model), **changes))[0]

    assert first(llama_folder) == ("auto: channels", "auto")
    # Locked blocks, a method that scores blocks alone, and a model that cannot lose channels.
    assert first(llama_folder, keep=(1,)) == ("auto: whole blocks", "auto")
    assert first(llama_folder, method="sleb") == ("auto: whole blocks", "auto")
    assert first(checkpoints["bloom"]) == ("auto: whole blocks", "auto")
    assert first("demo") == ("auto: whole blocks", "auto")


def test_plan_line_says_the_numbers(llama_folder):
    recipe = Recipe(model=str(llama_folder), target=0.2, keep=(0,), drop=(1,), vocabulary=0)
    plan = make_plan(recipe)
    said = form.plan_line(plan, recipe)
    assert "2 of 5 blocks" in said
    assert millions(plan.anatomy.parameters) in said
    assert "Keeps block 0; removes block 1 first" in said
    assert "2 iterations, then" in said


def test_map_draws_what_is_gone_and_what_is_narrowed(llama_folder):
    anatomy = anatomy_for(str(llama_folder))
    shape = Shape.dense(anatomy).without(
        [Units("blocks", 1, (0,)), Units("attention", 2, (0,)), Units("channels", 3, tuple(range(32)))]
    )
    drawn = network_map.network_map(anatomy, shape)
    assert drawn.count("block-bar") == 5 + 1  # and the row that holds them
    assert drawn.count("block-bar removed") == 1
    assert "Removed blocks: 1." in drawn
    assert "block 2: 0 % of its attention and 100 % of its MLP are left" in drawn
    assert "block 3: 100 % of its attention and 50 % of its MLP are left" in drawn


def test_nothing_is_drawn_of_nothing():
    for figure in (
        heatmap.importance_heatmap(RunSummary()),
        cost.cost_curves(RunSummary()),
        comparison.charts([comparison.Compared("r", Recipe(), RunSummary())])[0][1],
    ):
        assert len(json.dumps(figure)) < 10_000
    assert "appears here" in heatmap.score_table(RunSummary())
    assert "Press Prune" in status.status(RunSummary(), "none")
    assert "appears here" in verdict.banner(RunSummary(), "none")


def finished(hits: str, perplexity: float, early: bool = False) -> RunSummary:
    """A run whose dense model has 90 of 100 answers right where guessing has half."""
    summary = summary_of_a_run()
    summary.apply([(measured("1" * 90 + "0" * 10), 9.0)])
    end = replace(measured(hits, iteration=2), parameters=60, perplexity=perplexity, final=True)
    summary.apply([(end, 10.0), (ev.Finished(2, "2 of 5 blocks", 60, 1.0, 1, early), 11.0)])
    return summary


def test_the_verdict_is_as_good_as_the_model():
    """What guesses, or is lost for words, is not offered as if it were well."""
    good = finished("1" * 88 + "0" * 12, 21.0)
    said = verdict.banner(good, "finished")
    assert "39 %</b> smaller" in said
    assert "95 % ± " in said
    assert "−2.0 ± " in said
    assert "status good" in status.status(good, "finished")
    for hits, perplexity, tone, dot in (
        ("1" * 72 + "0" * 28, 25.0, "worse", "warn"),
        ("1" * 50 + "0" * 50, 25.0, "bad", "bad"),
        ("1" * 90 + "0" * 10, 7925.0, "bad", "bad"),
    ):
        summary = finished(hits, perplexity)
        assert f"banner {tone}'" in verdict.banner(summary, "finished")
        assert f"status {dot}'" in status.status(summary, "finished")
    assert "appears here" in verdict.banner(good, "running")
    assert "data-act='share' data-run='abc'" in verdict.banner(good, "finished", "abc")


def test_a_run_exported_early_says_so():
    summary = finished("1" * 88 + "0" * 12, 21.0, early=True)
    said = status.status(summary, "finished")
    assert "Exported after 2 of 3 iterations" in said
    assert "Resume" in said
    assert "value='0.667'" in said


def test_a_run_that_was_killed_at_the_end_shows_no_full_bar():
    summary = summary_of_a_run()
    summary.started = replace(summary.started, planned=2)
    assert "value='1.000'" not in status.status(summary, "interrupted")


@pytest.mark.parametrize("state", list(status.STATES))
def test_every_state_has_a_line(state):
    said = status.status(summary_of_a_run(), state, "why", 2)
    assert f"data-state='{state}'" in said
    assert status.STATES[state][1] in said or state == "running"


def test_comparison_tells_recipes_apart():
    one = comparison.Compared("a <i>", Recipe(), summary_of_a_run())
    two = comparison.Compared("b", Recipe(method="pip", target=0.3), summary_of_a_run())
    said = comparison.summary([one, two])
    assert "a &lt;i&gt;" in said
    assert "<i>b" not in said.replace("<i class", "")
    rows = comparison.differences([one, two])
    assert rows.count("<tr>") == 3  # head, method, target
    assert "How much" in rows  # as the form calls it
    assert "are the same" in comparison.differences([one, one])
    assert "Not one scale" not in said
    assert said.count("data-label='method'") == 2  # where there is no room, rows are cards
    own = comparison.Compared(
        "d", Recipe(tasks=('text:{"a": 1}',), calibration="text:secret"), summary_of_a_run()
    )
    rows = comparison.differences([one, own])
    assert [words in rows for words in ("your own questions", "your own text", "secret")] == [
        True,
        True,
        False,
    ]
    other = comparison.Compared("c", Recipe(model="a/b"), summary_of_a_run())
    assert "Not one scale" in comparison.summary([one, other])
    (both,) = comparison.charts([one, two])
    assert len([d for d in both[1]["data"] if d["y"]]) == 4
    # What was measured on another model has axes of its own, and keeps its colour of the table.
    (first, drawn), (second, apart) = comparison.charts([one, two, other])
    assert (first, second) == ("demo", "b")
    here, there = ([trace["line"]["color"] for trace in chart["data"]] for chart in (drawn, apart))
    assert here[2] != here[0] != there[0]
    assert there[0] not in here


def test_settings_that_play_no_part_in_a_run_are_no_difference():
    """Kinds compete only where it is measured how the target is divided, and no repair reads nothing."""

    def rows(**settings) -> str:
        pair = Recipe(), Recipe(**settings)
        return comparison.differences([comparison.Compared("a", one, summary_of_a_run()) for one in pair])

    named = {"units": ("blocks",), "compete": "named", "division_windows": 5, "refit_tokens": 9}
    assert "are the same" in rows(**named)
    said = rows(**named, vocabulary="measured", refit=True)
    assert [said.count(f">{words}<") for words in ("Kinds that compete", "Repair tokens", "–")] == [1, 1, 3]
    assert "Show the division" not in said  # what is usual says nothing beside a dash


def test_csv_holds_every_measurement_and_score():
    rows = list(
        csv.DictReader(
            io.StringIO(comparison.as_csv([comparison.Compared("r", Recipe(), summary_of_a_run())]))
        )
    )
    assert [r["iteration"] for r in rows] == ["0", "1", "2"]
    assert [r["removed"] for r in rows] == ["", "block 3", "block 0"]
    scores = list(csv.DictReader(io.StringIO(comparison.scores_csv(summary_of_a_run()))))
    assert len(scores) == 5 + 4


def test_command_line_makes_the_recipe_again():
    recipe = Recipe(
        method="pip", target=0.35, units=("heads", "channels"), keep=(1, 2), plain=False, kinds=("swap",)
    )
    words = shlex.split(download.command_line(recipe))
    assert words[:4] == ["python", "-m", "pip_core", "prune"]
    assert Recipe().replace(**given_settings(words[3:])) == recipe


def test_command_line_goes_by_the_model_as_auto_does():
    """What is only the model's usual is left out; what is only the demo model's usual is not."""
    for recipe in (Recipe(model="a/b"), Recipe(model="a/b", calibration="stories")):
        words = shlex.split(download.command_line(recipe))
        assert Recipe().but(**given_settings(words[3:])) == recipe
        assert "--tasks" not in words


def test_tables_escape_heads_and_captions():
    said = table(["<x>"], [["1", "2"]], "a 'caption' <b>")
    assert "<x>" not in said
    assert "<b>" not in said


def test_pasted_text_is_said_to_go_with_the_model():
    summary = summary_of_a_run()
    summary.apply([(ev.Exported("model", 10, 2, 0.0, 20, 1.0), 12.0)])
    assert "pasted" not in download.verdict(summary, Recipe())
    assert "pasted (Calibration text)" in download.verdict(summary, Recipe(calibration="text:Our plans."))
