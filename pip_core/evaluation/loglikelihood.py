"""Log-likelihoods of continuations; tokens that several continuations begin with are read once.

The choices of a question share its prompt and often their own first words. They are laid out as a
tree in one row: a token attends to the tokens before it in its own choice, and to nothing else. The
model's head computes logits of the scored positions only. Some models cannot read a tree (recurrent
states, windows shorter than the text, positions of their own). The longest question is therefore scored
in both ways first; where they disagree, or the model refuses the 4-D attention mask of a tree, every
choice is read in a row of its own, with the same result.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from ..core.accelerator import at_once, device
from ..core.batching import Tree, rows_of_trees, tree_of
from ..core.device import is_out_of_memory
from ..core.errors import UserError
from ..core.portions import in_portions
from ..core.process_group import current
from ..structure.hooks import Args, Hooks, Kwargs
from .requests import Request

# Tokens in one forward pass on a processor: enough to keep two cores busy.
BATCH_TOKENS = 1024
# Fixed cost of a forward pass, in tokens (measured with SmolLM2-135M on two cores).
BATCH_COST = 16
# Positions whose logits a processor turns into float32 at a time: 64 x 50,000 words are 13 MB.
POSITIONS = 64
# Largest difference between the two ways that is rounding, in nats per scored token.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}

# Words of the errors that torch raises for tensors whose shapes do not fit. A model without support for
# 4-D masks fails with one of them; other runtime errors, such as failed allocations, are never taken for it.
SHAPE_ERROR = re.compile(r"\b(sizes?|shapes?|dim|dims|dimensions?|expand\w*|broadcast\w*)\b", re.IGNORECASE)

# Log-likelihood of a continuation in nats, and whether greedy decoding would write it.
Likelihood = tuple[float, bool]


@dataclass(frozen=True, eq=False)
class Entry:
    """One row for the model.

    Attributes:
        tree: the row's tokens.
        requests: for each request its number, the nodes of the tree that predict its targets, and the
            targets, both int64 `(targets,)`.
        cost: what the row counts for in the progress, in tokens.
    """

    tree: Tree
    requests: tuple[tuple[int, torch.Tensor, torch.Tensor], ...]
    cost: int


class Likelihoods:
    """Requests in groups (a question's choices), packed once, scored for any number of models in turn.

    Attributes:
        count: number of requests.
        shares: whether beginnings that requests share are read once; None until a model was tried.
    """

    def __init__(self, groups: Sequence[Sequence[Request]]) -> None:
        trees: list[Entry] = []
        chains: list[Entry] = []
        for group in groups:
            tree = make_entry(group, len(chains))
            trees.append(tree)
            for index, request in enumerate(group):
                # Costs sum to the same, so that the progress reaches its total in either way.
                cost = tree.cost // len(group) + (tree.cost % len(group) if index == 0 else 0)
                chains.append(make_entry([request], len(chains), cost))
        self.count = len(chains)
        self._chains = make_batches(chains)
        # A model that ignores the mask goes wrong most clearly on the last branch of the largest tree, be
        # its size counted in positions of the text or in tokens of the row.
        self._probes: list[Entry] = []
        if branching := [e for e in trees if e.tree.branches]:
            furthest = {max(branching, key=_depth), max(branching, key=_width)}
            self._probes = [chains[e.requests[-1][0]] for e in furthest]
        probed = {number for e in self._probes for number, _, _ in e.requests}
        self._trees = sorted(make_batches(trees), key=lambda batch: probed.isdisjoint(_numbers(batch)))
        self._first = sum(not probed.isdisjoint(_numbers(batch)) for batch in self._trees)
        self.shares: bool | None = None if self._probes else True

    @property
    def tokens(self) -> int:
        """Tokens that the model reads where shared beginnings are read once."""
        return sum(e.cost for batch in self._trees for e in batch)

    def measure(self, model: PreTrainedModel, greedy: bool = False) -> Generator[int, None, list[Likelihood]]:
        """Score all requests.

        Args:
            greedy: also find whether greedy decoding would write a request's targets.

        Yields:
            How many of `tokens` the step read.

        Returns:
            Per request the log-likelihood of its targets in nats, and whether greedy decoding would
            write them (False without `greedy`).

        Raises:
            UserError: a log-likelihood is not a finite number.
        """
        found: dict[int, Likelihood] = {}
        if self.shares is None:
            found = self._try_trees(model, greedy)
            self.shares = bool(found)
        done = self._first if found else 0
        yield from (sum(e.cost for e in batch) for batch in self._trees[:done])
        group = current()
        own: dict[int, Likelihood] = {}
        for batch in group.share(self._trees[done:] if self.shares else self._chains):
            for part in in_portions(partial(_score, model, greedy), batch):
                own |= part
            yield sum(e.cost for e in batch) * group.size
        for each in group.gather(own):
            found |= each
        if not all(math.isfinite(nats) for nats, _ in found.values()):
            raise UserError(
                "The model's log-likelihoods are not finite numbers (NaN or infinity), so it cannot be "
                "measured. It is damaged, or its numbers overflow: choose the number format float32, or "
                "remove less."
            )
        return [found[number] for number in range(self.count)]

    def _try_trees(self, model: PreTrainedModel, greedy: bool) -> dict[int, Likelihood]:
        """Score the batches that show whether the model reads trees; empty where it does not."""
        found: dict[int, Likelihood] = {}
        try:
            for batch in self._trees[: self._first]:
                for part in in_portions(partial(_score, model, greedy), batch):
                    found |= part
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if not _refuses_mask(error):
                raise
            return {}
        allowed = ROUNDING.get(model.dtype, ROUNDING[torch.float32])
        alone: dict[int, Likelihood] = {}
        for part in in_portions(partial(_score, model, greedy), self._probes):
            alone |= part
        for number, (apart, _) in alone.items():
            targets = next(t for e in self._probes for n, _, t in e.requests if n == number)
            if not abs(found[number][0] - apart) <= allowed * len(targets):
                return {}
        return found


def _refuses_mask(error: Exception) -> bool:
    """Whether an error of a forward pass means that the model takes no 4-D mask, or no positions."""
    if is_out_of_memory(error):
        return False
    return not isinstance(error, RuntimeError) or bool(SHAPE_ERROR.search(str(error)))


def _depth(entry: Entry) -> int:
    return int(entry.tree.positions.max())


def _width(entry: Entry) -> int:
    return len(entry.tree.ids)


def _numbers(batch: Sequence[Entry]) -> set[int]:
    return {number for e in batch for number, _, _ in e.requests}


def make_entry(group: Sequence[Request], first: int, cost: int | None = None) -> Entry:
    tree = tree_of([r.ids for r in group])
    requests = tuple(
        (first + index, path[-len(request.targets) :], torch.tensor(request.targets))
        for index, (request, path) in enumerate(zip(group, tree.paths, strict=True))
    )
    return Entry(tree, requests, len(tree.ids) if cost is None else cost)


def make_batches(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Batches of entries of similar length, the longest first, at the least total cost.

    Every row is padded to the longest of its batch, and a batch costs `BATCH_COST` tokens beside its rows.
    """
    tokens, cost = (at_once(usual, device()) for usual in (BATCH_TOKENS, BATCH_COST))
    entries = sorted(entries, key=lambda e: -len(e.tree.ids))
    lengths = [len(e.tree.ids) for e in entries]
    # best[n]: the least cost of the entries from n on, and the end of the batch that begins at n.
    best = [(0, len(entries))] * (len(entries) + 1)
    for start in range(len(entries) - 1, -1, -1):
        most = max(1, tokens // lengths[start])
        ends = range(start + 1, min(start + most, len(entries)) + 1)
        best[start] = min((cost + lengths[start] * (end - start) + best[end][0], end) for end in ends)
    batches, start = [], 0
    while start < len(entries):
        batches.append(entries[start : best[start][1]])
        start = best[start][1]
    return batches


@torch.inference_mode()
def _score(model: PreTrainedModel, greedy: bool, batch: Sequence[Entry]) -> dict[int, Likelihood]:
    """The likelihoods of a batch by request number."""
    ids, positions, mask = rows_of_trees([e.tree for e in batch], model.dtype)
    width = ids.shape[1]
    # Every scored position once, numbered across the batch; choices may share some.
    places = [row * width + nodes for row, e in enumerate(batch) for _, nodes, _ in e.requests]
    wanted, slots = torch.cat(places).unique(return_inverse=True)
    targets = torch.cat([t for e in batch for _, _, t in e.requests])
    given = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    given = {name: value.to(model.device) for name, value in given.items() if value is not None}
    with _head_limited_to(model, wanted.to(model.device)):
        logits = model(**given, use_cache=False).logits
    logits = logits.flatten(0, 1)
    if len(logits) != len(wanted):
        logits = logits[wanted]  # the model's head is no module of its own, so nothing was left out
    slots, targets = slots.to(logits.device), targets.to(logits.device)
    likelihoods = logits.new_empty(len(targets), dtype=torch.float32)
    likeliest = torch.zeros_like(targets, dtype=torch.bool)
    each = at_once(POSITIONS, logits.device)
    for start in range(0, len(logits), each):
        part = logits[start : start + each].float()
        mine = ((slots >= start) & (slots < start + each)).nonzero()[:, 0]
        rows, words = slots[mine] - start, targets[mine]
        likelihoods[mine] = part[rows, words] - part.logsumexp(-1)[rows]
        if greedy:
            likeliest[mine] = part.argmax(-1)[rows] == words
    likelihoods, likeliest, found, at = likelihoods.cpu().double(), likeliest.cpu(), {}, 0
    for entry in batch:
        for number, nodes, _ in entry.requests:
            end = at + len(nodes)
            found[number] = (float(likelihoods[at:end].sum()), bool(likeliest[at:end].all()))
            at = end
    return found


@contextlib.contextmanager
def _head_limited_to(model: PreTrainedModel, places: torch.Tensor) -> Iterator[None]:
    """Within this context the model's head reads only the positions `places`.

    Args:
        places: numbers of positions across the batch, int64 `(S,)`; the head reads `(1, S, H)`. What the
            model does to its logits afterwards is unchanged.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return

    def only(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return (args[0].flatten(0, 1)[places][None], *args[1:]), kwargs

    with Hooks() as hooks:
        hooks.before(head, only)
        yield
