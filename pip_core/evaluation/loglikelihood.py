"""Log-likelihoods of continuations, each token of a shared beginning read once.

The choices of a question share its prompt and often their own first words. They are laid out as a
tree in one row: a token sees what comes before it in its own choice, and nothing else. The model's
head is given the scored positions only. A model whose attention cannot be told so (recurrent states,
windows shorter than the text, positions of its own) is found out on the longest question, which is
scored both ways; it then reads every choice in a row of its own, and the result is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..core.batching import Tree, rows_of_trees, tree_of
from .requests import Request

# Tokens in one forward pass: enough to keep two cores busy.
BATCH_TOKENS = 1024
# What a forward pass costs beside its tokens, in tokens (SmolLM2-135M on two cores).
BATCH_COST = 16
# Positions whose logits are turned into float32 at a time: 64 x 50,000 words are 13 MB.
POSITIONS = 64
# How far the two ways may differ per scored token, in nats: rounding, not another answer.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}

Found = tuple[float, bool]


@dataclass(frozen=True, eq=False)
class _Entry:
    """A row for the model: a tree, and for each of its requests a number, the tokens (of the tree)
    that predict and what they should predict. `cost` is in tokens, for the progress."""

    tree: Tree
    requests: tuple[tuple[int, torch.Tensor, torch.Tensor], ...]
    cost: int


class Likelihoods:
    """Requests in groups (a question's choices), packed once, scored as often as needed."""

    def __init__(self, groups: Sequence[Sequence[Request]]) -> None:
        trees, chains = [], []
        for group in groups:
            tree = _entry(group, len(chains))
            trees.append(tree)
            for index, request in enumerate(group):
                # The same sum of costs either way.
                cost = tree.cost // len(group) + (tree.cost % len(group) if index == 0 else 0)
                chains.append(_entry([request], len(chains), cost))
        self.count = len(chains)
        self._chains = _batches(chains)
        # What a model that cannot be told what a token sees would get wrong: the last branch of the tree
        # that reaches furthest, be it counted in places of the text or in tokens of the row.
        self._probes: list[_Entry] = []
        if branching := [e for e in trees if e.tree.branches]:
            furthest = {max(branching, key=_depth), max(branching, key=_width)}
            self._probes = [chains[e.requests[-1][0]] for e in furthest]
        probed = {number for e in self._probes for number, _, _ in e.requests}
        self._trees = sorted(_batches(trees), key=lambda batch: probed.isdisjoint(_numbers(batch)))
        self._first = sum(not probed.isdisjoint(_numbers(batch)) for batch in self._trees)
        self._shares: bool | None = None if self._probes else True

    @property
    def tokens(self) -> int:
        """Tokens the model reads where beginnings are shared."""
        return sum(e.cost for batch in self._trees for e in batch)

    def measure(self, model: PreTrainedModel, greedy: bool = False) -> Generator[int, None, list[Found]]:
        """Score all requests.

        Args:
            greedy: also tell whether greedy decoding would write a request's targets.

        Yields:
            How many of `tokens` the step took.

        Returns:
            Per request the log-likelihood of its targets in nats, and whether greedy decoding would
            write them (False where it was not asked).
        """
        found: dict[int, Found] = {}
        if self._shares is None:
            found = self._try_trees(model, greedy)
            self._shares = bool(found)
        done = self._first if found else 0
        yield from (sum(e.cost for e in batch) for batch in self._trees[:done])
        for batch in self._trees[done:] if self._shares else self._chains:
            found |= _score(model, batch, greedy)
            yield sum(e.cost for e in batch)
        return [found[number] for number in range(self.count)]

    def _try_trees(self, model: PreTrainedModel, greedy: bool) -> dict[int, Found]:
        """Score the batches that show whether trees work with this model; nothing where they do not."""
        found: dict[int, Found] = {}
        try:
            for batch in self._trees[: self._first]:
                found |= _score(model, batch, greedy)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError):
            return {}  # it takes no such mask or positions
        allowed = ROUNDING.get(model.dtype, ROUNDING[torch.float32])
        for number, (apart, _) in _score(model, self._probes, greedy).items():
            targets = next(t for e in self._probes for n, _, t in e.requests if n == number)
            if not abs(found[number][0] - apart) <= allowed * len(targets):
                return {}
        return found


