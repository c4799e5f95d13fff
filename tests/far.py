"""A second device that is not there, with numbers: what is on it refuses to be computed with what is not.

torch lets a processor have a number. What is made on `FAR` or brought there is a tensor of its own kind; its
operations refuse others as an accelerator's do, so that a whole run shows whether all that meets is in one
place. (`FakeTensorMode` refuses likewise, and has no numbers, which a run asks for.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FAR = torch.device("cpu", 1)
ATEN = torch.ops.aten
# Operations that bring numbers from one device to another, or take places from the processor.
CROSSING = (ATEN._to_copy.default, ATEN.copy_.default)
PLACES = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)


class Far(torch.Tensor):
    """A tensor on `FAR`."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                near.size(),
                strides=near.stride(),
                storage_offset=near.storage_offset(),
                dtype=near.dtype,
                layout=near.layout,
                device=FAR,
                requires_grad=near.requires_grad,
            )
        made.near = near
        return made

    @property
    def data(self) -> Far:
        return self.detach()

    @data.setter
    def data(self, other: Far) -> None:
        torch.Tensor.data.__set__(self, other)
        self.near = other.near

    def tolist(self) -> Any:
        return self.near.tolist()

    def numpy(self, **given: Any) -> Any:
        raise TypeError("can't convert a tensor of another device to numpy: use Tensor.cpu() first")

    def __deepcopy__(self, memo: dict) -> Far:
        made = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return computed(func, args, kwargs or {})


class OnFar(TorchDispatchMode):
    """Within it what is made on `FAR` or brought there is a `Far`."""

    def __enter__(self) -> Any:
        # A module that is moved has other parameters then, and not the same with other numbers.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *given: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        super().__exit__(*given)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """What an operation of torch comes to, on the device that it would be on."""
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    there = any(t.device == FAR for t in tensors)
    if there and func not in CROSSING:
        others = [t for t in tensors if t.device != FAR and t.dim() and t.numel()]
        if func in PLACES and args[0].device == FAR:
            others = [t for t in others if t.is_floating_point()]
        if others:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found two for {func}")
    near_args, near_kwargs = tree_map(lambda a: a.near if isinstance(a, Far) else a, (args, kwargs))
    if (asked := kwargs.get("device")) is not None:
        near_kwargs["device"], there = torch.device("cpu"), torch.device(asked) == FAR
    found = func(*near_args, **near_kwargs)
    if func._schema.is_mutable:
        return kwargs.get("out", args[0]) if func._schema.returns else None
    return tree_map(lambda a: Far(a) if there and isinstance(a, torch.Tensor) else a, found)
