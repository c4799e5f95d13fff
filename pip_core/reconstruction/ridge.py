"""Ridge regression whose strength is what holds on text that it was not solved on."""

from __future__ import annotations

import torch

# In units of the mean squared input.
RIDGES = (0.03, 0.12, 0.5, 2.0)


class Regression:
    """The sums a regression needs, gathered batch by batch in two halves of the text.

    Args:
        inputs, outputs: features on either side.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        self._halves = [_Sums(inputs, outputs, device) for _ in range(2)]

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """A batch: inputs `(N, inputs)` and what is wanted of them `(N, outputs)`."""
        for half, some, wanted in zip(self._halves, x.chunk(2), y.chunk(2), strict=False):
            half.add(some.float(), wanted.float())

    @property
    def singular(self) -> bool:
        """Whether what came in is zero or no finite number."""
        power = sum(float(half.gram.diagonal().sum()) for half in self._halves)
        return not 0 < power < float("inf")

    def solve(self, ridge: float) -> torch.Tensor | None:
        """`((G + ridge * mean(diag G) * I)^-1 C)'` over the whole text, `(outputs, inputs)` in float64; None
        where that is no number."""
        one, other = self._halves
        change = solved(one.gram + other.gram, one.cross + other.cross, ridge, torch.float64)
        return None if change is None else change.T

    def best(self) -> torch.Tensor | None:
        """As `solve`, by the ridge of `RIDGES` with the least error, each solved on one half of the text and
        tried on the other; None where none is better than nothing."""
        missing, found = sum(half.square for half in self._halves), {}
        for ridge in RIDGES:
            errors = [self._error(half, ridge) for half in (0, 1)]
            if None not in errors:
                found[ridge] = sum(errors)
        chosen = min(found, key=found.get, default=None)
        return self.solve(chosen) if chosen and found[chosen] < missing else None

    def _error(self, half: int, ridge: float) -> float | None:
        """What is missing in the other half, squared, once `half`'s solution is used."""
        here, there = self._halves[half], self._halves[1 - half]
        w = solved(here.gram, here.cross, ridge, torch.float32)
        if w is None:
            return None
        told = (w * (there.gram @ w - 2 * there.cross)).sum(dtype=torch.float64)
        return float(told) + there.square


class _Sums:
    """`X'X`, `X'Y` and the sum of squares of Y."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        self.gram = torch.zeros(inputs, inputs, device=device)
        self.cross = torch.zeros(inputs, outputs, device=device)
        self.square = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.gram.addmm_(x.T, x)
        self.cross.addmm_(x.T, y)
        self.square += float(y.square().sum(dtype=torch.float64))


def solved(gram: torch.Tensor, cross: torch.Tensor, ridge: float, dtype: torch.dtype) -> torch.Tensor | None:
    """`(G + ridge * mean(diag G) * I)^-1 C`, `(inputs, outputs)`; None where that is no number."""
    gram = gram.to(dtype, copy=True)
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return None
    found = torch.cholesky_solve(cross.to(dtype), factor)
    return found if bool(found.isfinite().all()) else None
