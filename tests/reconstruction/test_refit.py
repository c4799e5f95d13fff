"""The refit against its formula, written out by hand, and what it must not change."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.units import Units
from pip_core.reconstruction.refit import Outcome, refit, widest
from pip_core.reconstruction.residual_stream import add_to_weight
from pip_core.reconstruction.ridge import RIDGES
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape

from .. import tiny, zoo
from ..bypass import bypassed, places_of, stack_of

ROWS = tiny.token_rows(10, 48)
# Where nothing can be solved: a norm stands between every projection and the stream.
LEFT_ALONE = {"gemma2", "gemma3_text", "olmo2", "glm4", "opt-norm-after"}
# Where experts share what a projection would be.
IN_PART = {"mixtral", "qwen3_moe", "deepseek_v3"}
# What its attention alone can give back of a random block is next to nothing.
HARDLY = {"deepseek_v3"}


def gone(name: str, what: str) -> list[Units]:
    """A block, or the first quarter of a width kind of every block that has it."""
    if what == "blocks":
        return [Units("blocks", 2, (0,))]
    blocks = anatomy_of(zoo.CONFIGS[name]()).blocks
    sizes = {n: b.widths[what].size for n, b in enumerate(blocks) if what in b.widths}
    return [Units(what, n, tuple(range(size // 4))) for n, size in sizes.items()]


def refitted(
    dense: PreTrainedModel, name: str, units: list[Units], rows: torch.Tensor = ROWS, batch: int = 4
) -> tuple[PreTrainedModel, Outcome]:
    """A copy of `dense` without `units`, refitted."""
    model = zoo.build(name).to(dense.dtype)
    model.load_state_dict(dense.state_dict())
    anatomy = anatomy_of(zoo.CONFIGS[name]())
    shape = Shape.dense(anatomy).without(units)
    reshape(model, anatomy, Shape.dense(anatomy), shape)
    return model, drain(refit(dense, model, anatomy, shape, list(rows.split(batch))))


def ways() -> list:
    found = []
    for name, config in zoo.CONFIGS.items():
        anatomy = anatomy_of(config())
        found += [(name, w) for w in ("blocks", "channels", "heads") if w not in anatomy.refused]
    return found


@pytest.mark.parametrize(
    ("name", "what", "dtype"),
    [(*way, torch.float32) for way in ways()]
    # What a number format changes does not depend on the family, but on which projections there are.
    + [(*way, torch.bfloat16) for way in ways() if way[0] in ("llama", "gpt2", "gemma2", "mixtral")],
)
def test_every_family_comes_nearer_or_is_said_to_be_left(name, what, dtype):
    dense = zoo.build(name).to(dtype)
    model, found = refitted(dense, name, gone(name, what))
    assert found.halves == 2 * model.config.num_hidden_layers
    if name in LEFT_ALONE:
        assert (found.projections, found.before) == (0, pytest.approx(found.after, abs=1e-6))
    else:
        assert found.after < (1.02 if name in HARDLY else 0.92) * found.before
    assert (found.projections == found.halves) == (name not in LEFT_ALONE | IN_PART) == (not found.left)
    if dtype == torch.float32:  # what the halves answered for comes to what the model computes
        assert found.after == pytest.approx(share(last_hidden(model), last_hidden(dense)), rel=1e-3)
    for weight in model.parameters():
        assert bool(weight.isfinite().all())
    if name in IN_PART:
        assert "MLP" in found.left
        assert "experts" in found.left


def last_hidden(model: PreTrainedModel) -> torch.Tensor:
    """What the last block hands on, seen from outside."""
    seen = []
    handle = stack_of(model)[-1].register_forward_hook(
        lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(ROWS)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "phi"])
def test_distances_are_those_of_the_last_hidden_states(name):
    dense = zoo.build(name)
    units = gone(name, "blocks")
    model, found = refitted(dense, name, units)
    wanted = last_hidden(dense)
    with bypassed(dense, [("blocks", 2, (0,))]):
        before = last_hidden(dense)
    for now, said in ((before, found.before), (last_hidden(model), found.after)):
        assert said == pytest.approx(share(now, wanted), rel=1e-4)


def share(now: torch.Tensor, wanted: torch.Tensor) -> float:
    """The distance of the first batch, which is four rows."""
    return float(((now - wanted).norm(dim=-1) / wanted.norm(dim=-1))[:4].mean())


def test_a_block_is_passed_once_in_either_model():
    dense, pruned = zoo.build("llama"), zoo.build("llama")
    anatomy, calls = anatomy_of(zoo.CONFIGS["llama"]()), Counter()
    for name, model in (("dense", dense), ("pruned", pruned)):
        block = blocks_of(model)[2]
        for module in (block.self_attn.q_proj, block.mlp.up_proj):
            module.register_forward_hook(lambda m, a, out, name=name: calls.update([name]))
    drain(refit(dense, pruned, anatomy, Shape.dense(anatomy), list(ROWS.split(4))))
    # Of three batches in two halves; the first also tells how far the pruned model is away at the start.
    assert calls == {"dense": 6, "pruned": 6 + 2}


def by_hand(dense: PreTrainedModel, channels: int) -> dict[str, torch.Tensor]:
    """Llama without its first `channels` in every block, refitted by the formula: `W + (X'X + rI)^-1 X'R`,
    in float64, every step on the whole text at once; r as each half of the batches of three rows says it of
    the other. The weights by name."""
    half = torch.cat([torch.arange(part.numel()) >= part.numel() / 2 for part in ROWS.split(3)])
    model = zoo.build("llama").double()
    whole = zoo.build("llama").double()
    whole.load_state_dict(dense.state_dict())
    model.load_state_dict(dense.state_dict())
    for block in model.model.layers:
        block.mlp.down_proj.weight.data[:, :channels] = 0
    targets: dict[tuple[int, str], torch.Tensor] = {}
    with torch.no_grad():
        states = whole(ROWS, output_hidden_states=True)
        for number, block in enumerate(whole.model.layers):
            added = {}
            handle = block.self_attn.register_forward_hook(
                lambda m, a, out, into=added: into.update(o=out[0])
            )
            whole(ROWS)
            handle.remove()
            targets[number, "attention"] = states.hidden_states[number] + added["o"]
            targets[number, "mlp"] = targets[number, "attention"] + mlp_of(
                block, targets[number, "attention"]
            )
        for number, block in enumerate(model.model.layers):
            for name, projection in (("attention", block.self_attn.o_proj), ("mlp", block.mlp.down_proj)):
                seen = {}
                handles = [
                    projection.register_forward_hook(lambda m, a, out, into=seen: into.update(x=a[0], y=out)),
                    block.post_attention_layernorm.register_forward_pre_hook(
                        lambda m, a, into=seen: into.update(middle=a[0])
                    ),
                    block.register_forward_pre_hook(
                        lambda m, a, k, into=seen: into.update(h=a[0] if a else k["hidden_states"]),
                        with_kwargs=True,
                    ),
                ]
                model(ROWS)
                for handle in handles:
                    handle.remove()
                start = seen["h"] if name == "attention" else seen["middle"]
                x = seen["x"].flatten(0, 1)
                x = x[:, channels:] if name == "mlp" else x
                residual = (targets[number, name] - start - seen["y"]).flatten(0, 1)
                errors = {
                    ridge: sum(
                        (residual[there] - x[there] @ solution(x[~there], residual[~there], ridge))
                        .square()
                        .sum()
                        for there in (half, ~half)
                    )
                    for ridge in RIDGES
                }
                ridge = min(errors, key=errors.get)
                if errors[ridge] >= residual.square().sum():
                    continue
                change = solution(x, residual, ridge).T
                projection.weight.data[:, -change.shape[1] :] += change
    return {n: p for n, p in model.named_parameters() if "o_proj" in n or "down_proj" in n}


def solution(x: torch.Tensor, residual: torch.Tensor, ridge: float) -> torch.Tensor:
    gram = x.T @ x
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.inv(gram) @ x.T @ residual


def mlp_of(block: torch.nn.Module, h: torch.Tensor) -> torch.Tensor:
    return block.mlp(block.post_attention_layernorm(h))


def test_is_the_formula():
    dense, channels = zoo.build("llama"), 20
    units = [Units("channels", b, tuple(range(channels))) for b in range(zoo.BLOCKS)]
    model, _ = refitted(dense, "llama", units, batch=3)
    found = dict(model.named_parameters())
    moved = 0.0
    for name, expected in by_hand(dense, channels).items():
        expected = expected[:, channels:] if "down_proj" in name else expected
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=2e-4)
        old = dict(dense.named_parameters())[name].detach()
        moved += float((found[name].detach() - (old[:, channels:] if "down_proj" in name else old)).norm())
    assert moved > 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "granite", "falcon", "opt"])
def test_nothing_removed_nothing_changed(name, dtype):
    dense = zoo.build(name).to(dtype)
    model, found = refitted(dense, name, [])
    assert found.projections == found.halves
    assert found.before == 0.0
    if dtype == torch.bfloat16:
        # Less than the number format itself costs.
        exact, rounded = last_hidden(zoo.build(name)), last_hidden(dense).float()
        assert found.after < ((exact - rounded).norm(dim=-1) / exact.norm(dim=-1)).mean()
        return
    assert found.after < 1e-5
    for weight, old in zip(model.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(weight, old, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "starcoder2"])
def test_dead_channels_cost_nothing(name):
    dense = zoo.build(name)
    places, units = places_of(dense), []
    for number, block in enumerate(blocks_of(dense)):
        output = block.get_submodule(places.channels)
        dead = torch.arange(0, 20)
        if type(output).__name__ == "Conv1D":
            output.weight.data[dead] = 0
        else:
            output.weight.data[:, dead] = 0
        units.append(Units("channels", number, tuple(dead.tolist())))
    model, found = refitted(dense, name, units)
    assert found.projections == found.halves
    with torch.no_grad():
        torch.testing.assert_close(model(ROWS).logits, dense(ROWS).logits, rtol=0, atol=2e-4)


def test_what_cannot_be_solved_is_left_and_said():
    dense = zoo.build("llama")
    # Nothing reaches the MLP's last projection in block 1.
    blocks_of(dense)[1].mlp.up_proj.weight.data.zero_()
    model, found = refitted(dense, "llama", gone("llama", "blocks"))
    assert found.projections == found.halves - 1
    assert found.left.startswith("1 MLP (")
    assert "zero" in found.left
    assert torch.equal(blocks_of(model)[1].mlp.down_proj.weight, blocks_of(dense)[1].mlp.down_proj.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["dense", "pruned"])
def test_activations_that_are_not_finite_are_refused(value, broken):
    dense, pruned = zoo.build("llama"), zoo.build("llama")
    anatomy = anatomy_of(zoo.CONFIGS["llama"]())
    blocks_of({"dense": dense, "pruned": pruned}[broken])[1].mlp.up_proj.weight.data[3, 3] = value
    work = refit(dense, pruned, anatomy, Shape.dense(anatomy), list(ROWS.split(4)))
    with pytest.raises(UserError, match="not finite numbers"):
        drain(work)


def test_a_solution_that_overflows_is_refused():
    projection = torch.nn.Linear(4, 3).to(torch.float16)
    before = projection.weight.detach().clone()
    with pytest.raises(UserError, match="not a finite number"):
        add_to_weight(projection, torch.full((3, 4), 1e6, dtype=torch.float64))
    assert torch.equal(projection.weight, before)


def test_halves_that_are_gone_are_no_trouble():
    dense = zoo.build("llama")
    units = [Units("attention", 1, (0,)), Units("mlp", 3, (0,)), Units("blocks", 4, (0,))]
    _, found = refitted(dense, "llama", units)
    assert found.projections == found.halves == 6
    assert found.after < found.before


def test_the_last_block_may_go():
    """What a removed block added is taken over by the one before it, and not only in the middle."""
    dense = zoo.build("llama")
    for blocks in ((4,), (3, 4), (0,), (1, 2)):
        _, found = refitted(dense, "llama", [Units("blocks", b, (0,)) for b in blocks])
        assert found.projections == found.halves
        assert found.after < found.before


@pytest.mark.parametrize(
    ("name", "inputs"), [("llama", 64), ("gpt2", 128), ("gpt2-inner", 48), ("mixtral", 32), ("phi3", 64)]
)
def test_the_widest_projection(name, inputs):
    assert widest(zoo.build(name), anatomy_of(zoo.CONFIGS[name]())) == inputs
