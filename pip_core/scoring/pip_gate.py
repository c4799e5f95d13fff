"""PIP at the gates (ours): how far the gradients at virtual gates differ between the views.

Put a gate z = 1 on what a unit adds to the residual stream, f. The loss's gradient at the gate is
f * g, with g the gradient at that sum; no weight gradient is needed. Taken word by word, the two
views can be compared where they say the same thing. A head or channel is gated where it enters its
output projection, feature by feature; for a block or half the products are taken per channel of
the residual stream. Where a refit follows, f of a block is what the refit could not give back: what
the block adds less its `Substitute`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import BLOCKS, DEPTH
from ..data.perturbation import Pair
from ..reconstruction.linear_substitute import Substitute
from ..structure.sites import Site
from .base import Scorer, Scores, backpropagate, gradients_for
from .token_gradients import logit_gradients


class GateGradientDifference(Scorer):
    """`mean over pairs of sum over words of || (f*g)_word - (f~*g~)_word ||_2`, per unit.

    `(f*g)_word` has shape `(features,)`: the products of a word's tokens, added up. Where blocks are ranked
    with parts of blocks, their sum over the features is compared, the gradient at one gate for the whole
    unit, so that all are in nats.
    """

    name = "pip-gate"
    title = "PIP at the gates"
    paper = "this project, after Cao et al., arXiv 2501.15278"
    summary = (
        "Puts a gate on what every unit adds to the text, and compares the gradient at the gate between "
        "a text and its perturbed view, word by word. Where a refit follows, a block is scored by what that "
        "could not give back, and the rest of it is handed to the block before."
    )
    perturbs = True
    scores_tokens = True
    comparable_scores = True
    accounts_for_refit = True

    def __init__(self, given_back: Mapping[int, Substitute] = MappingProxyType({})) -> None:
        self.given_back = given_back

    def given_substitutes(self, given_back: Mapping[int, Substitute]) -> GateGradientDifference:
        return GateGradientDifference(given_back)

    def cost(self, sites: int) -> float:
        # For each view a forward, and a backward for activations alone that takes as long as two of it.
        return 6.0

    def token_cost(self) -> float:
        # For each view a forward.
        return 2.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        totals = [torch.zeros(s.size) for s in sites]
        mixed = len({s.kind in DEPTH for s in sites}) > 1
        for done, pair in enumerate(pairs, 1):
            count = int(max(pair.clean.words[-1], pair.other.words[-1])) + 1
            clean, other = (
                gate_gradients(model, blocks, sites, view.ids, view.words, count, self.given_back)
                for view in (pair.clean, pair.other)
            )
            for total, one, two in zip(totals, clean, other, strict=True):
                gap = one - two
                gap = gap.sum(dim=2).abs() if mixed else gap.norm(dim=2)
                total += gap.sum(dim=0).cpu()
            yield done
        return [t / len(pairs) for t in totals]

    def tokens(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> Generator[int, None, torch.Tensor]:
        """`mean over pairs of sum over words of | dL/dlogit(s)_word - dL/dlogit(s~)_word |`.

        Not times the logit, as a gate on it would have it: how large a logit is says how a token is told
        from others, and not how often it is needed.
        """
        total = torch.zeros(())
        for done, pair in enumerate(pairs, 1):
            count = int(max(pair.clean.words[-1], pair.other.words[-1])) + 1
            clean, other = (logit_gradients(model, v.ids, v.words, count) for v in (pair.clean, pair.other))
            total = total + (clean - other).abs_().sum(dim=0).cpu()
            yield done
        return total / len(pairs)


def gate_gradients(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: torch.Tensor,
    words: torch.Tensor,
    count: int,
    given_back: Mapping[int, Substitute] = MappingProxyType({}),
) -> list[torch.Tensor]:
    """Gate gradients of one view, per site: shape `(count, units, features)`, float32.

    Args:
        ids: `(T,)` token ids.
        words: `(T,)` word index of each token, below `count`.
        given_back: what need not be counted of whole blocks, by position.
    """
    substituted: dict[int, torch.Tensor] = {}
    found: list[torch.Tensor | None] = [None] * len(sites)

    def watch(index: int, stream: torch.Tensor, added: torch.Tensor) -> None:
        """Keep the products of `added`, `(T, units, features)`, and the gradient at `stream`."""
        if not stream.requires_grad:
            # The first of the sites: gradients need not flow back beyond it.
            stream.requires_grad_()

        def on_gradient(gradient: torch.Tensor) -> None:
            product = (added * gradient.reshape(added.shape).float())[: len(words)]
            pooled = product.new_zeros(count, *product.shape[1:])
            found[index] = pooled.index_add_(0, words.to(product.device), product)

        stream.register_hook(on_gradient)

    def on_output(index: int, module: nn.Module, args: tuple, kwargs: dict, output):
        site, stream = sites[index], output[0] if isinstance(output, tuple) else output
        added = stream.detach().float()
        if site.kind == BLOCKS:
            added = added - (args[0] if args else kwargs["hidden_states"]).detach().float()
            if site.position in substituted:
                added = added - substituted.pop(site.position).reshape(added.shape)
        elif site.adds_residual:
            added = added - (args[1] if len(args) > 1 else kwargs["residual"]).detach().float()
        watch(index, stream, added.reshape(-1, 1, added.shape[-1]))
        if site.kind == BLOCKS:
            return None
        # A model may add to what a half gives in place (Falcon does), and so would change `added` too.
        return (stream.clone(), *output[1:]) if isinstance(output, tuple) else stream.clone()

    def on_input(index: int, module: nn.Module, args: tuple) -> None:
        size = sites[index].size
        watch(index, args[0], args[0].detach().float().reshape(-1, size, args[0].shape[-1] // size))

    def on_substitute(position: int, module: nn.Module, args: tuple) -> None:
        substituted[position] = (args[0].detach() @ given_back[position].weight).float()

    with torch.enable_grad(), gradients_for(model, ()), contextlib.ExitStack() as stack:
        for position, substitute in given_back.items():
            module = blocks[position - 1].get_submodule(substitute.path)
            hook = module.register_forward_pre_hook(partial(on_substitute, position))
            stack.callback(hook.remove)
        for index, site in enumerate(sites):
            block = blocks[site.position]
            if site.width is not None:
                module = block.get_submodule(site.width.output)
                handle = module.register_forward_pre_hook(partial(on_input, index))
            else:
                module = block.get_submodule(site.added) if site.added else block
                handle = module.register_forward_hook(partial(on_output, index), with_kwargs=True)
            stack.callback(handle.remove)
        backpropagate(model, (ids,), (1.0,))
    return found
