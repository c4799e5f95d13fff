"""What a scoring method is, and what methods share: the loss, and which weights ask for gradients.

A scoring method knows no family, no engine and no loop over texts. Given a model and the sites to
score it begins a pass, takes in batches of calibration pairs, and answers with one 1-D tensor of
`site.size` scores per site; larger means keep. `pip_core.data.calibration` hands it the batches.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.accelerator import at_once
from ..core.batching import rows_of
from ..core.float64 import total as sum_of
from ..core.repeatable import repeatable_attention
from ..core.units import KINDS
from ..data.feeding import ScoringPass
from ..data.perturbation import Pair
from ..reconstruction.linear_substitute import Substitute
from ..structure.families import blocks_of
from ..structure.recompute import recomputed
from ..structure.sites import Site
from ..structure.streamed import is_streamed

Scores = list[torch.Tensor]
# Of units; and of the rows of the vocabulary, by domain.
EveryKind = tuple[Scores, Mapping[int, torch.Tensor]]
Batch = Sequence[Pair]

# Positions whose logits a processor has in float32 at a time: 32 x 50,000 words are 6 MB.
POSITIONS = 32
# The value of the recipe's `step` that removes everything in one iteration.
AT_ONCE = 0.999


class Scorer(ABC):
    """A scoring method: a description for readers, and a pass over the calibration pairs.

    Attributes:
        name: id in recipes and on the command line.
        title: what people read.
        paper: where the method comes from.
        summary: two sentences for the page and the model card.
        kinds: kinds of units it is defined for, see `pip_core.core.units`.
        usual: the recipe's settings as the method was published, where they are not the recipe's own
            defaults; a comparison of methods starts from them.
        inf_protects: whether a score of +inf means that the unit must stay. For all other methods it
            means that numbers overflowed.
        domains: how many domains the calibration must have at least.
        perturbs: whether it reads the perturbed view too.
        scores_tokens: whether it is defined for rows of the vocabulary, see `begin_tokens`.
        comparable_scores: whether the scores of blocks and of their parts can be ranked with one another.
        accounts_for_refit: whether it takes into account what a refit gives back, see `given_substitutes`.
    """

    name: str
    title: str
    paper: str
    summary: str
    kinds: tuple[str, ...] = KINDS
    usual: ClassVar[Mapping[str, object]] = {}
    inf_protects: bool = False
    domains: int = 1
    perturbs: bool = False
    scores_tokens: bool = False
    comparable_scores: bool = False
    accounts_for_refit: bool = False

    @abstractmethod
    def cost(self, sites: int) -> float:
        """Cost of scoring `sites` sites on one calibration pair, in forward passes over one view."""

    def token_cost(self) -> float:
        """Cost of scoring the rows of the vocabulary on one pair, in forward passes over one view."""
        return self.cost(1)

    def protects(self, blocks: int) -> frozenset[int]:
        """Numbers of the blocks that it never removes anything from, of a dense model of `blocks` blocks."""
        return frozenset()

    @abstractmethod
    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        """Begin to score the units at `sites`.

        Args:
            model: in evaluation mode; every step leaves it as it was.
            blocks: the decoder blocks of `model`; `sites[i].position` indexes them.

        Returns:
            A pass whose `scores()` are one float32 tensor of shape `(site.size,)` per site, on the CPU:
            finite, or +inf for a unit that must stay where the method `inf_protects`. It raises
            UserError for calibration that the method cannot work with.
        """

    def given_substitutes(self, substitutes: Mapping[int, Substitute]) -> Scorer:
        """This method, scoring a whole block by what its substitute cannot give back; only where the method
        `accounts_for_refit`.

        Args:
            substitutes: by position.
        """
        raise NotImplementedError(f"{self.name} does not account for a refit")

    def begin_every_kind(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[EveryKind] | None:
        """Begin to score units of several kinds, and the rows of the vocabulary, in one pass over the pairs;
        None where the method takes a pass for each.

        Returns:
            A pass whose `scores()` are those that `begin` finds of each kind by itself, to the last digit;
            and by domain of the text those that `begin_tokens` finds, added up over the pairs.
        """
        return None

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        """Begin to score the rows of the vocabulary; only where the method `scores_tokens`.

        Args:
            model: in evaluation mode; every step leaves it as it was.

        Returns:
            A pass whose `scores()` are float32 of shape `(V,)`, on the CPU.
        """
        raise NotImplementedError(f"{self.name} is not defined for tokens")


def loss_of(model: PreTrainedModel, ids: torch.Tensor) -> float:
    """The mean next-token cross-entropy of one text in nats; no gradient.

    Args:
        ids: `(T,)` token ids.
    """
    total = 0.0
    with torch.inference_mode():
        for logits, targets in predictions(model, ids):
            found = logits.float().log_softmax(dim=-1).gather(1, targets[:, None])
            total -= sum_of(found)
    return total / (len(ids) - 1)


def predictions(model: PreTrainedModel, ids: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A text's logits `(n, V)` and the tokens that follow `(n,)`, some positions at a time.

    Args:
        ids: `(T,)` token ids.
    """
    rows, count = rows_of((ids,))[0].to(model.device), len(ids) - 1
    logits = model(input_ids=rows, use_cache=False).logits[0, :count]
    each = at_once(POSITIONS, logits.device)
    return zip(logits.split(each), rows[0, 1 : count + 1].split(each), strict=True)


