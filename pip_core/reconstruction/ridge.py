"""Ridge regression whose strength is chosen on text that it was not solved on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core.errors import UserError
from ..core.float64 import double, total
from ..core.process_group import ProcessGroup

# In units of the mean squared input.
RIDGES = (0.03, 0.12, 0.5, 2.0)
# The one that is best where the text is short.
LOOSE = 2.0
# Strips that `X'X`, which is symmetric, is computed in: of each what stands at and left of the diagonal.
STRIPS = 4
NOT_FINITE = (
    "The refit meets activations that are not finite numbers: they overflow in the chosen number format. "
    "Choose float32, or switch the refit off."
)


class Regression:
    """The sums that a regression needs, gathered batch by batch in two halves of the text.

    Args:
        inputs, outputs: number of features on either side.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        self._halves = [_Sums(inputs, outputs, device) for _ in range(2)]
        self._format = torch.float32

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take in a batch: inputs `(N, inputs)` and wanted outputs `(N, outputs)`."""
        self._format = x.dtype
        with _products_of(x.dtype):
            for half, some, wanted in zip(self._halves, x.chunk(2), y.chunk(2), strict=False):
                half.add(some.float(), wanted.float())

    def add_up(self, group: ProcessGroup) -> None:
        """Add up what several processes took in; the sums are then the same in each."""
        for half in self._halves:
            half.lower, half.cross = group.add_up(half.lower), group.add_up(half.cross)
            half.square = sum(group.gather(half.square))

    def check(self) -> None:
        """Refuse sums that no solution can be had from.

        Raises:
            UserError: an input or a wanted output is not a finite number.
        """
        if not all(half.finite for half in self._halves):
            raise UserError(NOT_FINITE)

    @property
    def singular(self) -> bool:
        """Whether every input is zero."""
        return not any(float(half.lower.diagonal().sum()) for half in self._halves)

    def solve(self, ridge: float) -> torch.Tensor | None:
        """`((G + ridge * mean(diag G) * I)^-1 C)'` over the whole text, `(outputs, inputs)` in float64, on
        the processor where the device has no such numbers; None where it has no finite value."""
        one, other = self._halves
        change = solved(double(one.lower + other.lower), double(one.cross + other.cross), ridge)
        return None if change is None else change.T

    def best(self) -> torch.Tensor | None:
        """As `solve`, with the ridge of `RIDGES` that has the least error, each solved on one half of the
        text and tested on the other; None where no solution has less error than no change."""
        found = dict.fromkeys(RIDGES, 0.0)
        for here, there in (self._halves, self._halves[::-1]):
            gram = there.gram()
            for ridge in list(found):
                w = solved(here.lower.clone(), here.cross, ridge)
                if w is None:
                    del found[ridge]
                    continue
                with _products_of(self._format):
                    product = gram @ w
                found[ridge] += total(w * (product - 2 * there.cross)) + there.square
        chosen = min(found, key=lambda ridge: found[ridge], default=None)
        missing = sum(half.square for half in self._halves)
        return self.solve(chosen) if chosen and found[chosen] < missing else None


class _Sums:
    """`X'X`, `X'Y` and the sum of squares of Y.

    Attributes:
        lower: of `X'X` what stands at and below the diagonal; above it, anything.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        self.lower = torch.zeros(inputs, inputs, device=device)
        self.cross = torch.zeros(inputs, outputs, device=device)
        self.square = 0.0

    @property
    def finite(self) -> bool:
        return math.isfinite(self.square) and math.isfinite(float(self.lower.diagonal().sum()))

    def gram(self) -> torch.Tensor:
        """`X'X`, the same above the diagonal as below."""
        return self.lower.tril() + self.lower.tril(-1).T

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        width = -(-x.shape[1] // STRIPS)
        for begin in range(0, x.shape[1], width):
            end = begin + width
            self.lower[begin:end, :end].addmm_(x[:, begin:end].T, x[:, :end])
        self.cross.addmm_(x.T, y)
        self.square += total(y.square())

    def join(self, other: _Sums) -> None:
        """Add what `other` took in."""
        self.lower += other.lower
        self.cross += other.cross
        self.square += other.square


@contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Where inputs come in bfloat16, let products in float32 round what they multiply to that format, and
    add up in float32. `X'X` is the same by it, and two to three times as fast where a processor or GPU has
    instructions for it; Y, the difference of two streams in that format, is known no better. Errors
    on held-out text are taken so too: on blocks of SmolLM2 they changed by less than a millionth."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if dtype == torch.bfloat16 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def solved(gram: torch.Tensor, cross: torch.Tensor, ridge: float) -> torch.Tensor | None:
    """`(G + ridge * mean(diag G) * I)^-1 C`, `(inputs, outputs)`, in the format of both, and where they are;
    None where it has no finite value. Of `gram` what stands above the diagonal is not read; it is
    overwritten."""
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return None
    found = torch.cholesky_solve(cross, factor)
    return found if bool(found.isfinite().all()) else None


def explained(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """The share of `y` that a regression on `x` explains on text that it was not solved on: solved on a
    quarter of the text, and on half of it; the means over such parts. 0 where no change is better.

    Args:
        x: `(N, inputs)`, in the format that it comes in; inputs that are zero throughout are left out.
        y: `(N, outputs)`, on the same device.
    """
    x = x[:, x.abs().amax(dim=0) > 0]
    if len(x) < 4 or not x.shape[1]:
        return 0.0, 0.0
    with _products_of(x.dtype):
        first, half, third, other = (_Sums(x.shape[1], y.shape[1], x.device) for _ in range(4))
        for sums, some, wanted in zip((first, half, third, other), x.chunk(4), y.chunk(4), strict=True):
            sums.add(some.float(), wanted.float())
        half.join(first)
        other.join(third)
        few = _explained(first, other) + _explained(third, half)
        many = _explained(half, other) + _explained(other, half)
    return few / 2, many / 2


def _explained(here: _Sums, there: _Sums) -> float:
    """The share explained `there` by what is solved `here`."""
    w = solved(here.lower.clone(), here.cross, LOOSE)
    if w is None or not there.square:
        return 0.0
    return max(0.0, total(w * (2 * there.cross - there.gram() @ w)) / there.square)
