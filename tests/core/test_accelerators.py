"""Devices that are not at hand, by stand-ins: one without float64, one that runs out of memory, one that is
another kind or is gone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pip_core.core import accelerator, device, notices
from pip_core.core.events import Evaluated, Finished, Removed, Started, Warned
from pip_core.core.progress import drain
from pip_core.core.repeatable import repeatable
from pip_core.core.units import Units
from pip_core.engine.run import run
from pip_core.evaluation import evaluator, loglikelihood
from pip_core.reconstruction.refit import refit
from pip_core.scoring import METHODS, base
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.structure.surgery import reshape

from .. import tiny, zoo

MPS = torch.device("mps")


class Single(torch.Tensor):
    """A tensor of a device without float64, such as Apple's GPUs: the format is refused there, and what is
    brought to the processor is an ordinary tensor."""

    @property
    def device(self) -> torch.device:
        return MPS

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        args, kwargs = [_here(a) for a in args], {name: _here(a) for name, a in (kwargs or {}).items()}
        found = super().__torch_function__(func, types, args, kwargs)
        if func.__name__ == "cpu" or (func.__name__ == "to" and "cpu" in _devices(args[1:], kwargs)):
            return found.as_subclass(torch.Tensor)
        if isinstance(found, Single) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework has none")
        return found


class OnSingle(TorchFunctionMode):
    """What is made on that device, or moved there, is a `Single`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        there = "mps" in _devices(args, kwargs or {})
        args, kwargs = [_here(a) for a in args], {name: _here(a) for name, a in (kwargs or {}).items()}
        found = func(*args, **kwargs)
        return found.as_subclass(Single) if there and isinstance(found, torch.Tensor) else found


def _here(value):
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "mps" else value


def _devices(args, kwargs) -> set[str]:
    return {v.type for v in (*args, *kwargs.values()) if isinstance(v, torch.device)}


def single(model: nn.Module) -> nn.Module:
    """A model whose weights are on the device without float64."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.detach().as_subclass(Single))
    return model


def test_a_device_without_float64_scores_and_is_refitted_the_same(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(accelerator, "total_bytes", lambda place: 16e9)
    whole, other = zoo.build("llama"), single(zoo.build("llama"))
    anatomy, pairs = anatomy_of(whole.config), tiny.pairs_for(tokenizer, 2)
    with pytest.raises(TypeError, match="float64"):
        next(other.parameters()).double()
    for scorer in METHODS:
        sites = sites_of(anatomy, Shape.dense(anatomy), (scorer.kinds[0],))
        expected = tiny.scores(scorer, whole, sites, pairs)
        with OnSingle():
            found = tiny.scores(scorer, other, sites, pairs)
        for one, two in zip(expected, found, strict=True):
            assert torch.allclose(one, two.as_subclass(torch.Tensor), rtol=1e-4, atol=1e-6), scorer.name
    shape = Shape.dense(anatomy).without([Units("channels", n, (0, 1, 2, 3)) for n in range(4)])
    rows = list(tiny.token_rows(4, 48).split(2))
    reshape(whole, anatomy, Shape.dense(anatomy), shape)
    expected = drain(refit(zoo.build("llama"), whole, anatomy, shape, rows))
    with OnSingle():
        reshape(other, anatomy, Shape.dense(anatomy), shape)
        found = drain(refit(single(zoo.build("llama")), other, anatomy, shape, rows))
    assert found.moved == expected.moved > 0
    for name, one in whole.named_parameters():
        two = other.get_parameter(name).detach().as_subclass(torch.Tensor)
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-5), name


def out_of_memory(function, too_many):
    """`function`, for which memory runs out where `too_many` says so of its last argument."""

    def attempt(*given):
        if too_many(given[-1]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return function(*given)

    return attempt


def figures(events: list) -> list[Evaluated]:
    return [replace(e, seconds=0.0) for e in tiny.only(events, Evaluated)]


def removed(events: list) -> list:
    return [(e.iteration, e.units, e.score) for e in tiny.only(events, Removed)]


def test_less_is_done_at_a_time_and_then_weights_are_read_from_disk(recipe, monkeypatch) -> None:
    recipe = recipe.replace(windows=2)
    whole = list(run(recipe))
    for module, name in ((evaluator, "_window_nats"), (loglikelihood, "_score")):
        attempt = out_of_memory(getattr(module, name), lambda rows: len(rows) > 1)
        monkeypatch.setattr(module, name, attempt)
    streamed = out_of_memory(base.backpropagate, lambda _: not tried.__next__())
    # Memory runs out in the middle of the second removal, as long as all weights are there.
    tried = iter([*[True] * (2 * recipe.windows + 1), False, *[True] * 99])
    monkeypatch.setattr("pip_core.scoring.pip_gate.backpropagate", streamed)
    monkeypatch.setattr("pip_core.scoring.weight_gradients.backpropagate", streamed)
    events = list(run(recipe))
    assert isinstance(events[-1], Finished), events[-1]
    said = [e.message for e in tiny.only(events, Warned)]
    assert any("rows at a time" in message for message in said)
    assert any("read from disk" in message for message in said)
    assert [e.resumed for e in tiny.only(events, Started)] == [0, 1]
    assert removed(events) == removed(whole)
    for one, two in zip(figures(whole), figures(events), strict=True):
        assert two.perplexity == pytest.approx(one.perplexity, 1e-5)
        assert [t.hits for t in two.tasks] == [t.hits for t in one.tasks]


def test_what_does_not_repeat_is_on_the_card(monkeypatch) -> None:
    notices.begin()
    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        for _ in range(2):
            warnings.warn(
                "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
                "'torch.use_deterministic_algorithms(True, warn_only=True)'.",
                stacklevel=1,
            )
    assert not torch.are_deterministic_algorithms_enabled()
    (notice,) = notices.taken()
    assert notice.on_card
    assert "cumsum_cuda_kernel" in notice.message
    with repeatable(torch.device("xpu")):
        pass
    assert [n.on_card for n in notices.taken()] == [True]


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "npu"])
def test_any_accelerator_of_torch_is_used(kind, monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type=kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "device", lambda type, index=None: f"{type}:{index}")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert accelerator.device() == f"{kind}:1"
    monkeypatch.setenv(accelerator.VARIABLE, "cpu")
    assert accelerator.device() == accelerator.PROCESSOR


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ..."),
        RuntimeError("Native API failed. Native API returns: 20 (UR_RESULT_ERROR_DEVICE_LOST)"),
    ],
)
def test_a_device_that_is_gone_is_said(error) -> None:
    said = device.user_message(error)
    assert said is not None
    assert "accelerator" in said
    assert "resume" in said
    assert "\n" not in said