def backpropagate(
    model: PreTrainedModel,
    ids: Sequence[torch.Tensor],
    signs: Sequence[float],
    at_logits: Callable[[int, int, torch.Tensor], None] | None = None,
) -> None:
    """Backward pass of `sum_i signs[i] * L(ids[i])`, L the mean next-token cross-entropy in nats.

    With signs (1, -1) the gradient is exactly the difference of the two views' gradients. The
    gradient at the logits is written down directly, some positions at a time, so that no float32
    copy of all logits is ever made.

    Args:
        ids: rows of token ids, `(T_i,)` each.
        signs: a factor for each row.
        at_logits: is given, of one row after another, the row's number, a position, and the gradient at the
            logits from there on, some positions `(n, V)` at a time, float32.
    """
    rows, lengths = rows_of(ids)
    rows = rows.to(model.device)
    # The weights of a streamed block are gone when the next is computed: no backward pass could hold them.
    with (
        recomputed(block for block in blocks_of(model) if is_streamed(block)),
        repeatable_attention(rows.device),
    ):
        logits = model(input_ids=rows, use_cache=False).logits
        with torch.no_grad():
            gradient, each = torch.zeros_like(logits), at_once(POSITIONS, logits.device)
            for row, (length, sign) in enumerate(zip(lengths.tolist(), signs, strict=True)):
                for start in range(0, length - 1, each):
                    end = min(start + each, length - 1)
                    part = gradient_at(logits[row, start:end], rows[row, start + 1 : end + 1])
                    gradient[row, start:end] = part.mul_(sign / (length - 1))
                    if at_logits is not None:
                        at_logits(row, start, part)
        logits.backward(gradient)


def gradient_at(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Gradient of the cross-entropy at `logits` `(T, V)`, for next tokens `targets` `(T,)`; float32."""
    found, places = logits.float().softmax(dim=-1), targets[:, None]
    return found.scatter_add_(1, places, found.new_full(places.shape, -1.0))


def gradient_of(weight: nn.Parameter) -> torch.Tensor:
    """The gradient that a backward pass left at a weight."""
    assert weight.grad is not None
    return weight.grad


@contextlib.contextmanager
def gradients_for(model: nn.Module, wanted: Iterable[nn.Parameter]) -> Iterator[None]:
    """Ask for gradients of the `wanted` weights, and of no other, inside a `with` block."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    chosen = {id(p) for p in wanted}
    for p, _ in before:
        p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)
