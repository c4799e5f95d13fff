"""Weights that are read from disk when they are used, so that a model need not fit into memory.

A `StreamedWeight` is an ordinary parameter to whoever looks at it: a name, a shape, a number format, a
gradient. Its numbers are read as soon as an operation needs them, and the blocks used before give up theirs.
Surgery does not read it at all: what is kept is remembered, and cut out each time it is read. So methods,
families, the refit and the evaluation know nothing of it; only who changes a weight does so with `overwrite`.

What is not in memory holds NaN, so that a fault here could never pass as a result.
"""

from __future__ import annotations

import itertools
import math
import mmap
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import UserError
from ..core.paths import cache_folder

# Folder of weights that were changed, in the cache folder.
CHANGED = "streamed"
# Bytes from which a weight has memory of its own.
LARGE = 2**20
# Questions about a weight that its numbers are not needed for.
_PROPERTIES = (
    *("shape", "dtype", "device", "requires_grad", "grad", "is_leaf", "grad_fn", "ndim", "itemsize"),
    *("nbytes", "is_meta", "layout", "is_sparse", "is_sparse_csr", "is_cpu", "is_cuda", "is_mps", "is_xpu"),
    *("is_mkldnn", "is_quantized", "is_nested", "names", "retains_grad", "_version"),
    *("_backward_hooks", "_post_accumulate_grad_hooks"),
)
_METHODS = (
    *("numel", "nelement", "size", "dim", "element_size", "is_floating_point", "is_complex", "is_inference"),
    *("requires_grad_", "register_hook", "register_post_accumulate_grad_hook"),
)
_NEED_NOTHING = {
    *(
        getattr(getattr(torch.Tensor, name), way)
        for name in _PROPERTIES
        if hasattr(torch.Tensor, name)  # not all are in all releases of torch
        for way in ("__get__", "__set__")
    ),
    *(getattr(torch.Tensor, name) for name in _METHODS),
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
}
_DATA: Any = torch.Tensor.data
_NUMBERS = (_DATA.__get__, _DATA.__set__)
_IN_PLACE = ("__setitem__", *(f"__i{what}__" for what in ("add", "sub", "mul", "truediv", "floordiv", "pow")))


@dataclass(frozen=True)
class Stored:
    """Where the numbers of a weight are.

    Attributes:
        offset: of the first byte in `file`.
        shape: as they are stored.
        cuts: what is kept of them, `(axis, indices)` one after another.
    """

    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    cuts: tuple[tuple[int, torch.Tensor], ...] = ()

    @property
    def left(self) -> torch.Size:
        """The shape of what is kept."""
        shape = list(self.shape)
        for axis, indices in self.cuts:
            shape[axis] = len(indices)
        return torch.Size(shape)

    def narrowed(self, axis: int, indices: torch.Tensor) -> Stored:
        """Slices of it, which is not read for that."""
        return replace(self, cuts=(*self.cuts, (axis, indices.cpu())))

    def read(self) -> torch.Tensor:
        """The numbers, on the CPU and in the format they are stored in.

        Raises:
            UserError: the file is gone, or shorter than it was.
        """
        found = _given_back(math.prod(self.shape), self.dtype)
        # Read, not mapped: then the memory in use is what it is said to be, and it is given up at once.
        view = raw(found)
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                at = 0
                while at < len(view) and (count := file.readinto(view[at:])):
                    at += count
        except FileNotFoundError:
            at = -1
        if at < len(view):
            what = "gone" if at < 0 else "shorter than it says"
            raise UserError(
                f"The weights file '{self.file.name}' is {what}. Bring the checkpoint back as it was, then "
                "resume the run; nothing decided is lost."
            )
        found = found.view(self.shape)
        for axis, indices in self.cuts:
            found = found.index_select(axis, indices)
        return found


@dataclass(frozen=True)
class Held:
    """The numbers of a weight in the machine's memory, for an accelerator that is given them when it computes
    with them."""

    values: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def left(self) -> torch.Size:
        return self.values.shape

    def narrowed(self, axis: int, indices: torch.Tensor) -> Held:
        return Held(self.values.index_select(axis, indices.cpu()))

    def read(self) -> torch.Tensor:
        return self.values