def _depth(entry: _Entry) -> int:
    return int(entry.tree.positions.max())


def _width(entry: _Entry) -> int:
    return len(entry.tree.ids)


def _numbers(batch: Sequence[_Entry]) -> set[int]:
    return {number for e in batch for number, _, _ in e.requests}


def _entry(group: Sequence[Request], first: int, cost: int | None = None) -> _Entry:
    tree = tree_of([r.ids for r in group])
    requests = tuple(
        (first + index, path[-len(request.targets) :], torch.tensor(request.targets))
        for index, (request, path) in enumerate(zip(group, tree.paths, strict=True))
    )
    return _Entry(tree, requests, len(tree.ids) if cost is None else cost)


def _batches(entries: Sequence[_Entry]) -> list[list[_Entry]]:
    """Entries of like length together, the longest first, so that least is read in all.

    Every row is as long as its batch's longest, and a batch costs `BATCH_COST` tokens beside its rows.
    """
    entries = sorted(entries, key=lambda e: -len(e.tree.ids))
    lengths = [len(e.tree.ids) for e in entries]
    # best[n]: the least cost of the entries from n on, and where the batch that begins at n ends.
    best = [(0, len(entries))] * (len(entries) + 1)
    for start in range(len(entries) - 1, -1, -1):
        most = max(1, BATCH_TOKENS // lengths[start])
        ends = range(start + 1, min(start + most, len(entries)) + 1)
        best[start] = min((BATCH_COST + lengths[start] * (end - start) + best[end][0], end) for end in ends)
    batches, start = [], 0
    while start < len(entries):
        batches.append(entries[start : best[start][1]])
        start = best[start][1]
    return batches


@torch.inference_mode()
def _score(model: PreTrainedModel, batch: Sequence[_Entry], greedy: bool) -> dict[int, Found]:
    """Request number -> its log-likelihood, and whether greedy decoding would write it."""
    ids, positions, mask = rows_of_trees([e.tree for e in batch], model.dtype)
    width = ids.shape[1]
    # Every scored position once, numbered through the batch; choices may share some.
    places = [row * width + nodes for row, e in enumerate(batch) for _, nodes, _ in e.requests]
    wanted, slots = torch.cat(places).unique(return_inverse=True)
    targets = torch.cat([t for e in batch for _, _, t in e.requests])
    given = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    given = {name: value.to(model.device) for name, value in given.items() if value is not None}
    with _head_sees(model, wanted.to(model.device)):
        logits = model(**given, use_cache=False).logits
    logits = logits.flatten(0, 1)
    if len(logits) != len(wanted):
        logits = logits[wanted]  # the head is not a module of its own
    slots, targets = slots.to(logits.device), targets.to(logits.device)
    likelihoods = logits.new_empty(len(targets), dtype=torch.float32)
    likeliest = torch.zeros_like(targets, dtype=torch.bool)
    for start in range(0, len(logits), POSITIONS):
        part = logits[start : start + POSITIONS].float()
        mine = ((slots >= start) & (slots < start + POSITIONS)).nonzero()[:, 0]
        rows, words = slots[mine] - start, targets[mine]
        likelihoods[mine] = part[rows, words] - part.logsumexp(-1)[rows]
        if greedy:
            likeliest[mine] = part.argmax(-1)[rows] == words
    likelihoods, likeliest, found, at = likelihoods.double().cpu(), likeliest.cpu(), {}, 0
    for entry in batch:
        for number, nodes, _ in entry.requests:
            end = at + len(nodes)
            found[number] = (float(likelihoods[at:end].sum()), bool(likeliest[at:end].all()))
            at = end
    return found


@contextlib.contextmanager
def _head_sees(model: PreTrainedModel, places: torch.Tensor) -> Iterator[None]:
    """For a while the model's head is given only these positions (numbered through the batch), as
    `(1, S, H)`; what the model does to logits afterwards, it does as ever."""
    head = model.get_output_embeddings()
    if head is None:
        yield
        return

    def only(_: torch.nn.Module, args: tuple) -> tuple:
        return (args[0].flatten(0, 1)[places][None], *args[1:])

    handle = head.register_forward_pre_hook(only)
    try:
        yield
    finally:
        handle.remove()
