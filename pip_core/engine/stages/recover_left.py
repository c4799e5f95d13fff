"""What an earlier attempt at recovery left, or an earlier recovery: what this one goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ...checkpoints.load import load_folder
from ...core.device import number_name
from ...core.errors import UserError
from ...recovery.kept import Kept
from ...recovery.trainer import Outcome, reached
from ..state import RunState


@dataclass(frozen=True)
class Left:
    """What there is to go on from: one of these, or nothing.

    Attributes:
        state: of learning that was stopped or killed, as `Trainer.train` takes it.
        exported: the weights that the run exported last, which an earlier recovery led to.
        begun: whether an attempt has begun, which may have left nothing.
    """

    state: Mapping[str, Any] | None = None
    exported: Mapping[str, torch.Tensor] | None = None
    begun: bool = False

    @classmethod
    def find(cls, run: RunState, kept: Kept, longer: bool) -> Left:
        """What is left in the folder of a run.

        Args:
            longer: whether an earlier recovery is to be gone on from.
        """
        if (state := kept.load("state")) is not None:
            return cls(state, begun=True)
        return cls(None, _exported(run) if longer else None, kept.load("begun") is not None)

    @property
    def there(self) -> bool:
        """Whether there is anything."""
        return self.state is not None or self.exported is not None

    @property
    def done(self) -> bool:
        """Whether the learning had come to its end."""
        return self.state is not None and self.state["step"] >= self.state["last"]

    @property
    def reached(self) -> Outcome | None:
        """What the stopped learning came to until then."""
        return None if self.state is None else reached(self.state)

    @torch.no_grad()
    def put(self, model: PreTrainedModel) -> None:
        """Give a model the best weights that were left, where there are any."""
        own = model.state_dict()
        found = self.exported if self.state is None else self.state["best_weights"]
        for name, weight in (found or {}).items():
            own[name].copy_(weight)


def _exported(run: RunState) -> Mapping[str, torch.Tensor] | None:
    """The weights of the model that the run exported last; None where it cannot be read, or is of another
    shape."""
    if run.out is None:
        return None
    number = number_name(run.loaded.model.dtype)
    try:
        exported = load_folder(replace(run.loaded.source, folder=run.out), number).model.state_dict()
    except UserError:
        return None
    weights = run.loaded.model.state_dict()
    same = {n: w.shape for n, w in weights.items()} == {n: w.shape for n, w in exported.items()}
    return exported if same else None
