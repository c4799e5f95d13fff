"""Hooks: registered in one place, removed always, and a module's `forward` is nobody's to change."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pip_core.structure.families import blocks_of
from pip_core.structure.hooks import Hooks, blocks_answering, capture_inputs, capture_outputs
from pip_core.structure.recompute import recomputed

from .. import tiny, zoo

CODE = {p.relative_to(tiny.ROOT).as_posix(): p.read_text("utf-8") for p in tiny.ROOT.glob("pip_core/**/*.py")}
IDS = tiny.token_rows(2, 20)


def test_no_forward_is_replaced_or_deleted():
    changes = re.compile(
        r"\.forward\s*=[^=]|\bdel\s+[\w.\[\]]+\.forward\b|etattr\([^)]*[\"']forward[\"']\s*,"
    )
    assert [name for name, text in CODE.items() if changes.search(text)] == []
    for wrong in ("block.forward = f", "del blocks[0].forward", "setattr(block, 'forward', f)"):
        assert changes.search(wrong)


def test_hooks_are_registered_in_one_place():
    registers = re.compile(r"\.register_(?:\w+_)?hook\(")
    assert {name for name, text in CODE.items() if registers.search(text)} == {"pip_core/structure/hooks.py"}


def hooks_in(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_removed_after_a_failure_too():
    model = zoo.build("llama")
    block = blocks_of(model)[1]

    def fail(*_):
        raise ZeroDivisionError

    def run() -> None:
        with Hooks() as hooks:
            hooks.before(block, fail)
            hooks.after(block, fail)
            hooks.after_gradient(next(block.parameters()), fail)
            model(IDS)

    with pytest.raises(ZeroDivisionError):
        run()
    assert hooks_in(model) == 0
    assert not next(block.parameters())._post_accumulate_grad_hooks


def test_what_enters_and_leaves_a_module():
    model = zoo.build("llama")
    projection = blocks_of(model)[2].mlp.down_proj
    with (
        torch.no_grad(),
        capture_inputs({"x": projection}) as given,
        capture_outputs({"y": projection}) as found,
    ):
        model(IDS)
    torch.testing.assert_close(projection(given["x"]), found["y"])
    assert hooks_in(model) == 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "falcon", "bloom", "opt"])
def test_blocks_that_answer_compute_nothing(family):
    model = zoo.build(family)
    stack, outputs, ran = blocks_of(model), {}, []
    blocks = list(stack)
    with torch.no_grad(), Hooks() as hooks:
        for position, block in enumerate(stack):
            hooks.after(block, lambda args, kwargs, output, at=position: outputs.update({at: output}))
        expected = model(IDS, use_cache=False).logits
    with torch.no_grad(), Hooks() as hooks:
        for position, block in enumerate(blocks):
            hooks.before(block, lambda args, kwargs, at=position: ran.append(at))
        with blocks_answering(stack, {n: outputs[n] for n in (0, 1, 2)}):
            assert torch.equal(model(IDS, use_cache=False).logits, expected)
    assert ran == list(range(3, len(blocks)))
    assert list(stack) == blocks


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "falcon", "qwen3_moe", "opt"])
def test_recomputed_gradients_are_those_of_torchs_own_checkpoint(family):
    found = {}
    for way in ("plain", "recomputed", "torch"):
        model = zoo.build(family)
        saved = []

        def count(tensor: torch.Tensor, saved: list = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        if way == "torch":
            for block in blocks_of(model):
                original = block.forward
                block.forward = lambda *a, original=original, **k: checkpoint(
                    original, *a, use_reentrant=False, **k
                )
        with (
            torch.autograd.graph.saved_tensors_hooks(count, lambda t: t),
            recomputed(blocks_of(model) if way == "recomputed" else []),
        ):
            loss = model(IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found[way] = float(loss.detach()), sum(saved), gradients
    for way in ("recomputed", "torch"):
        assert found[way][0] == found["plain"][0]
        assert found[way][1] < 0.7 * found["plain"][1]
        assert found[way][2].keys() == found["plain"][2].keys()
    for name, gradient in found["torch"][2].items():
        assert torch.equal(found["recomputed"][2][name], gradient)
    assert hooks_in(model) == 0


def test_a_failing_block_leaves_nothing_behind():
    model = zoo.build("llama")

    def run() -> None:
        with recomputed(blocks_of(model)), Hooks() as hooks:
            hooks.before(blocks_of(model)[2].mlp, lambda args, kwargs: [][0])
            model(IDS, labels=IDS)

    with pytest.raises(IndexError):
        run()
    assert hooks_in(model) == 0
    model(IDS, labels=IDS).loss.backward()