class Stream:
    """The streamed weights of one model, and which of them are in memory: those of the blocks used last.

    Args:
        device: where they are computed with.
        dtype: in which format.
        room: bytes of them that may be in memory; a block is, even where it is larger.

    Attributes:
        read: bytes that were read from disk so far.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, room: int = 0) -> None:
        self.device, self.dtype, self.room = device, dtype, room
        self.read = 0
        self._sizes: dict[int, int] = {}
        # By block, the one used last at the end.
        self._held: dict[int, list[StreamedWeight]] = {}
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory | None = None
        self._numbers = itertools.count()

    def weight(self, stored: Stored | Held, block: int) -> StreamedWeight:
        """A weight of a block, by the block's number."""
        made = self._made(stored, block)
        self._sizes[block] = self._sizes.get(block, 0) + made.numel() * self.dtype.itemsize
        return made

    def narrowed(self, weight: StreamedWeight, axis: int, indices: torch.Tensor) -> StreamedWeight:
        """What is left of a weight, which is not read for that."""
        made = self._made(weight.stored.narrowed(axis, indices), weight.block)
        made.requires_grad_(weight.requires_grad)
        return made

    def touch(self, weight: StreamedWeight) -> None:
        """Have a weight's numbers in memory."""
        held = self._held.pop(weight.block, None)
        if held is None:
            self._make_room(self._sizes[weight.block])
            held = []
        self._held[weight.block] = held
        if not weight.here:
            with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                values = weight.stored.read()
                if isinstance(weight.stored, Stored):
                    self.read += values.numel() * values.element_size()
                if values.dtype != self.dtype and self.device.type == "cpu":
                    values = _given_back(values.numel(), self.dtype).view(values.shape).copy_(values)
                weight.data = values.to(device=self.device, dtype=self.dtype)
            weight.here = True
            held.append(weight)
            self._bytes += weight.numel() * self.dtype.itemsize

    def overwrite(self, weight: StreamedWeight, values: torch.Tensor) -> None:
        """Give a weight other numbers, kept where it is kept, in the format they are computed in."""
        made = values.detach().to("cpu", self.dtype).contiguous()
        if isinstance(weight.stored, Held):
            weight.stored = Held(made.clone())
            self.forget()
            return
        if self._folder is None:
            place = cache_folder() / CHANGED
            place.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(dir=place)
        file = Path(self._folder.name, f"{next(self._numbers)}.bin")
        file.write_bytes(raw(made))
        if weight.stored.file.parent == file.parent:
            weight.stored.file.unlink(missing_ok=True)
        weight.stored = Stored(file, 0, self.dtype, tuple(made.shape))
        self.forget()

    def forget(self) -> None:
        """Give up what is in memory."""
        self._make_room(self.room + 1)

    def _make_room(self, needed: int) -> None:
        while self._held and self._bytes + needed > self.room:
            for weight in self._held.pop(next(iter(self._held))):
                self._bytes -= weight.numel() * self.dtype.itemsize
                weight.here = False
                with torch.inference_mode(False), torch._C.DisableTorchFunctionSubclass():
                    weight.data = self._nothing(weight.shape)

    def _made(self, stored: Stored | Held, block: int) -> StreamedWeight:
        made = StreamedWeight(self._nothing(stored.left))
        made.stream, made.stored, made.block, made.here = self, stored, block, False
        return made

    def _nothing(self, shape: torch.Size) -> torch.Tensor:
        """Looks like a weight, takes no memory."""
        return torch.full((), math.nan, dtype=self.dtype, device=self.device).expand(shape)


class StreamedWeight(nn.Parameter):
    """A parameter whose numbers are read when an operation needs them; see the module.

    Attributes:
        block: number of its block.
        here: whether its numbers are in memory.
    """

    stream: Stream
    stored: Stored | Held
    block: int
    here: bool

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func not in _NEED_NOTHING:
            name = getattr(func, "__name__", "")
            # What is written into the numbers in memory would be lost with them.
            if args and isinstance(args[0], cls) and (func in _NUMBERS or _in_place(name)):
                raise RuntimeError("a streamed weight is read by detach(), and changed by overwrite() alone")
            for weight in _weights((*args, *(kwargs or {}).values())):
                weight.stream.touch(weight)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def _in_place(name: str) -> bool:
    return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _weights(values: Iterable[Any]) -> Iterable[StreamedWeight]:
    for value in values:
        if isinstance(value, StreamedWeight):
            yield value
        elif isinstance(value, list | tuple):
            yield from _weights(value)


def is_streamed(module: nn.Module) -> bool:
    """Whether any weight of a model or block is read when it is used."""
    return any(isinstance(weight, StreamedWeight) for weight in module.parameters())


def _given_back(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory for `count` numbers that is the system's again as soon as nobody holds them. What an allocator
    keeps for later would grow to a multiple of a block."""
    if count * dtype.itemsize < LARGE:
        return torch.empty(count, dtype=dtype)
    private = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, **private), dtype=dtype)


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU; writing them changes it."""
    numbers: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(numbers)


@torch.no_grad()
def overwrite(weight: nn.Parameter, values: torch.Tensor) -> None:
    """Give a weight other numbers of the same shape; they are rounded to its format."""
    if isinstance(weight, StreamedWeight):
        weight.stream.overwrite(weight, values)
    else:
        weight.data.copy_(values)


def narrowed_weight(weight: nn.Parameter, axis: int, indices: torch.Tensor) -> nn.Parameter:
    """A weight with the slices at `indices` of one axis alone.

    Args:
        indices: int64 `(n,)`.
    """
    if isinstance(weight, StreamedWeight):
        return weight.stream.narrowed(weight, axis, indices)
    left = weight.detach().index_select(axis, indices.to(weight.device))
    return nn.Parameter(left, requires_grad=weight.requires_grad)
