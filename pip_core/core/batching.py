"""Token rows of unequal length, side by side in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Rows are filled up to a multiple of this many tokens: the CPU's matrix kernels are compiled and
# kept once per shape, and a new shape for every window costs both time and memory.
MULTIPLE = 16


def rows_of(ids: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put token rows of unequal length side by side.

    Returns:
        `(rows, lengths)`: rows `(B, T)` filled on the right with each row's own last token (causal
        attention never looks there), lengths `(B,)`.
    """
    lengths = torch.tensor([len(i) for i in ids])
    longest = -int(-lengths.max() // MULTIPLE) * MULTIPLE
    rows = torch.stack([torch.cat([i, i[-1:].expand(longest - len(i))]) for i in ids])
    return rows, lengths


@dataclass(frozen=True)
class Tree:
    """Token rows as one row in which beginnings they share stand only once.

    Attributes:
        ids: `(N,)` tokens, what comes before always ahead of what follows.
        positions: `(N,)` each token's place in the row(s) it belongs to, from 0.
        paths: per row, the numbers of its tokens in `ids`, `(T_i,)`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    paths: tuple[torch.Tensor, ...]

    @property
    def branches(self) -> bool:
        """Whether some token must not see all that stand before it."""
        return max(map(len, self.paths)) < len(self.ids)


def tree_of(rows: Sequence[Sequence[int]]) -> Tree:
    """Rows of token ids (none empty) as a tree."""
    ids: list[int] = []
    positions: list[int] = []
    followers: dict[tuple[int, int], int] = {}
    paths = []
    for row in rows:
        path, last = [], -1
        for place, token in enumerate(row):
            node = followers.setdefault((last, token), len(ids))
            if node == len(ids):
                ids.append(token)
                positions.append(place)
            path.append(node)
            last = node
        paths.append(torch.tensor(path))
    return Tree(torch.tensor(ids), torch.tensor(positions), tuple(paths))


def rows_of_trees(
    trees: Sequence[Tree], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Put trees side by side.

    Returns:
        `(ids, positions, mask)`: ids `(B, T)` filled on the right, and where a tree branches, positions
        `(B, T)` and the mask to add to attention scores `(B, 1, T, T)`, 0 where a token sees another
        (itself and what comes before it in its own rows) and the least number of `dtype` elsewhere.
        Without branches both are None: causal attention does the same.
    """
    longest = max(len(t.ids) for t in trees)
    ids = torch.stack([_filled(t.ids, longest) for t in trees])
    if not any(t.branches for t in trees):
        return ids, None, None
    positions = torch.stack([_filled(t.positions, longest) for t in trees])
    sees = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
    order = torch.ones(longest, longest, dtype=torch.bool).tril()
    for tree, one in zip(trees, sees, strict=True):
        for path in tree.paths:
            one[path[:, None], path] = order[: len(path), : len(path)]
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)
    return ids, positions, mask[:, None]


def _filled(values: torch.Tensor, length: int) -> torch.Tensor:
    return torch.cat([values, values[-1:].expand(length - len(values))])
