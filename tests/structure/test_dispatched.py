"""Blocks on several devices. There are none here: torch's fake tensors have any device and no numbers, and
refuse operations across two devices as real ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pip_core.core.units import BLOCKS, CHANNELS, Units
from pip_core.data.perturbation import View
from pip_core.reconstruction.residual_stream import ResidualStream
from pip_core.scoring.pip_gate import gate_gradients
from pip_core.scoring.weight_gradients import each_gradient
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.dispatched import align
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.structure.surgery import reshape

from .. import zoo

FIRST, SECOND = "cpu", "cpu:1"


def put(module: nn.Module, place: str) -> None:
    """Fake weights on a device in the place of a module's own."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(torch.empty(weight.shape, device=place))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, device=place)


def test_a_model_over_two_devices_computes_loses_units_and_is_scored() -> None:
    model, ids = zoo.build("llama"), torch.zeros(16, dtype=torch.long)
    anatomy = anatomy_of(model.config)
    whole = Shape.dense(anatomy)
    with FakeTensorMode(allow_non_fake_inputs=True):
        put(model, FIRST)
        for block in list(blocks_of(model))[2:]:
            put(block, SECOND)
        rows = torch.zeros(1, 16, dtype=torch.long)
        with pytest.raises(RuntimeError, match="two devices"):
            model(input_ids=rows, use_cache=False)
        align(model)
        left = whole.without([Units(CHANNELS, n, (0, 1)) for n in range(len(anatomy.blocks))])
        reshape(model, anatomy, whole, left)
        with torch.no_grad():
            assert str(model(input_ids=rows, use_cache=False).logits.device) == FIRST
            stream = ResidualStream(model, [rows])
            stream.advance(0, len(stream.blocks))
        assert str(stream.stream[0].device) == SECOND
        blocks, seen = list(blocks_of(model)), set()
        for kind in (BLOCKS, CHANNELS):
            sites = sites_of(anatomy, left, (kind,))
            seen.clear()
            found: dict[int, torch.Tensor] = {}
            gate_gradients(model, blocks, sites, [View("", ids, ids)], 1, found.__setitem__)
            assert [str(found[n].device) for n in range(len(sites))] == [
                FIRST,
                FIRST,
                *[SECOND] * (len(sites) - 2),
            ]
            each_gradient(
                model, blocks, sites, [ids], [1.0], lambda _, part: seen.add(str(part.weight.grad.device))
            )
            assert seen == {FIRST, SECOND}
