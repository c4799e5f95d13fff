"""PIP at the gates (ours): the difference between the gradients of the two views at virtual gates.

Put a gate z = 1 on what a unit adds to the residual stream, f. The loss's gradient at the gate is
f * g, with g the gradient at that sum; no weight gradient is needed. The products are summed word by
word, so that the two views are compared where they say the same. A head or channel is gated where it
enters its output projection, feature by feature; for a block or half the products are taken per channel
of the residual stream. The gate of an expert multiplies what its output is multiplied by, for each token that
is sent to it. Where a refit follows, f of a block is what the refit cannot give back: what the
block adds less its `Substitute`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import BLOCKS, DEPTH, EXPERTS
from ..data.feeding import ScoringPass
from ..data.perturbation import Pair, View
from ..reconstruction.linear_substitute import Substitute
from ..structure.experts import given
from ..structure.families import embedding_weight
from ..structure.hooks import Args, Hooks, Kwargs, first_of, hidden_states, residual, with_first
from ..structure.sites import Site
from .base import Batch, EveryKind, Scorer, Scores, backpropagate, gradients_for
from .token_gradients import logit_gradients

# Is given the number of a site, and what was found there.
Fold = Callable[[int, torch.Tensor], None]


class GateGradientDifference(Scorer):
    """`mean over pairs of sum over words of || (f*g)_word - (f~*g~)_word ||_2`, per unit.

    `(f*g)_word` has shape `(features,)`: the products of a word's tokens, added up. Where blocks are ranked
    with parts of blocks, their sum over the features is compared, the gradient at one gate for the whole
    unit, so that all are in nats.
    """

    name = "pip-gate"
    title = "PIP-Gate (recommended)"
    paper = "this project, after Cao et al., arXiv 2501.15278"
    summary = (
        "Scores each part by how differently the model reacts to a clean and a misspelt text. What reacts "
        "least is removed first."
    )
    perturbs = True
    scores_tokens = True
    comparable_scores = True
    accounts_for_refit = True

    def __init__(self, substitutes: Mapping[int, Substitute] = MappingProxyType({})) -> None:
        self.substitutes = substitutes

    def given_substitutes(self, substitutes: Mapping[int, Substitute]) -> GateGradientDifference:
        return GateGradientDifference(substitutes)

    def cost(self, sites: int) -> float:
        # For each view a forward pass, and a backward pass for activations alone, which takes as long as two.
        return 6.0

    def token_cost(self) -> float:
        # For each view a forward pass.
        return 2.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites, self.substitutes)

    def begin_every_kind(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[EveryKind]:
        return _PassOfEveryKind(model, blocks, sites, self.substitutes)

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        return _TokenPass(model)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("totals", "pairs")

    def __init__(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        substitutes: Mapping[int, Substitute],
    ) -> None:
        self.model, self.blocks, self.sites, self.substitutes = model, blocks, sites, substitutes
        self.totals = [torch.zeros(site.size) for site in sites]
        self.mixed = len({site.kind in DEPTH for site in sites}) > 1
        self.pairs = 0

    def add(self, batch: Batch) -> None:
        views = [view for pair in batch for view in (pair.clean, pair.perturbed)]
        gaps: list[torch.Tensor | None] = [None] * len(self.sites)
        first: dict[int, torch.Tensor] = {}

        def compare(index: int, found: torch.Tensor) -> None:
            if len(found) > 1:
                one, other = found[::2], found[1::2]
            elif index in first:
                one, other = first.pop(index), found
            else:
                first[index] = found
                return
            gap = one - other
            gap = gap.sum(dim=3).abs() if self.mixed else gap.norm(dim=3)
            gaps[index] = gap.flatten(0, 1).sum(dim=0)

        # Side by side where that keeps an accelerator busy; a processor reads the one after the other.
        several = [views] if views[0].ids.device.type != "cpu" else [[view] for view in views]
        for some in several:
            self._read(some, max(map(_words_in, batch)), compare)
        for total, gap in zip(self.totals, gaps, strict=True):
            assert gap is not None
            total += gap.cpu()
        self.pairs += len(batch)

    def _read(self, views: Sequence[View], count: int, compare: Fold) -> None:
        gate_gradients(self.model, self.blocks, self.sites, views, count, compare, self.substitutes)

    def scores(self) -> Scores:
        return [total / self.pairs for total in self.totals]


class _PassOfEveryKind(_Pass):
    """Ranks no kinds together, and finds by domain what a `_TokenPass` finds: its gradients at the logits are
    those that the backward pass begins with."""

    sums: ClassVar[tuple[str, ...]] = (*_Pass.sums, "tokens")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.mixed = False
        self.tokens: dict[int, torch.Tensor] = {}
        # Gradients at the logits of the views of a pair, and the domains of the pairs that are to come.
        self._at_logits: list[torch.Tensor] = []
        self._domains: list[int] = []

    def add(self, batch: Batch) -> None:
        self._at_logits, self._domains = [], [pair.domain for pair in batch]
        super().add(batch)
        self._compare()

    def _read(self, views: Sequence[View], count: int, compare: Fold) -> None:
        rows = embedding_weight(self.model).shape[0]

        def add(row: int, start: int, gradient: torch.Tensor) -> None:
            if not start:
                if len(self._at_logits) > 1:
                    self._compare()
                self._at_logits.append(torch.zeros(count, rows, device=gradient.device))
            words = views[row].words.to(gradient.device)
            self._at_logits[-1].index_add_(0, words[start + 1 : start + 1 + len(gradient)], gradient)

        gate_gradients(self.model, self.blocks, self.sites, views, count, compare, self.substitutes, add)

    def _compare(self) -> None:
        clean, perturbed = self._at_logits
        domain = self._domains.pop(0)
        self.tokens[domain] = self.tokens.get(domain, 0) + (clean - perturbed).abs_().sum(dim=0).cpu()
        self._at_logits = []

    def scores(self) -> EveryKind:  # type: ignore[override]
        return super().scores(), self.tokens


class _TokenPass:
    """`mean over pairs of sum over words of | dL/dlogit(s)_word - dL/dlogit(s~)_word |`.

    Not times the logit, as a gate on it would have it: the size of a logit tells a token from others, and
    not how often it is needed.
    """

    sums: ClassVar[tuple[str, ...]] = ("total", "pairs")

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.total = torch.zeros(())
        self.pairs = 0

    def add(self, batch: Batch) -> None:
        for pair in batch:
            count = _words_in(pair)
            clean, perturbed = (
                logit_gradients(self.model, view.ids, view.words, count)
                for view in (pair.clean, pair.perturbed)
            )
            self.total = self.total + (clean - perturbed).abs_().sum(dim=0).cpu()
            self.pairs += 1

    def scores(self) -> torch.Tensor:
        return self.total / self.pairs


def _words_in(pair: Pair) -> int:
    return int(max(pair.clean.words[-1], pair.perturbed.words[-1])) + 1


def gate_gradients(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    views: Sequence[View],
    count: int,
    fold: Fold,
    substitutes: Mapping[int, Substitute] = MappingProxyType({}),
    at_logits: Callable[[int, int, torch.Tensor], None] | None = None,
) -> None:
    """Gate gradients of views, which are read side by side.

    Args:
        count: how many words each view has at most.
        fold: is given a site's number and its gate gradients as soon as they are known, `(views, count,
            units, features)`, float32.
        substitutes: what does not count of whole blocks, by position.
        at_logits: see `backpropagate`.
    """
    given_back: dict[int, torch.Tensor] = {}
    lengths = [len(view.ids) for view in views]
    # Of every token the place of its word among those of all views.
    words = torch.cat([view.words + row * count for row, view in enumerate(views)])

    with torch.enable_grad(), gradients_for(model, ()), Hooks() as hooks:

        def multiply(index: int, stream: torch.Tensor, added: torch.Tensor) -> None:
            """Keep the products of `added`, `(views * T, units, features)`, and the gradient at `stream`."""
            if not stream.requires_grad:
                # The first of the sites: gradients need not flow back beyond it.
                stream.requires_grad_()

            def on_gradient(gradient: torch.Tensor) -> None:
                pool(index, added * gradient.reshape(added.shape).float())

            hooks.on_gradient(stream, on_gradient)

        def pool(index: int, product: torch.Tensor) -> None:
            """Add up the products `(views * T, units, features)` of each word's tokens."""
            rows = product.view(len(views), -1, *product.shape[1:])
            parts = [row[:length] for row, length in zip(rows, lengths, strict=True)]
            product = torch.cat(parts) if len(parts) > 1 else parts[0]
            pooled = product.new_zeros(len(views) * count, *product.shape[1:])
            pooled.index_add_(0, words.to(product.device), product)
            fold(index, pooled.view(len(views), count, *pooled.shape[1:]))

        def after_site(index: int, args: Args, kwargs: Kwargs, output: object) -> object:
            site, stream = sites[index], first_of(output)
            added = stream.detach().float()
            if site.kind == BLOCKS:
                added = added - hidden_states(args, kwargs).detach().float()
                if site.position in given_back:
                    back = given_back.pop(site.position).to(added.device)
                    added = added - back.reshape(added.shape)
            elif site.adds_residual:
                added = added - residual(args, kwargs).detach().float()
            multiply(index, stream, added.reshape(-1, 1, added.shape[-1]))
            if site.kind == BLOCKS:
                return None
            # A model may add to a half's output in place (Falcon does), and so would change `added` too.
            return with_first(output, stream.clone())

        def before_projection(index: int, args: Args, kwargs: Kwargs) -> None:
            size = sites[index].size
            multiply(index, args[0], args[0].detach().float().reshape(-1, size, args[0].shape[-1] // size))

        def before_experts(index: int, args: Args, kwargs: Kwargs) -> None:
            _, places, factors = given(args, kwargs)
            if not factors.requires_grad:
                factors.requires_grad_()
            values = factors.detach().float()

            def on_gradient(gradient: torch.Tensor) -> None:
                every = values.new_zeros(len(values), sites[index].size)
                pool(index, every.scatter_add_(1, places, values * gradient.float())[:, :, None])

            hooks.on_gradient(factors, on_gradient)

        def substitute(position: int, args: Args, kwargs: Kwargs) -> None:
            given_back[position] = (args[0].detach() @ substitutes[position].weight).float()

        for position, known in substitutes.items():
            module = blocks[position - 1].get_submodule(known.path)
            hooks.before(module, partial(substitute, position))
        for index, site in enumerate(sites):
            block = blocks[site.position]
            if site.width is not None:
                before = before_experts if site.kind == EXPERTS else before_projection
                hooks.before(block.get_submodule(site.width.output), partial(before, index))
            else:
                module = block.get_submodule(site.added) if site.added else block
                hooks.after(module, partial(after_site, index))
        backpropagate(model, [view.ids for view in views], [1.0] * len(views), at_logits)
