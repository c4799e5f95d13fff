"""How what a recipe has left learns, from the same rows for all: LoRA on the text, or the dense logits."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from pip_core.core.progress import drain
from pip_core.recovery.attention import fast_attention
from pip_core.recovery.distillation import learn
from pip_core.recovery.optimiser import (
    PASS_ROWS,
    RISING,
    STEP_ROWS,
    Optimiser,
    Schedule,
    learning_weights,
    pass_rows,
)
from pip_core.recovery.trainer import Outcome, Plan, Trainer
from pip_core.recovery.watch import Watch
from pip_core.scoring.base import backpropagate

MLP = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Rows:
    """What is learnt from, and what is held out.

    Attributes:
        ids: as the pruned model reads them, int64 `(N, T)`; `same` the same text by the dense model's ids.
        watched, watched_same: likewise what is held out.
        kept: dense ids of the pruned model's tokens; None where all are left.
    """

    ids: torch.Tensor
    same: torch.Tensor
    watched: torch.Tensor
    watched_same: torch.Tensor
    kept: torch.Tensor | None

    @property
    def steps(self) -> int:
        return len(self.ids) // STEP_ROWS


@dataclass(frozen=True)
class Lora:
    """Low-rank updates that learn to predict the text itself, merged at the end.

    Attributes:
        modules: names of the projections that have one.
        alpha: what the update is multiplied by, times the rank.
    """

    rank: int
    alpha: int
    modules: tuple[str, ...]
    rate: float
    dropout: float = 0.05

    def learn(self, pruned: PreTrainedModel, dense: PreTrainedModel, rows: Rows, seed: int) -> None:
        torch.manual_seed(seed)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.modules),
            lora_dropout=self.dropout,
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(pruned, config)
        adapted.train()
        weights = {name: p for name, p in adapted.named_parameters() if p.requires_grad}

        def gradient(part: torch.Tensor) -> None:
            backpropagate(pruned, list(rows.ids[part].to(pruned.device)), [1 / STEP_ROWS] * len(part))

        with fast_attention(pruned):
            steps(weights, gradient, rows, self.rate, seed)
        adapted.merge_and_unload()
        pruned.eval()


@dataclass(frozen=True)
class Logits:
    """All weights learn the dense model's predictions, the embeddings too.

    Attributes:
        embeddings: whether these learn as well.
    """

    rate: float
    embeddings: bool = True

    def learn(self, pruned: PreTrainedModel, dense: PreTrainedModel, rows: Rows, seed: int) -> None:
        weights = dict(pruned.named_parameters()) if self.embeddings else learning_weights(pruned)
        for name, parameter in pruned.named_parameters():
            parameter.requires_grad_(name in weights)
        positions = STEP_ROWS * rows.ids.shape[1]

        def gradient(part: torch.Tensor) -> None:
            ids = rows.ids[part].to(pruned.device)
            learn(pruned, dense, ids, rows.same[part], rows.kept, positions)

        with fast_attention(pruned, dense):
            steps(weights, gradient, rows, self.rate, seed)


@dataclass(frozen=True)
class Ours:
    """This project's recovery: the state that fits held-out text best is kept."""

    rate: float
    looks: int = 10

    def learn(self, pruned: PreTrainedModel, dense: PreTrainedModel, rows: Rows, seed: int) -> Outcome:
        watch = Watch(rows.watched.split(PASS_ROWS), rows.watched_same.split(PASS_ROWS), rows.kept)
        plan = Plan(rows.ids.numel(), self.rate, self.looks, until_level=False)
        return drain(Trainer(pruned, dense, rows.ids, rows.same, watch, plan, seed).train())


def steps(
    weights: Mapping[str, nn.Parameter],
    gradient: Callable[[torch.Tensor], None],
    rows: Rows,
    rate: float,
    seed: int,
) -> None:
    """Learn from every row once, in an order that the seed decides.

    Args:
        gradient: adds the gradient on the rows of these numbers to the weights'.
    """
    optimiser, schedule = Optimiser(weights), Schedule(rate, RISING, rows.steps)
    order = list(range(len(rows.ids)))
    random.Random(f"{seed}/recovery-bench").shuffle(order)
    for step, chosen in enumerate(torch.tensor(order[: rows.steps * STEP_ROWS]).split(STEP_ROWS)):
        for part in chosen.split(pass_rows(next(iter(weights.values())).device)):
            gradient(part)
            optimiser.collect()
        optimiser.step(schedule.at(step))


Learning = Lora | Logits | Ours
__all__ = ["ATTENTION", "MLP", "Learning", "Logits", "Lora", "Ours", "Rows"]
