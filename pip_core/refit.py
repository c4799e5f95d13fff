"""Refitting what remains: output projections are solved anew, so that the stream is the dense one's.

Block by block, the projections in which attention and MLP end are moved by the ridge regression that
best brings what the pruned model has at that place to the residual stream the dense model has there;
of a block that is followed by removed ones, to the stream after those. So one mechanism repairs width
and depth, and every solution folds into a weight that is there already.

Least squares from kept inputs: OBC (arXiv 2208.11580) and its successors; a linear map in place of
removed blocks: ReplaceMe (arXiv 2505.02819). That the target is the dense *stream*, so that each
solution also takes back what went wrong before it, is ours. Which projection a half ends in, and
whether a block just adds it, is seen on the dense model itself; where either is not so, the weight
stays as it is, and the outcome says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .anatomy import Anatomy, Block
from .families import blocks_of, residual_scale
from .shape import Layer, Shape
from .units import ATTENTION, MLP

# Share of the mean squared input that is added to every one: how much the old weight is trusted.
RIDGE = 0.01
# Relative error, of the middle token, up to which a sum is called one; rounding comes on top.
TOLERANCE = 0.02
HALVES = (ATTENTION, MLP)
NO_PROJECTION = "no projection of theirs is added as it is: a norm follows, or experts share it"
NO_SUM = "what they add is normed or scaled on its way to the stream"
SINGULAR = "what reaches them is zero or no finite number"

Stream = list[torch.Tensor]
Call = Callable[[torch.Tensor], torch.Tensor]


class _Reached(Exception):
    """What was wanted of a forward pass is there; the rest of it is not needed."""


@dataclass(frozen=True)
class Outcome:
    """What a refit came to.

    Attributes:
        projections: how many were solved, of `halves` attentions and MLPs.
        left: why the others were left as they were, in words; empty where there are none.
        before, after: distance to the dense model's last hidden states, as a share of their length,
            mean over the first batch's tokens.
    """

    projections: int
    halves: int
    left: str
    before: float
    after: float


def candidates(block: nn.Module, made: Block, half: str, width: int) -> dict[str, nn.Module]:
    """Projections onto the residual stream in one half of a block, by name in the block."""
    found = {}
    for path in made.attention if half == ATTENTION else made.mlp:
        for name, module in block.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, nn.Linear | Conv1D) and _weight(module).shape[0] == width:
                found[name] = module
    return found


def widest(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """Inputs of the widest projection that a refit of the dense `model` may solve; 0 where there is none."""
    return max(
        (
            _weight(module).shape[1]
            for block, made in zip(blocks_of(model), anatomy.blocks, strict=True)
            for half in HALVES
            for module in candidates(block, made, half, model.config.hidden_size).values()
        ),
        default=0,
    )


def refit(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    anatomy: Anatomy,
    shape: Shape,
    parts: Sequence[torch.Tensor],
    same: Sequence[torch.Tensor] | None = None,
    ridge: float = RIDGE,
) -> Generator[int, None, Outcome]:
    """Solve the output projections of `pruned` anew, in place.

    Args:
        dense: the model that `pruned` was cut from, as it was.
        shape: of `pruned`.
        parts: batches of token ids to calibrate on, int64, each of shape `(B, T)` with the same T.
        same: the same tokens by the dense model's ids, where those are others.
        ridge: in units of the mean squared input; the solution is drawn towards the old weight.

    Yields:
        How many blocks are done, after each. No gradient mode is held across a yield.
    """
    work = _Refit(dense, pruned, anatomy, shape, parts, parts if same is None else same, ridge)
    yield 0
    for index in range(len(shape.layers)):
        work.block(index)
        yield index + 1
    halves = sum(layer.attention + layer.mlp for layer in shape.layers)
    left = "; ".join(_told(why, halves) for why, halves in work.left.items() if halves)
    return Outcome(work.solved, halves, left, work.before, work.error())


class _Run:
    """One model's residual stream, carried from block to block."""

    def __init__(self, model: PreTrainedModel, parts: Sequence[torch.Tensor]) -> None:
        self.blocks = blocks_of(model)
        # Masks and positions are those of a batch, so batches of another size have others.
        one_of_each = {len(part): part for part in parts}
        self._calls = {size: _calls(model, part) for size, part in one_of_each.items()}
        self.stream = [_entering(model, part) for part in parts]

    def call(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """Block `number` on a stream `(B, T, d)`."""
        return self._calls[len(h)][number](h)

    def advance(self, start: int, end: int) -> None:
        for number in range(start, end):
            self.stream = [self.call(number, h) for h in self.stream]


class _Refit:
    """Both models' streams, side by side."""

    @torch.no_grad()
    def __init__(
        self,
        dense: PreTrainedModel,
        pruned: PreTrainedModel,
        anatomy: Anatomy,
        shape: Shape,
        parts: Sequence[torch.Tensor],
        same: Sequence[torch.Tensor],
        ridge: float,
    ) -> None:
        self.anatomy, self.shape, self.ridge = anatomy, shape, ridge
        self.scale = residual_scale(dense.config)
        self.solved, self.left = 0, {why: [] for why in (NO_PROJECTION, NO_SUM, SINGULAR)}
        self.dense, self.pruned = _Run(dense, same), _Run(pruned, parts)
        whole = self.dense.stream, self.pruned.stream
        for run in (self.dense, self.pruned):
            run.stream = run.stream[:1]
            run.advance(0, len(run.blocks))
        self.before = self.error()
        self.dense.stream, self.pruned.stream = whole
        self.dense.advance(0, shape.layers[0].block)

    @torch.no_grad()
    def error(self) -> float:
        """How far the first batch's streams are apart, as a share of the dense one's length; mean."""
        now, wanted = self.pruned.stream[0].float(), self.dense.stream[0].float()
        return float(((now - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean())

    @torch.no_grad()
    def block(self, index: int) -> None:
        """Solve block `index` and carry both streams over it."""
        layer = self.shape.layers[index]
        following = self.shape.layers[index + 1 : index + 2]
        until = following[0].block if following else len(self.dense.blocks)
        made, block = self.anatomy.blocks[layer.block], self.pruned.blocks[index]
        middle, paths = self._dense_halves(layer, made)
        self.dense.advance(layer.block + 1, until)
        for half, there, wanted in (
            (ATTENTION, layer.attention, middle if layer.mlp else self.dense.stream),
            (MLP, layer.mlp, self.dense.stream),
        ):
            if not there:
                continue
            if paths.get(half) is None:
                self.left[NO_SUM if middle is None else NO_PROJECTION].append(half)
            elif self._solve(index, block.get_submodule(paths[half]), made, half, wanted):
                self.solved += 1
            else:
                self.left[SINGULAR].append(half)
        self.pruned.advance(index, index + 1)

    def _dense_halves(self, layer: Layer, made: Block) -> tuple[Stream | None, dict[str, str | None]]:
        """Carry the dense stream over one block, looking inside.

        Returns:
            The stream after the block's attention, None where a block's output is not its input and
            what its halves add; and for each half the projection that it ends in, if there is one.
        """
        block, middle, ends = self.dense.blocks[layer.block], [], []
        paths: dict[str, str | None] = {}
        sums = all(made.added)
        for number, h in enumerate(self.dense.stream):
            looked_at = {path: block.get_submodule(path) for path in made.added if path}
            first = number == 0
            if first:
                for half in HALVES:
                    looked_at |= candidates(block, made, half, h.shape[-1])
            with _outputs(looked_at) as found:
                ends.append(self.dense.call(layer.block, h))
            if not sums:
                continue
            added = self._added(found, made, h)
            middle.append(h + self.scale * added[ATTENTION])
            expected = h.float() + self.scale * (added[ATTENTION].float() + added[MLP].float())
            sums = _alike(expected, ends[-1], ends[-1].float() - h.float())
            if first:
                for half in HALVES:
                    names = candidates(block, made, half, h.shape[-1])
                    same = [n for n in names if n in found and self._ends_in(found[n], added[half], h)]
                    paths[half] = same[-1] if same else None
        self.dense.stream = ends
        return (middle, paths) if sums else (None, {})

    def _added(self, found: dict[str, torch.Tensor], made: Block, h: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each half adds to the stream `h`, before it is scaled."""
        attention, mlp = (found[path].reshape(h.shape) for path in made.added)
        if self.anatomy.family.adds_residual:
            attention, mlp = attention - h, mlp - attention
        return {ATTENTION: attention, MLP: mlp}

    def _ends_in(self, output: torch.Tensor, added: torch.Tensor, h: torch.Tensor) -> bool:
        """Whether a projection's output is what the half adds."""
        if output.numel() != added.numel():
            return False
        rounded = h if self.anatomy.family.adds_residual else added
        return _alike(output.reshape(added.shape), added, added, rounded)

    def _solve(self, index: int, output: nn.Module, made: Block, half: str, wanted: Stream) -> bool:
        """Move one projection by the regression of what is missing on its inputs; False: it cannot be."""
        block, weight = self.pruned.blocks[index], _weight(output)
        inputs = weight.shape[1]
        gram = torch.zeros(inputs, inputs, dtype=torch.float32, device=weight.device)
        cross = torch.zeros(inputs, weight.shape[0], dtype=torch.float32, device=weight.device)
        before = {made.added[0]: block.get_submodule(made.added[0])} if half == MLP else {}
        for h, target in zip(self.pruned.stream, wanted, strict=True):
            with _outputs(before) as found:
                x = _input(output, partial(self.pruned.call, index), h).reshape(-1, inputs)
            missing = (target.float() - h.float()) / self.scale
            if half == MLP:
                attention = found[made.added[0]].float().reshape(h.shape)
                missing -= attention - h.float() if self.anatomy.family.adds_residual else attention
            missing = missing.reshape(-1, weight.shape[0]) - (x @ weight.T).float()
            if output.bias is not None:
                missing -= output.bias.float()
            x = x.float()
            gram.addmm_(x.T, x)
            cross.addmm_(x.T, missing)
        change = _ridge(gram, cross, self.ridge)
        if change is None:
            return False
        moved = (weight.double() + change.T).to(weight.dtype)
        output.weight.data.copy_(moved.T if isinstance(output, Conv1D) else moved)
        return True


def _ridge(gram: torch.Tensor, cross: torch.Tensor, ridge: float) -> torch.Tensor | None:
    """`(G + ridge * mean(diag G) * I)^-1 C` in double precision; None where that is no number."""
    gram = gram.double()
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return None
    change = torch.cholesky_solve(cross.double(), factor)
    return change if bool(change.isfinite().all()) else None


def _alike(
    told: torch.Tensor, there: torch.Tensor, moved: torch.Tensor, rounded: torch.Tensor | None = None
) -> bool:
    """Whether two streams agree, for the middle token, to a share of `moved` and `rounded`'s rounding."""
    rounded = there if rounded is None else rounded
    gap = (told.float() - there.float()).norm(dim=-1)
    allowed = TOLERANCE * moved.float().norm(dim=-1)
    allowed += torch.finfo(there.dtype).eps * rounded.float().norm(dim=-1)
    return bool((gap - allowed).median() <= 0)


def _told(why: str, halves: Sequence[str]) -> str:
    """ "1 attention and 5 MLPs (no projection ...)"."""
    names = {ATTENTION: "attention", MLP: "MLP"}
    parts = [f"{n} {names[half]}{'s' * (n > 1)}" for half in HALVES if (n := halves.count(half))]
    return f"{' and '.join(parts)} ({why})"


def _weight(module: nn.Module) -> torch.Tensor:
    """Of a projection, `(outputs, inputs)`."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


@contextmanager
def _outputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What `modules` give while this is open, by the same names."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple, output) -> None:
        # A copy: some blocks go on to add to it in place.
        found[name] = (output[0] if isinstance(output, tuple) else output).clone()

    handles = [m.register_forward_hook(partial(keep, name)) for name, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _input(module: nn.Module, call: Call, h: torch.Tensor) -> torch.Tensor:
    """What reaches `module`, which is called last, when `call` is made on `h`."""
    found: list[torch.Tensor] = []

    def stop(module: nn.Module, args: tuple) -> None:
        found.append(args[0])
        raise _Reached

    handle = module.register_forward_pre_hook(stop)
    try:
        call(h)
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise RuntimeError("a block passed by the projection that it ends in")


def _entering(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """The residual stream `(B, T, d)` that enters the first block."""
    found: list[torch.Tensor] = []

    def stop(block: nn.Module, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = blocks_of(model)[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(input_ids=rows, use_cache=False)
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise RuntimeError("the first block was not reached")


def _calls(model: PreTrainedModel, rows: torch.Tensor) -> list[Call]:
    """Per block a function from the stream before it to the stream after it, for batches like `rows`."""
    made: list[Call] = []
    blocks = blocks_of(model)

    def remember(block: nn.Module, args: tuple, kwargs: dict) -> None:
        others = {k: v for k, v in kwargs.items() if k != "hidden_states"}

        def call(h: torch.Tensor) -> torch.Tensor:
            out = block(h, *args[1:], **others) if args else block(hidden_states=h, **others)
            return out[0] if isinstance(out, tuple) else out

        made.append(call)
        if len(made) == len(blocks):
            raise _Reached

    handles = [b.register_forward_pre_hook(remember, with_kwargs=True) for b in blocks]
    try:
        model(input_ids=rows, use_cache=False)
    except _Reached:
        return made
    finally:
        for handle in handles:
            handle.remove()
    raise RuntimeError("not every block was reached")
