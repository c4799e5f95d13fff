"""Comparing methods: what is run, what is kept of an earlier attempt, and what is reported."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pip_core.budget.budget import budget_of
from pip_core.cli.main import main
from pip_core.comparing import results, sweep
from pip_core.comparing.sweep import Entry, align_targets, dense_measurement, entries_from
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.units import ATTENTION, MLP
from pip_core.evaluation import statistics
from pip_core.runs import run_directory
from pip_core.runs.recorded import read_events
from pip_core.runs.worker import launch
from pip_core.scoring import get_scorer

from .. import tiny
from ..processes import cli, warm_server
from .test_plan_files import entries_for


def here(place: Path, export: bool) -> Iterator[ev.Event]:
    """A worker in this process."""
    return run_directory.work(place, export=export)


def going(folder: Path, entries: list[Entry], export: bool = False) -> list[tuple[str, ev.Event]]:
    return list(sweep.run_sweep(folder, entries, export, here))


@pytest.fixture(scope="module")
def entries(llama_folder, tasks) -> list[Entry]:
    base = tiny.recipe_for(llama_folder, tasks, target=0.2, measure="end")
    return align_targets(entries_for(base, {}, ["block-influence", "taylor", "random"], [0.2]))


@pytest.fixture(scope="module")
def done(tmp_path_factory, entries) -> tuple[Path, list[tuple[str, ev.Event]]]:
    """A comparison of three methods, undisturbed."""
    folder = tmp_path_factory.mktemp("compared") / "new"
    return folder, going(folder, entries)


def test_every_run_is_an_ordinary_one(done, entries):
    folder, reported = done
    assert [label for label, e in reported if isinstance(e, ev.Finished)] == [e.label for e in entries]
    for entry in entries:
        place = folder / entry.label
        decided = dict(tiny.only(read_events(place), ev.Started)[0].pinned)
        assert run_directory.recipe_of(place) == entry.recipe.replace(**decided)
        assert isinstance(read_events(place)[-1], ev.Finished)
        assert not (place / "model").exists()
        assert {e.iteration for e in tiny.only(read_events(place), ev.Evaluated)} == {
            0,
            read_events(place)[-1].iterations,
        }


def test_the_dense_model_is_measured_once(done, entries):
    folder, reported = done
    measured = [label for label, e in reported if isinstance(e, ev.Evaluated) and e.iteration == 0]
    assert measured == [entries[0].label]
    dense = [tiny.only(read_events(folder / e.label), ev.Evaluated)[0] for e in entries]
    assert dense[1] == dense[2] == dense[0]


def test_before_and_after_are_of_the_same_removals(done, entries, tmp_path, monkeypatch):
    monkeypatch.setattr("pip_core.engine.stages.recover.TASKS", ())
    with pytest.raises(UserError, match="nothing that could be done later"):
        sweep.before_and_after(entries)
    asked = {"recover": "short", "recover_tokens": 2304, "recover_text": "calibration"}
    learning = replace(entries[1], recipe=entries[1].recipe.replace(**asked))
    before, after = sweep.before_and_after([learning])
    assert (before.label, before.recipe.recover) == (entries[1].label, "off")
    folder = shutil.copytree(done[0], tmp_path / "twice")
    reported = going(folder, [before, after])
    assert {label for label, _ in reported} == {after.label}
    removed = [tiny.only(read_events(folder / e.label), ev.Removed) for e in (before, after)]
    assert removed[0] == removed[1]
    assert not [e for _, e in reported if isinstance(e, ev.Removed | ev.Scored)]
    assert [e for _, e in reported if e.result_of == "recover"]
    assert [row.label for row in results.collect(folder, [before, after])] == [
        "dense",
        before.label,
        after.label,
    ]
    assert not going(folder, [before, after])


def test_another_measurement_is_not_taken_over(done, entries, llama_folder):
    folder, _ = done
    assert dense_measurement(folder, entries, entries[1].recipe)
    for changes in ({"items": 3}, {"perplexity_windows": 3}, {"dtype": "bfloat16"}):
        assert not dense_measurement(folder, entries, entries[1].recipe.replace(**changes))


def test_a_run_is_bound_to_the_number_format_and_weights_it_takes_a_measurement_over_from(entries, tmp_path):
    """`auto` may be decided otherwise by the next process, and the figures would not be of one model then."""
    automatic = [replace(e, recipe=e.recipe.replace(dtype="auto")) for e in entries[:2]]
    second = automatic[1]
    for label, event in sweep.run_sweep(tmp_path, automatic, False, here):
        if label == second.label and isinstance(event, ev.Started):
            run_directory.request_stop(tmp_path / label)
    recipes = [run_directory.recipe_of(tmp_path / e.label) for e in automatic]
    assert recipes[0].dtype == recipes[1].dtype == "float32"
    assert recipes[0].weights == recipes[1].weights
    assert len(recipes[0].weights) == 64
    # Before it starts, the second run's recipe already names both: the same command still finds it its own.
    shutil.rmtree(tmp_path / second.label)
    measurement = dense_measurement(tmp_path, automatic, second.recipe)
    assert (measurement.pins["dtype"], measurement.pins["weights"]) == ("float32", recipes[0].weights)
    assert "method" not in measurement.pins
    bound = second.recipe.replace(**measurement.pins)
    run_directory.create(tmp_path / second.label, bound, [measurement.event])
    reported = going(tmp_path, automatic)
    assert {label for label, _ in reported} == {second.label}
    assert isinstance(reported[-1][1], ev.Finished)


@pytest.mark.parametrize("name", ["dtype", "weights"])
def test_a_measurement_is_not_taken_over_where_nobody_wrote_down_what_it_was_made_with(
    done, entries, tmp_path, name
):
    """Version 0.1 wrote neither down; a run that was started twice may have decided twice."""
    events = read_events(done[0] / entries[0].label)
    pinned = dict(tiny.only(events, ev.Started)[0].pinned)
    for number, other in enumerate(({k: v for k, v in pinned.items() if k != name}, {**pinned, name: "x"})):
        place = tmp_path / str(number)
        history = [
            replace(e, pinned=tuple(other.items())) if isinstance(e, ev.Started) else e for e in events
        ]
        again = history if name not in other else [*history, *tiny.only(events, ev.Started)]
        run_directory.create(place / entries[0].label, entries[0].recipe, again)
        assert dense_measurement(place, entries, entries[1].recipe) is None


def test_a_run_whose_record_cannot_be_read_hurts_itself_alone(done, entries, tmp_path):
    shutil.copytree(done[0], tmp_path / "all")
    (tmp_path / "all" / entries[1].label / "events.jsonl").write_text("no event\n")
    reported = going(tmp_path / "all", entries)
    assert [(label, type(event)) for label, event in reported] == [(entries[1].label, ev.Failed)]
    assert (tmp_path / "all" / entries[1].label / "events.jsonl").read_text() == "no event\n"
    found = results.collect(tmp_path / "all", entries)
    assert [r.label for r in found] == ["dense", entries[0].label, entries[2].label]
    assert "cannot be read" in found.missing[entries[1].label]


def test_what_is_finished_stays_and_what_was_cut_off_goes_on(done, entries, tmp_path):
    undisturbed, _ = done
    work = sweep.run_sweep(tmp_path, entries, False, here)
    for label, event in work:
        if label == entries[1].label and isinstance(event, ev.Scored):
            break
    work.close()
    first = (tmp_path / entries[0].label / "events.jsonl").read_bytes()
    cut = results.collect(tmp_path, entries)
    assert [r.label for r in cut.rows] == ["dense", entries[0].label]
    assert set(cut.missing.values()) == {"It is not finished."}
    rest = going(tmp_path, entries)
    assert {label for label, _ in rest} == {e.label for e in entries[1:]}
    assert (tmp_path / entries[0].label / "events.jsonl").read_bytes() == first
    assert going(tmp_path, entries) == []
    for entry in entries:
        again, before = (
            [r.units for r in tiny.only(read_events(f / entry.label), ev.Removed)]
            for f in (tmp_path, undisturbed)
        )
        assert again == before


def test_runs_are_done_beside_one_another_once_the_dense_model_is_measured(done, entries, tmp_path):
    """One on each accelerator."""
    undisturbed, _ = done
    reported = list(sweep.run_sweep(tmp_path, entries, False, here, lanes=["0", "1"]))
    labels = [label for label, event in reported]
    first, second, third = (e.label for e in entries)
    began = labels.index(second)
    assert any(isinstance(e, ev.Evaluated) and e.of_dense for label, e in reported[:began])
    assert first in labels[began:]  # under way still
    assert labels.index(third) > began
    measured = [label for label, e in reported if isinstance(e, ev.Evaluated) and e.of_dense]
    assert measured == [first]
    for label in labels:
        again, before = (tiny.only(read_events(f / label), ev.Removed) for f in (tmp_path, undisturbed))
        assert [r.units for r in again] == [r.units for r in before]


def test_a_stop_ends_the_comparison(entries, tmp_path):
    reported = []
    for label, event in sweep.run_sweep(tmp_path, entries, False, here):
        reported.append(event)
        if isinstance(event, ev.Started):
            run_directory.request_stop(tmp_path / label)
    assert isinstance(reported[-1], ev.Stopped)
    assert [p.name for p in tmp_path.iterdir()] == [entries[0].label]


def test_a_run_that_fails_does_not_end_the_others(entries, tmp_path, monkeypatch):
    spares_all = lambda self, blocks: frozenset(range(blocks))  # noqa: E731
    monkeypatch.setattr(type(get_scorer("entrodrop")), "protects", spares_all)
    monkeypatch.setattr("pip_core.engine.context.budget_for", lambda r, a, s, p=(): budget_of(r, a, p))
    failing = replace(entries[0], label="bad", recipe=entries[0].recipe.replace(method="entrodrop"))
    reported = going(tmp_path, [failing, entries[0]])
    assert [label for label, e in reported if isinstance(e, ev.ENDINGS)] == ["bad", entries[0].label]
    found = results.collect(tmp_path, [failing, entries[0]])
    assert [r.label for r in found.rows] == ["dense", entries[0].label]
    assert "cannot reach the target" in found.missing["bad"]
    assert "bad has no result" in results.markdown(found)


def test_a_worker_that_dies_is_told(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "launch", partial(launch, server=warm_server()))
    place = tmp_path / "gone"
    run_directory.create(place, entries[0].recipe)
    (place / "recipe.json").write_text("{")
    reported = [event for event in sweep.work_in_a_process(place, False) if event is not None]
    assert reported == [ev.Failed(reported[0].message)]
    assert "not valid JSON" in reported[0].message


def test_another_run_in_the_way_is_not_touched(done, entries, tmp_path):
    folder, _ = done
    other = [replace(e, recipe=e.recipe.replace(seed=5)) for e in entries]
    with pytest.raises(UserError, match="holds a run of another recipe"):
        going(folder, other)
    (tmp_path / entries[2].label).mkdir()
    with pytest.raises(UserError, match="is not a run of ours"):
        going(tmp_path, entries)
    assert len(list(tmp_path.iterdir())) == 1


def test_rows_tell_what_the_runs_recorded(done, entries):
    folder, _ = done
    found = results.collect(folder, entries)
    assert found.missing == {}
    assert [r.label for r in found.rows] == ["dense", *[e.label for e in entries]]
    for row, entry in zip(found.rows[1:], entries, strict=True):
        events = read_events(folder / entry.label)
        dense, now = tiny.only(events, ev.Evaluated)
        assert (row.parameters, row.removed_description) == (
            events[-1].parameters,
            events[-1].removed_description,
        )
        assert row.removed == pytest.approx(1 - now.parameters / dense.parameters)
        paired, kept = statistics.paired_comparison(dense, now).mean, statistics.retained(dense, now)
        reported = (row.difference, row.difference_se, row.difference_p)
        assert reported == (paired.difference, paired.se, paired.p)
        assert (row.kept, row.kept_se) == (kept.share, kept.se)
        assert (row.above_chance, row.left_out) == (kept.above_chance, kept.left_out)
        assert row.tasks == {t.name: (t.accuracy, t.se) for t in now.tasks}
        assert row.peak_memory > 10**7
        assert row.seconds > row.scoring >= 0
    assert found.off_budget == ()
    budgets = [r.removed for r in found.rows[1:]]
    assert max(budgets) - min(budgets) < results.BUDGET_TOLERANCE


def test_budgets_that_are_not_alike_are_marked(done, entries):
    folder, _ = done
    found = results.collect(folder, entries)
    rows = [*found.rows[:-1], replace(found.rows[-1], removed=found.rows[-1].removed + 0.02)]
    odd = replace(found, rows=tuple(rows))
    assert odd.off_budget == ("random",)
    assert "| random* |" in results.markdown(odd)
    assert "over 0.5 % of the parameters more or less" in results.markdown(odd)


def test_files_hold_the_same_as_the_rows(done, entries, tmp_path):
    folder, _ = done
    found = results.collect(folder, entries)
    results.write(tmp_path, found)
    read = json.loads((tmp_path / "comparison.json").read_text())
    assert [r["accuracy"] for r in read["rows"]] == [r.accuracy for r in found.rows]
    assert read["dense"]["perplexity"] == found.dense.perplexity
    with (tmp_path / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["choices_se"]) for line in table] == [r.tasks["choices"][1] for r in found.rows]
    text = (tmp_path / "comparison.md").read_text()
    assert text == results.markdown(found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4
    assert "2 of 5 blocks in 1 iteration" in text
    page = (tmp_path / "comparison.html").read_text()
    assert "block-influence" in page
    assert "parameters kept" in page


def test_the_chart_has_a_curve_for_each_method_with_error_bars(done, entries, tmp_path, monkeypatch):
    folder, _ = done
    found = results.collect(folder, entries)
    small, large = (replace(found.rows[1], curve="one", label=f"one-{n}", removed=n) for n in (0.1, 0.3))
    drawn = []
    chart = results.kept_chart
    monkeypatch.setattr(results, "kept_chart", lambda *a: drawn.append(chart(*a)) or drawn[0])
    results.write(tmp_path, replace(found, rows=(found.rows[0], large, small, *found.rows[2:])))
    (one, *others) = drawn[0].data
    assert one.name == "one"
    assert list(one.x) == pytest.approx([100, 90, 70])
    assert list(one.y) == pytest.approx([100, 100 * small.kept, 100 * large.kept])
    assert list(one.error_y.array) == pytest.approx([0, 100 * small.kept_se, 100 * large.kept_se])
    assert [o.name for o in others] == ["taylor", "random"]


def test_nothing_measured_yet(tmp_path, entries):
    found = results.collect(tmp_path, entries)
    assert (found.rows, found.dense) == ((), None)
    assert results.markdown(found) == "Nothing is measured yet.\n"
    results.write(tmp_path, found)


def test_halves_are_marked_where_they_cannot_meet_the_budget(llama_folder, tmp_path):
    """Blocks and halves come in sizes of their own; each run says what it really removed."""
    base = tiny.recipe_for(llama_folder, plain=False, measure="end")
    plan = [{"label": "a", "method": "random"}, {"label": "b", "method": "random", "units": [ATTENTION, MLP]}]
    entries = align_targets(entries_from(base, {}, plan, [0.1]))
    going(tmp_path, entries)
    found = results.collect(tmp_path, entries)
    apart = abs(found.rows[1].removed - found.rows[2].removed)
    assert bool(found.off_budget) == (apart > results.BUDGET_TOLERANCE)


def test_by_command_line_in_processes_of_their_own(llama_folder, tasks, tmp_path):
    shared = ["--model", llama_folder, "--tasks", ",".join(tasks), "--items", 4, "--windows", 4]
    shared += [
        "--window-tokens",
        24,
        "--perplexity-windows",
        2,
        "--perplexity-tokens",
        32,
        "--dtype",
        "float32",
    ]
    command = ["compare", "--methods", "multi-domain", "--target", 0.2, "--measure", "end", *shared]
    ended = cli(*command, "--no-export", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert "== multi-domain\n" in ended.stdout
    assert "| multi-domain | heads, channels; equal |" in ended.stdout
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [r["label"] for r in rows] == ["dense", "multi-domain"]
    assert rows[1]["peak_memory"] > 10**8
    again = cli(*command, "--no-export", "--out", tmp_path / "out")
    assert again.returncode == 0
    assert "==" not in again.stdout
    assert again.stdout.strip() == (tmp_path / "out" / "comparison.md").read_text().strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--methods a,b,c.*--plan"),
        (("--methods", "flap", "--plan", "x.json"), "--methods a,b,c.*--plan"),
        (("--methods", "flap", "--targets", "0.1,much"), "Targets are shares"),
        (("--methods", "sleb", "--targets", "0.1,1.5"), "A target of 150 %"),
    ],
)
def test_command_lines_that_make_no_sense(llama_folder, tmp_path, capsys, options, message):
    assert main(["compare", "--model", str(llama_folder), "--out", str(tmp_path / "out"), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
