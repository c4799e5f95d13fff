"""The steps of learning: float32 master weights, AdamW, a rate that rises and falls.

AdamW: Loshchilov and Hutter (arXiv 1711.05101), as torch has it, without decay of the weights: what is learnt
here is to be the dense model again, which no decay leads to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.accelerator import at_once
from ..core.errors import UserError
from ..core.process_group import ProcessGroup

# Rows in one step, and in one pass of it on a processor.
STEP_ROWS, PASS_ROWS = 4, 2
BETAS = (0.9, 0.95)
# Longest gradient; a longer one is shortened to this.
LONGEST = 1.0
# Steps on which the rate rises.
RISING = 10

Weights = Mapping[str, torch.Tensor]


def pass_rows(place: torch.device) -> int:
    """Rows in one pass of learning on a device."""
    return min(STEP_ROWS, at_once(PASS_ROWS, place))


class Diverged(UserError):
    """Loss or gradient are no finite numbers any more, or what is learnt leads away from the dense model."""

    def __init__(self, why: str = "the numbers were not finite any more") -> None:
        super().__init__(f"It ended early because {why}; a lower learning rate (recover_rate) may help.")


@dataclass(frozen=True)
class Schedule:
    """The learning rate by step: rises to `rate`, stays, and from step `falls` on falls in a straight line
    towards 0, which it would reach at step `ends`. Without these two it stays."""

    rate: float
    falls: int | None = None
    ends: int | None = None

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / RISING)
        if self.falls is None or self.ends is None or step < self.falls:
            return self.rate * rising
        return self.rate * rising * max(0.0, (self.ends - step) / (self.ends - self.falls))


def learning_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The weights that learn, by name: all but the embeddings and the head, which are the same matrix in many
    models, and large beside what they would give."""
    frozen = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = model.get_output_embeddings()
    frozen |= {id(p) for p in head.parameters()} if head is not None else set()
    return {name: p for name, p in model.named_parameters() if id(p) not in frozen}


@contextmanager
def learning(model: PreTrainedModel) -> Iterator[dict[str, nn.Parameter]]:
    """Within this context only the weights that learn ask for gradients; nothing is left behind."""
    before = {p: p.requires_grad for p in model.parameters()}
    chosen = learning_weights(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    try:
        yield chosen
    finally:
        for parameter, asked in before.items():
            parameter.requires_grad_(asked)
            parameter.grad = None


class Optimiser:
    """AdamW over float32 masters of a model's weights, which are the weights themselves where the model is
    computed in float32."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights = dict(weights)
        self.masters = {
            name: w if w.dtype == torch.float32 else w.detach().float().requires_grad_()
            for name, w in self.weights.items()
        }
        self._adam = torch.optim.AdamW(list(self.masters.values()), betas=BETAS, weight_decay=0.0, fused=True)

    @torch.no_grad()
    def collect(self) -> None:
        """Add up the gradients of a batch; in float32, so that many small ones are not lost."""
        for name, weight in self.weights.items():
            master = self.masters[name]
            if master is weight or weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad += weight.grad
            weight.grad = None

    @torch.no_grad()
    def add_up(self, group: ProcessGroup, loss: float) -> float:
        """Add up the gradients and the loss that several processes collected: one exchange for both.

        Returns:
            The loss of all; like the gradients, the same in each.
        """
        if group.size == 1:
            return loss
        masters = list(self.masters.values())
        parts = [torch.zeros_like(m) if m.grad is None else m.grad for m in masters]
        last = torch.tensor([loss], device=parts[-1].device)
        *summed, last = group.add_up(torch.cat([p.flatten() for p in (*parts, last)])).split(
            [*(m.numel() for m in masters), 1]
        )
        for master, gradient in zip(masters, summed, strict=True):
            master.grad = gradient.view_as(master).clone()
        return float(last)

    def step(self, rate: float) -> None:
        """One step with the gradients that were collected.

        Raises:
            Diverged: they are not finite; the weights are as before.
        """
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        length = nn.utils.get_total_norm(gradients)
        if not math.isfinite(length):
            raise Diverged
        if float(length) > LONGEST:
            nn.utils.clip_grads_with_norm_(self.masters.values(), LONGEST, length)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._write()

    def forget(self) -> None:
        """Drop gradients that were collected for a step that was not taken."""
        for weight in (*self.weights.values(), *self.masters.values()):
            weight.grad = None

    def copy(self) -> dict[str, torch.Tensor]:
        """The masters as they are now."""
        return {name: master.detach().clone() for name, master in self.masters.items()}

    @torch.no_grad()
    def copy_over(self, earlier: Weights) -> None:
        """Write the masters as they are now over an earlier `copy`, so that there are never two."""
        for name, master in self.masters.items():
            earlier[name].copy_(master)

    @torch.no_grad()
    def put(self, masters: Weights) -> None:
        """Set masters, and so the model's weights."""
        for name, master in self.masters.items():
            master.copy_(masters[name])
        self._write()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, see `restore`."""
        return {"masters": {n: m.detach() for n, m in self.masters.items()}, "adam": self._adam.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.put(state["masters"])
        self._adam.load_state_dict(state["adam"])

    @torch.no_grad()
    def _write(self) -> None:
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                weight.copy_(self.masters[name])
