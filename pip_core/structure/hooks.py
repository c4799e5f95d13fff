"""Hooks on modules and tensors. They are registered here and nowhere else, and removed at the end of a `with`
block, but for those that belong to a model as long as it lives (`always_before`).

A module's `forward` is never replaced: accelerate, which spreads a model over devices, keeps its own
dispatch there. What a hook cannot do, leave out a module's computation, is done with a stand-in
module in its place (`blocks_answering`, `answering`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import nn

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class ForwardStopped(Exception):
    """Raised by a hook to end a forward pass whose remainder is not needed."""


class Hooks:
    """Registers hooks inside a `with` block and removes all of them at its end."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Hooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def before(
        self, module: nn.Module, function: Callable[[Args, Kwargs], tuple[Args, Kwargs] | None]
    ) -> None:
        """Call `function(args, kwargs)` before `module`; it may return other `(args, kwargs)`."""
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: function(args, kwargs), with_kwargs=True
        )
        self._stack.callback(handle.remove)

    def after(
        self, module: nn.Module, function: Callable[[Args, Kwargs, Any], Any], always: bool = False
    ) -> None:
        """Call `function(args, kwargs, output)` after `module`; what it returns, unless None, is the output.

        Args:
            always: call it after a failure of `module` too, `output` being None.
        """
        handle = module.register_forward_hook(
            lambda _, args, kwargs, output: function(args, kwargs, output),
            with_kwargs=True,
            always_call=always,
        )
        self._stack.callback(handle.remove)

    def after_gradient(self, weight: nn.Parameter, function: Callable[[nn.Parameter], None]) -> None:
        """Call `function(weight)` once `weight.grad` holds the gradient of a backward pass."""
        self._stack.callback(weight.register_post_accumulate_grad_hook(function).remove)

    def on_gradient(self, tensor: torch.Tensor, function: Callable[[torch.Tensor], None]) -> None:
        """Call `function(gradient)` once the gradient at `tensor` is known."""
        self._stack.callback(tensor.register_hook(function).remove)


def always_before(
    module: nn.Module, function: Callable[[nn.Module, Args, Kwargs], tuple[Args, Kwargs]]
) -> None:
    """Call `function(module, args, kwargs)` before `module` from now on: it returns what that is given."""
    module.register_forward_pre_hook(function, with_kwargs=True)


def hidden_states(args: Args, kwargs: Kwargs) -> torch.Tensor:
    """The residual stream that a block is given."""
    return args[0] if args else kwargs["hidden_states"]


def residual(args: Args, kwargs: Kwargs) -> torch.Tensor:
    """The residual stream that a half is given beside its input, where it adds it itself."""
    return args[1] if len(args) > 1 else kwargs["residual"]


def first_of(output: Any) -> torch.Tensor:
    """What a module adds to or makes of the residual stream, whether or not it returns more than that."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, value: torch.Tensor) -> Any:
    """`output` with its first tensor replaced by `value`."""
    return (value, *output[1:]) if isinstance(output, tuple) else value


@contextlib.contextmanager
def capture_outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect what `modules` return inside a `with` block, by the same names: the last call's, copied,
    since some blocks go on to add to it in place."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[Args, Kwargs, Any], None]:
        return lambda args, kwargs, output: found.update({name: first_of(output).clone()})

    with Hooks() as hooks:
        for name, module in modules.items():
            hooks.after(module, keep(name))
        yield found


@contextlib.contextmanager
def capture_inputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the first input of `modules` inside a `with` block, by the same names: the last call's."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[Args, Kwargs], None]:
        return lambda args, kwargs: found.update({name: args[0]})

    with Hooks() as hooks:
        for name, module in modules.items():
            hooks.before(module, keep(name))
        yield found


@contextlib.contextmanager
def blocks_answering(stack: nn.ModuleList, outputs: Mapping[int, Any]) -> Iterator[None]:
    """Let the blocks at some positions of `stack` return given outputs without computing anything.

    Args:
        outputs: by position, what the block there returns.
    """
    blocks = {position: stack[position] for position in outputs}
    try:
        for position, output in outputs.items():
            stack[position] = _StandIn(blocks[position], output)
        yield
    finally:
        for position, block in blocks.items():
            stack[position] = block


@contextlib.contextmanager
def answering(block: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
    """Let modules inside `block` return given outputs without computing anything.

    Args:
        outputs: by name in the block, what the module of that name returns.
    """
    modules = {path: block.get_submodule(path) for path in outputs}
    try:
        for path, output in outputs.items():
            block.set_submodule(path, _StandIn(modules[path], output))
        yield
    finally:
        for path, module in modules.items():
            block.set_submodule(path, module)


class _StandIn(nn.Module):
    """Returns `output` in a module's place. What others ask a module about itself (a model its blocks about
    the kind of their attention, for one) the module still answers."""

    def __init__(self, module: nn.Module, output: Any) -> None:
        super().__init__()
        # In a tuple, so that the module does not become a part of this one.
        self._module = (module,)
        self._output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_module"][0], name)
