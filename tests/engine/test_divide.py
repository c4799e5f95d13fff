"""The target divides itself among kinds of units by what they cost, once."""

from __future__ import annotations

from math import inf

import pytest

from pip_core.core import events as ev
from pip_core.core.curve import CurvePoint
from pip_core.core.decisions import is_open, settings_of, settled
from pip_core.core.errors import UserError
from pip_core.core.settings import MEASURED
from pip_core.engine.costs_of_kinds import Kind
from pip_core.engine.run import check, run
from pip_core.engine.stages import describe
from pip_core.engine.stages.divide import Divided
from pip_core.engine.weighing import Weighing
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs import operations, run_directory

from ..tiny import only, recipe_for


@pytest.fixture(scope="module")
def divided(llama_folder):
    """A recipe that leaves the division open, what its run said, and what weighed the kinds."""
    recipe = recipe_for(
        llama_folder,
        units=("channels",),
        compete="all",
        vocabulary=MEASURED,
        method="pip-gate",
        division_windows=2,
        measure="end",
    )
    with pytest.MonkeyPatch.context() as patch:
        compared, weighed = Weighing.compared, []
        patch.setattr(Weighing, "compared", lambda *given: compared(*weighed.extend(given) or given))
        return recipe, list(run(recipe)), weighed


def test_every_kind_is_measured_and_the_cheapest_pays(divided):
    recipe, events, (_, kinds) = divided
    (decision,) = only(events, Divided)
    assert sum(share.size for share in decision.shares) == pytest.approx(
        recipe.target * events[1].parameters, rel=0.01
    )
    assert {share.kind for share in decision.shares} == {"tokens", "channels"}
    # Others are weighed too, and a recipe's own kinds stay where these save nothing that is sure.
    assert {kind for kind, *_ in decision.others} == {"blocks", "heads"}
    assert not any(joined for *_, joined in decision.others)
    assert describe(decision).headline == ""
    assert 0 < decision.passes < 10
    assert decision.given_back == ()  # no repair follows
    # The tiny model's text needs its tokens, and its untrained channels do nothing.
    assert max(decision.shares, key=lambda share: share.size).kind == "channels"
    assert decision.held_back
    # The division takes no more of a kind than was measured on both windows; a size that it does not reach
    # was measured on the first alone.
    known = {kind.name: kind.known(2) for kind in kinds}
    assert all(share.size <= known[share.kind] for share in decision.shares)
    assert known["tokens"] < known["channels"] == inf
    names = {name for point in only(events, CurvePoint) for name, _ in point.values}
    assert {"tokens", "channels", "channels: chosen"} <= names


def test_a_kind_that_is_measured_cheaper_joins_and_is_shown_before_anything_goes(divided, monkeypatch):
    """Blocks as cheap as they would be if the refit gave all of them back."""
    given_back = {"blocks": 1.0, "channels": -100.0}
    monkeypatch.setattr(Weighing, "_given_back", lambda self, kind: given_back.get(kind.name, 0.0))
    recipe = divided[0].replace(refit=True, refit_tokens=600, target=0.4, show_division=True)
    shown = list(run(recipe))
    (decision,) = only(shown, Divided)
    # What it really gives back was looked at, and is said.
    assert [kind for kind, share in decision.given_back if 0 <= share <= 1] == ["channels"]
    assert "gives back" in decision.words()
    assert shown[-1] == ev.Paused(0)
    assert not only(shown, ev.Removed)
    assert [kind for kind, *_, joined in decision.others if joined] == ["blocks"]
    assert "blocks went" in describe(decision).headline
    assert "blocks" in dict(decision.settled)["units"]
    resumed = list(run(recipe, history=shown))
    assert not only(resumed, Divided)
    assert "blocks" in resumed[-1].removed_description


def test_a_kind_that_whole_units_cannot_come_near_to_is_left_out(divided, monkeypatch):
    *_, (weighing, kinds) = divided
    own = [kind for kind in kinds if not kind.joins]
    found = weighing.divided(own)
    assert found["channels"] > 0
    monkeypatch.setattr(weighing, "_meets", lambda settled: settled["vocabulary"] == 1)
    assert weighing.divided(own) == {"channels": 0, "tokens": pytest.approx(sum(found.values()), 0.01)}
    # And where nothing else makes it up, the division stays, and the budget says what is wrong.
    monkeypatch.setattr(weighing, "_meets", lambda settled: False)
    assert sum(weighing.divided(own).values()) == pytest.approx(sum(found.values()), 0.01)


