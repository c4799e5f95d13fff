"""What the page draws of a run: importance, costs, the method. Plain values, no browser."""

from __future__ import annotations

from dataclasses import replace

from pip_core.core import events as ev
from pip_core.core.curve import CurvePoint
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.engine.stages.divide import Divided, Share
from pip_core.planning.estimate import anatomy_for
from pip_core.reporting.run_summary import RunSummary
from pip_core.reporting.theme import AMBER, GREY
from pip_core.ui import cost, curves, heatmap, importance, method_picture, stage_curves

from .test_page_parts import summary_of_a_run


def test_heatmap_marks_what_went_and_what_may_be_next():
    summary = summary_of_a_run()
    assert heatmap.likely_next(summary) == ("blocks", 4)
    figure = heatmap.importance_heatmap(summary)
    outlines = [(s["x0"] + 0.5, s["y0"] + 0.5, s["line"]["dash"]) for s in figure["layout"]["shapes"]]
    assert outlines == [(3, 1, "solid"), (0, 2, "solid"), (4, 2, "dot")]
    hover = figure["data"][1]["customdata"]
    assert hover[0][3] == ["", "0.1", "10.0 %", "1 of 5", ""]
    assert figure["data"][1]["text"] == [[3, 4, 5, 1, 2], [1, 3, 4, "", 2]]
    assert hover[1][4][3] == "2 of 4"
    assert hover[1][1][3] == "3 of 4, was 4"
    hatched = [d for d in figure["data"] if d.get("fillpattern")]
    assert [d["x"].count(None) for d in hatched] == [2, 3]  # in their rows, and in every row below
    said = heatmap.score_table(summary)
    assert said.count("class='absent'") == said.count(">removed<") == 1
    assert said.count("class=removed") == 2
    summary.apply([(ev.Stopped(2), 9.0)])
    assert heatmap.likely_next(summary) is None


def test_what_is_kept_was_put_back_or_has_no_score_is_not_called_removed():
    summary = summary_of_a_run()
    summary.apply([(ev.RemovalUndone(2, (Units("blocks", 0, (0,)),)), 9.0)])
    summary.apply([(ev.Scored(2, "blocks", (None, None, None, None, 0.3), 1.0), 10.0)])
    states = [heatmap.unscored(summary, (2, "blocks"), block, keep=(1,)) for block in range(4)]
    assert states == ["kept", "kept", "not scored", "removed"]
    said = heatmap.score_table(summary, keep=(1,))
    assert [said.count(f">{state}<") for state in ("kept", "not scored", "removed")] == [2, 1, 1]
    # A lock begins where a block has no score any more, and hides none.
    locks = heatmap.importance_heatmap(summary, keep=(1,))["layout"]["images"]
    assert [(lock["x"], lock["y"]) for lock in locks] == [(0, 2), (1, 2)]


def test_a_branch_marks_where_its_method_changed():
    summary = summary_of_a_run()
    assert not heatmap.importance_heatmap(summary)["layout"]["annotations"]
    summary.forked = ev.Forked("another", 1, ("method",))
    (said,) = heatmap.importance_heatmap(summary)["layout"]["annotations"]
    assert said["text"] == "from here on by pip"


def test_names_of_levels_stand_on_two_sides_of_lines_that_are_close():
    summary = summary_of_a_run()
    (task,) = summary.dense.tasks
    for chance, side, other in (
        (task.accuracy - 0.01, "bottom right", "bottom"),
        (task.accuracy + 0.01, "top right", "top"),
    ):
        near = replace(summary.dense, tasks=(replace(task, chance=chance),))
        chart = cost.cost_curves(replace(summary, evaluated={**summary.evaluated, 0: near}))
        (level,) = [trace for trace in chart["data"] if trace.get("text")]
        (name,) = [one for one in chart["layout"]["annotations"] if one["text"] == "whole model"]
        assert (level["textposition"], name["yanchor"]) == (side, other)


