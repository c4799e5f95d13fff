"""A stage after the last removal that fails: what was pruned can be exported without it, or resumed."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.engine.stages import VARIABLE
from pip_core.runs import run_directory

from .. import tiny
from .test_toy_stage import NAMED, norm_of
from .toy_stage import Scaled, Toy


@pytest.mark.parametrize("error", [UserError("No luck."), RuntimeError("a fault")], ids=["user", "fault"])
def test_what_is_pruned_is_exported_without_it(llama_folder, tasks, tmp_path, monkeypatch, error):
    monkeypatch.setenv(VARIABLE, NAMED)
    run = tmp_path / "run"
    run_directory.create(run, tiny.recipe_for(llama_folder, tasks, toy_factor=1.5))

    def work(prune_on: bool = True) -> list[ev.Event]:
        found = []
        with suppress(RuntimeError):  # raised once it is recorded
            for event in run_directory.work(run, prune_on):
                found.append(event)
        return found

    with monkeypatch.context() as broken:

        def fails(self, state):
            state.loaded.model.model.norm.weight.data.zero_()
            yield ev.Progress("toying", 1, 0, 1, 0.0, 0.0)
            raise error

        broken.setattr(Toy, "run", fails)
        failed = work()[-1]
        assert isinstance(failed, ev.Failed)
        assert failed.stage == "toy"
        assert not (run / "model").exists()
        for _ in range(2):
            events = work(prune_on=False)
            assert isinstance(events[-1], ev.Finished)
            (warning,) = tiny.only(events, ev.Warned)
            assert "Toy scaling" in warning.message
            assert tiny.only(events, ev.Evaluated)[-1].final
        plain = norm_of(run)
        assert plain.abs().sum() > 0
        assert "Toy scaling" in (run / "model" / "README.md").read_text()
        assert isinstance(work()[-1], ev.Failed)
    events = work()
    assert isinstance(events[-1], ev.Finished)
    assert tiny.only(events, Scaled)
    assert tiny.only(events, ev.Evaluated)[-1].final
    assert norm_of(run).equal(plain * 1.5)
    assert not tiny.only(work(prune_on=False), ev.Warned)
