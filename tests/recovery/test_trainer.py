"""Learning: it helps or leaves things as they were, and goes on to the last bit where it was left off."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from pip_core.core.progress import drain
from pip_core.recovery import trainer as module
from pip_core.recovery.optimiser import Schedule, learning_weights
from pip_core.recovery.trainer import STEP_ROWS, Plan, Trainer
from pip_core.recovery.watch import Look, Watch

from .. import tiny, zoo

WIDTH = 24


@pytest.fixture(scope="module")
def models():
    """A dense model, and one that was damaged."""
    dense, pruned = zoo.build("llama"), zoo.build("llama")
    with torch.no_grad():
        for weight in learning_weights(pruned).values():
            weight.mul_(0.8)
    return dense, pruned


def trainer(models, steps: int = 12, rate: float = 1e-3, until: bool = False, looks: int = 4, **options):
    dense, pruned = models[0], copy.deepcopy(models[1]).to(options.pop("dtype", torch.float32))
    rows, held = tiny.token_rows(20, WIDTH), tiny.token_rows(8, WIDTH, seed=9)
    watch = Watch(held.split(2), held.split(2))
    plan = Plan(steps * STEP_ROWS * WIDTH, rate, looks, until)
    return Trainer(pruned, dense, rows, rows, watch, plan, seed=3, **options)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one, other) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_helps_and_leaves_nothing_behind(models):
    work = trainer(models)
    before = weights(work.pruned)
    found = drain(work.train())
    assert found.helped
    assert found.best.heldout < found.start.heldout
    assert found.tokens == work.plan.tokens
    after = weights(work.pruned)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(learning_weights(work.pruned))
    assert all(p.requires_grad and p.grad is None for p in work.pruned.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stopped_anywhere_it_goes_on_to_the_same_weights(models, dtype):
    undisturbed = trainer(models, dtype=dtype)
    expected = drain(undisturbed.train())
    saved: list[dict] = []
    broken, state, reports = (
        trainer(models, dtype=dtype, save=lambda s: saved.append(copy.deepcopy(s))),
        None,
        0,
    )
    while True:
        work = broken.train(state)
        try:
            for _ in range(17):  # in the middle of steps and of looks
                next(work)
                reports += 1
        except StopIteration as end:
            found = end.value
            break
        work.close()
        state = saved[-1] if saved else None
        broken = trainer(models, dtype=dtype, save=broken.save)
    assert reports > 17
    assert found == expected
    assert same(weights(broken.pruned), weights(undisturbed.pruned))


@pytest.mark.parametrize(("rate", "why"), [(0.02, ""), (3.0, "far away"), (1e30, "not finite")])
def test_what_does_not_help_leaves_the_model_as_it_was(models, rate, why, monkeypatch):
    monkeypatch.setattr(module, "AWAY", -0.2)  # a tiny model's predictions differ little
    work = trainer(models, rate=rate)
    before = weights(work.pruned)
    found = drain(work.train())
    assert not found.helped
    assert (why in found.fault) if why else not found.fault
    assert same(before, weights(work.pruned))


def test_a_gradient_that_is_no_number_ends_it(models, monkeypatch):
    real, calls = module.learn, []

    def learn(*given):
        calls.append(given)
        return float("nan") if len(calls) > 14 else real(*given)

    monkeypatch.setattr(module, "learn", learn)
    found = drain(trainer(models).train())
    assert "not finite" in found.fault
    assert found.helped  # what had helped until then is kept


def test_it_ends_where_it_helps_no_more(models, monkeypatch):
    monkeypatch.setattr(Look, "better", lambda look, other, start: look.tokens < 400)
    work = trainer(models, steps=400, until=True, looks=1)
    found = drain(work.train())
    assert found.settled
    assert found.best.tokens < 400
    assert found.tokens < 20 * STEP_ROWS * WIDTH
    assert work.schedule.falls is not None


def test_noise_is_not_preferred():
    start = Look(0, None, 1.0, (-1.0, -1.1, -0.9, -1.0), (1.0, 1.1, 0.9))
    nearer = Look(9, 0.5, 0.5, (-1.0, -0.1, -0.9, -1.2), (0.5, 0.6, 0.4))
    assert nearer.better(start, start)
    assert not start.better(nearer, start)
    forgetful = replace(nearer, answers=(-2.0, -2.1, -2.0, -2.0))
    assert forgetful.answers_worse(start)
    assert not forgetful.better(start, start)
    assert not replace(nearer, parts=(0.2, 1.5, 0.9)).better(start, start)


def test_the_rate_rises_and_falls():
    schedule = Schedule(1.0, 20, 40)
    rates = [schedule.at(step) for step in range(41)]
    assert rates == sorted(rates[:20]) + sorted(rates[20:], reverse=True)
    assert rates[15] == 1.0
    assert rates[-1] == 0.0
    assert Schedule(1.0).at(10**6) == 1.0