def test_kinds_that_joined_a_division_are_drawn():
    """A recipe that names channels, where blocks were found to cost less."""
    summary = summary_of_a_run()
    drawn = heatmap.importance_heatmap(summary)
    summary.started = replace(summary.started, units=("channels",))
    goal = summary.started.goal, summary.planned, 0.4
    found = Divided(0, (("units", ("blocks",)),), *goal, (Share("blocks", 5.0, 0.1, 0.1),), 9, True, "", 1.0)
    summary.apply([(found, 9.0)])
    assert heatmap.importance_heatmap(summary) == drawn
    assert method_picture.method_picture(summary, Recipe(), None)["steps"]
    assert "removed" in heatmap.score_table(summary)


def test_channels_are_hatched_by_the_share_of_a_block_that_went(llama_folder):
    anatomy, summary = anatomy_for(str(llama_folder)), summary_of_a_run()
    summary.started = replace(summary.started, units=("channels",))
    first, second = (Units("channels", 1, tuple(range(n, n + 16))) for n in (0, 16))
    summary.scored = {(i, "channels"): replace(s, kind="channels") for (i, _), s in summary.scored.items()}
    summary.removals = tuple(
        replace(r, units=(u,)) for r, u in zip(summary.removals, (first, second), strict=True)
    )
    figure = importance.importance(summary, (), anatomy)
    now, before = (
        [d["y"] for d in figure["data"] if d.get("fillpattern", {}).get("fgcolor") == c]
        for c in (AMBER, GREY)
    )
    # A quarter of the block from the bottom of the first row; in the second row, another above it.
    assert now == [[1.5, 1.5, 1.25, 1.25, 1.5, None, 2.25, 2.25, 2.0, 2.0, 2.25, None]]
    assert before == [[2.5, 2.5, 2.25, 2.25, 2.5, None]]
    assert "50.0 % of its channels removed by then" in str(figure)
    assert "share of the block" in importance.legend(summary)


def test_one_iteration_is_drawn_as_sorted_bars():
    summary = RunSummary()
    started = replace(summary_of_a_run().started, planned=1)
    both = (Units("blocks", 3, (0,)), Units("blocks", 4, (0,)))
    summary.apply([(started, 1.0)])
    waiting = importance.importance(summary)
    assert [d["type"] for d in waiting["data"]] == ["bar"] * 3
    assert waiting["data"][0]["y"] == [100] * 5
    summary.apply([(ev.Scored(1, "blocks", (0.5, 0.8, 1.0, 0.1, 0.4), 1.0), 2.0)])
    summary.apply([(ev.Removed(1, both, 0.4, 0.4, 60, "2 of 5 blocks"), 3.0)])
    figure = importance.importance(summary, keep=(0,))
    _, bars, hatched = figure["data"]
    assert bars["x"] == ["3", "4", "0", "1", "2"]
    assert bars["y"] == [10, 40, 50, 80, 100]
    assert hatched["y"] == [10, 40, 0, 0, 0]
    assert [i["x"] for i in figure["layout"]["images"]] == [2]
    assert "lowest score" not in importance.legend(summary)
    assert "kept" in importance.legend(summary, keep=(0,))