def test_what_was_measured_on_some_windows_stands_for_the_others():
    kind = Kind("channels", 9.0, losses={1.0: [1.0, 2.0, 3.0], 2.0: [4.0]})
    assert (kind.known(3), kind.known(1)) == (1, inf)
    # On the first window the second size costs 0.3 more for each of its ten bytes.
    assert kind.curve([10, 10, 20], 0.0, range(3), 40).points == ((1, 6 / 40), (2, (4 + 5 + 9) / 40))
    assert kind.curve([10, 10, 20], 0.5, (2,), 40).points == ((1, 1.5 / 40), (2, 4.5 / 40))


def test_the_summary_follows_the_new_plan(divided):
    summary = RunSummary()
    summary.apply((event, 0.0) for event in divided[1])
    (decision,) = only(divided[1], Divided)
    assert (summary.planned, summary.started.goal) == (decision.planned, decision.goal)
    (curve,) = summary.curves.values()
    assert [p.x for p in curve] == sorted(p.x for p in curve)


def test_what_was_decided_holds_for_a_resumed_and_a_repeated_run(divided):
    recipe, events, _ = divided
    removals = only(events, ev.Removed)
    (decision,) = only(events, Divided)
    history = [ev.from_line(ev.to_line(e, 0.0))[0] for e in events[: events.index(decision) + 1]]
    resumed = list(run(recipe, history=history))
    assert not only(resumed, Divided)
    # What is scored anew here was taken over from the division there.
    assert only(resumed, ev.Removed) == removals
    stated = settled(recipe, history)
    assert not is_open(stated)
    assert dict(settings_of(decision)).items() <= stated.to_dict().items()
    assert settled(stated.replace(vocabulary=0.5), history).vocabulary == 0.5


def test_a_run_that_has_begun_otherwise_is_not_divided(divided):
    recipe, events, _ = divided
    first = next(n for n, e in enumerate(events) if isinstance(e, ev.Removed))
    history = [e for e in events[: first + 1] if not isinstance(e, Divided)]
    with pytest.raises(UserError, match="before the first removal"):
        check(recipe, history)


def test_a_branch_that_asks_for_the_same_keeps_what_was_decided(divided, tmp_path):
    recipe, events, _ = divided
    operations.begin(tmp_path, settled(recipe, events).replace(**settings_of(events[1])), events)
    asked = recipe.replace(target=0.25).to_dict()
    (decision,) = only(events, Divided)
    made, kept = operations.forked(tmp_path, asked)
    assert dict(settings_of(decision)).items() <= made.to_dict().items()
    assert kept[0].changed == ("target",)
    # Without its removals it is measured anew; with other units nothing was decided.
    assert operations.forked(tmp_path, asked, 0)[0].vocabulary == MEASURED
    with pytest.raises(UserError):
        operations.forked(tmp_path, {**asked, "units": ("heads",)}, 1)


def test_tokens_alone_are_a_whole_run(llama_folder, tmp_path):
    """And one that a later stage can be done in."""
    recipe = recipe_for(
        llama_folder,
        units=("channels",),
        method="pip-gate",
        vocabulary=1,
        target=0.05,
        refit=True,
        refit_tokens=600,
    )
    events = list(run(recipe))
    assert not only(events, ev.Removed)
    assert isinstance(events[-1], ev.Finished)
    dense, final = only(events, ev.Evaluated)
    assert final.final
    assert 1 - events[-1].parameters / dense.parameters == pytest.approx(0.05, abs=0.004)
    # A resumed run has nothing left to measure.
    assert not only(list(run(recipe, history=events)), ev.Evaluated)
    folder = tmp_path / "run"
    run_directory.create(folder, recipe)
    run_directory.record(folder, events)
    operations.repeat(folder, "recover", {})
    assert run_directory.recipe_of(folder).recover != "off"
