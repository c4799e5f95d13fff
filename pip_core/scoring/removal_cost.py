"""What it costs to remove units or tokens, measured and not estimated: the loss of the dense model with them
masked, in nats, on texts that they were not scored on.

Nothing is cut: a unit is masked where it enters its output projection, a block returns its input, tokens are
sent to the experts that are left, and a removed token is left out of the softmax after the text was written
without it. One currency for all kinds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from ..core.float64 import total as sum_of
from ..core.units import BLOCKS
from ..structure.experts import Experts, Rerouted
from ..structure.families import blocks_of
from ..structure.hooks import Args, Hooks, Kwargs, first_of, hidden_states, residual, with_first
from ..structure.sites import Site
from ..structure.vocabulary import VocabularySubset
from .base import predictions

Retokenize = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def masked(
    model: PreTrainedModel, sites: Sequence[Site], units: Mapping[int, torch.Tensor]
) -> Iterator[None]:
    """Let units of the dense `model` add nothing inside a `with` block.

    Args:
        sites: of any kind.
        units: number of a site -> positions in it of the units to mask, int64.
    """

    def silence(site: Site, places: torch.Tensor, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        each = args[0].shape[-1] // site.size
        kept = torch.ones(site.size, dtype=args[0].dtype, device=args[0].device)
        kept[places] = 0
        return (args[0] * kept.repeat_interleave(each), *args[1:]), kwargs

    def pass_on(args: Args, kwargs: Kwargs, output: object) -> object:
        return with_first(output, hidden_states(args, kwargs).reshape(first_of(output).shape))

    def add_nothing(site: Site, args: Args, kwargs: Kwargs, output: object) -> object:
        stream = first_of(output)
        nothing = residual(args, kwargs) if site.adds_residual else torch.zeros_like(stream)
        return with_first(output, nothing.reshape(stream.shape))

    blocks = blocks_of(model)
    with contextlib.ExitStack() as stack:
        hooks = stack.enter_context(Hooks())
        for index, places in units.items():
            site = sites[index]
            block = blocks[site.position]
            if isinstance(site.width, Experts):
                kept = [n for n in range(site.size) if n not in set(places.tolist())]
                fewer = Rerouted(block, model.config, site.position, site.width, kept)
                stack.enter_context(fewer.active())
            elif site.kind == BLOCKS:
                hooks.after(block, pass_on)
            elif site.width is None:
                hooks.after(block.get_submodule(site.added), partial(add_nothing, site))
            else:
                hooks.before(block.get_submodule(site.output), partial(silence, site, places))
        yield


def lowest(
    sites: Sequence[Site], scores: Sequence[torch.Tensor], counts: Sequence[int]
) -> dict[int, torch.Tensor]:
    """The lowest-scored units of each site, as `masked` takes them.

    Args:
        scores: `(site.size,)` per site.
        counts: how many of each.
    """
    found = enumerate(zip(sites, scores, counts, strict=True))
    return {
        n: torch.tensor(site.lowest(one.argsort(stable=True).tolist(), count))
        for n, (site, one, count) in found
        if count
    }


def nats(model: PreTrainedModel, texts: Iterable[torch.Tensor]) -> Iterator[float]:
    """The dense model's loss on each text, in nats: the sum over its tokens but the first. One text at a
    time; no gradient mode is held between two.

    Args:
        texts: token ids `(T,)` each.
    """
    for ids in texts:
        yield _nats(model, ids, [None], 1)[0]


def nats_without(
    model: PreTrainedModel, subsets: Sequence[VocabularySubset | None], ids: torch.Tensor
) -> tuple[list[float], int]:
    """The loss on one text, for each of some vocabularies; None is the dense model's.

    The text is written without the tokens outside a subset, and nothing is predicted of them. The tokens that
    stand for the text's first are not counted either. What comes out alike is read once: few removed tokens
    are in few texts.

    Args:
        ids: token ids `(T,)`.

    Returns:
        The losses in nats, and the tokens that were read for them.
    """
    found, alike = [0.0] * len(subsets), dict[tuple[int, ...], list[int]]()
    for n, subset in enumerate(subsets):
        written = ids.cpu() if subset is None else subset.kept[subset.retokenize(ids.cpu())]
        alike.setdefault(tuple(written.tolist()), []).append(n)
    for written_, group in alike.items():
        kept = [None if (subset := subsets[n]) is None else subset.kept.to(model.device) for n in group]
        one = subsets[group[0]]
        first = 1 if one is None else len(one.retokenize(ids[:1].cpu()))
        losses = _nats(model, torch.tensor(written_), kept, first)
        for n, loss in zip(group, losses, strict=True):
            found[n] = loss
    return found, sum(map(len, alike))


@torch.inference_mode()
def _nats(
    model: PreTrainedModel, ids: torch.Tensor, subsets: Sequence[torch.Tensor | None], first: int
) -> list[float]:
    """The loss on a text whose first tokens are not counted, by each of the `subsets` of the vocabulary; None
    is all of it."""
    found, place = [0.0] * len(subsets), 1
    for part, targets in predictions(model, ids):
        logits = part.float()
        wanted = logits.gather(1, targets[:, None])[:, 0]
        for n, kept in enumerate(subsets):
            whole = (logits if kept is None else logits.index_select(1, kept)).logsumexp(dim=-1)
            found[n] += sum_of((whole - wanted)[max(first - place, 0) :])
        place += len(targets)
    return found