def test_the_method_is_drawn_from_the_runs_own_texts_scores_and_removals():
    summary, recipe = summary_of_a_run(), Recipe(calibration="stories", method="pip")
    drawn = method_picture.method_picture(summary, recipe, None)
    assert [step["gone"][0] for step in drawn["steps"]] == [[0, 0, 0, 1, 0], [1, 0, 0, 1, 0]]
    # Logarithmic, from the row's lowest to its highest; what was removed before has no score.
    assert drawn["steps"][0]["lit"][0] == [0.7, 0.9, 1, 0, 0.6]
    assert drawn["steps"][1]["lit"][0][3] is None
    clean, other = drawn["views"]
    changed = [(a, b) for (a, edited), (b, _) in zip(clean, other, strict=True) if edited]
    assert changed
    assert all(a != b for a, b in changed)
    assert all(a == b for (a, edited), (b, _) in zip(clean, other, strict=True) if not edited)
    assert "block 3" in drawn["alternative"]
    # Of a run that was stopped it is not the end.
    summary.ending = ev.Stopped(2)
    assert "So far: " in method_picture.method_picture(summary, recipe, None)["end"]
    assert "tells the two texts apart least" in drawn["alternative"]
    # A method that compares no texts, or reads none, says so in its own words; a stranger's text is not read.
    for method, texts in (("block-influence", 1), ("magnitude", 0)):
        summary.started = replace(summary.started, method=method)
        other = method_picture.method_picture(summary, recipe.replace(method=method), None)
        assert len(other["views"]) == other["count"] == texts
        assert "two texts" not in other["alternative"]
        assert other["summary"] in other["alternative"]
    assert method_picture.method_picture(summary, Recipe(calibration="text:Our plans."), None)["views"] == []
    # Whose model and whose questions they were makes no difference.
    summary.started = replace(summary.started, method="pip")
    own = recipe.replace(model="x/y", tasks=("text:{}",))
    assert method_picture.method_picture(summary, own, None)["views"] == drawn["views"]
    assert method_picture.method_picture(RunSummary(), recipe, None) == {"steps": []}


def test_a_point_that_is_marked_is_of_the_colour_of_its_curve():
    drawn_at = ((1.0, "channels", 0.000012345), (2.0, "rare tokens", 0.2), (3.0, "channels: chosen", 0.3))
    points = [CurvePoint(0, "Costs", "removed", "nats", x, ((name, y),)) for x, name, y in drawn_at]
    channels, tokens, chosen = stage_curves.stage_curves(RunSummary(curves={"Costs": points}))["data"]
    assert (chosen["mode"], chosen["marker"]["color"]) == ("markers", channels["line"]["color"])
    assert tokens["line"]["color"] != channels["line"]["color"]
    assert channels["y"] == [0.00001234]  # what is small is no straight line at 0


def test_a_removal_without_scores_leaves_its_row_empty():
    summary = summary_of_a_run()
    summary.scored = {key: scored for key, scored in summary.scored.items() if key != (1, "blocks")}
    figure = heatmap.importance_heatmap(summary)
    assert figure["data"][1]["y"] == [2]
    assert figure["data"][0]["y"] == [1, 3]


def test_the_table_says_what_a_score_of_channels_is():
    summary = summary_of_a_run()
    assert "Score of every block as a share" in heatmap.score_table(summary)
    summary.started = replace(summary.started, units=("blocks", "channels"))
    assert "Score of every block, of channels the mean, as a share" in heatmap.score_table(summary)


def test_curves_show_the_change_from_the_dense_model_with_its_own_error():
    figure = cost.cost_curves(summary_of_a_run())
    lines = [d for d in figure["data"] if d.get("mode") == "lines+markers"]
    assert [d["x"] for d in lines] == [[0, 19.19, 39.39]] * 2
    assert lines[0]["y"] == [0, -25, -50]
    # Of four items one, and two, are lost: standard errors of the differences, not of the levels.
    assert [fact[1] for fact in lines[0]["customdata"]] == [0, 25.0, 28.87]
    assert lines[1]["y"] == [1, 1, 1]
    assert [a["text"] for a in figure["layout"]["annotations"]] == ["whole model"]
    assert [(s["y0"], s["yref"]) for s in figure["layout"]["shapes"]] == [(0, "y"), (1, "y2")]
    assert "block 3" in curves.measurement_table(summary_of_a_run())


def test_every_task_can_be_shown_under_what_tells_it_from_the_others():
    summary = summary_of_a_run()
    dense = summary.evaluated[0]
    tasks = tuple(replace(dense.tasks[0], name=f"stories-{name}") for name in ("who", "places"))
    summary.evaluated = {0: replace(dense, tasks=tasks)}
    figure = cost.cost_curves(summary)
    assert [words for _, words, _ in figure["layout"]["meta"]["groups"]] == ["mean", "who", "places"]
    shown = {d["legendgroup"]: d["visible"] for d in figure["data"] if d.get("legendgroup")}
    assert shown == {"mean": True, "0": False, "1": False}
