"""From scores and a budget to units: pure functions, no model in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UserError


@dataclass(frozen=True)
class Budget:
    """How many blocks to remove for a target.

    Attributes:
        count: blocks to remove.
        share: share of all parameters that goes with them (blocks of average size).
    """

    count: int
    share: float


def budget(block_parameters: Sequence[int], parameters: int, target: float) -> Budget:
    """The count of blocks whose parameters come nearest to the share `target` of all `parameters`.

    Raises:
        UserError: the target would leave no block, or not take one.
    """
    total = sum(block_parameters)
    each = total / len(block_parameters)
    count = round(target * parameters / each)
    most = len(block_parameters) - 1
    if target * parameters > total or count > most:
        raise UserError(
            f"A target of {target * 100:g} % would leave no block: the blocks hold "
            f"{total / parameters * 100:.0f} % of the parameters and at least one must stay. "
            f"Choose at most {int(most * each / parameters * 100)} %."
        )
    if count < 1:
        raise UserError(
            f"A target of {target * 100:g} % is less than half a block: one block is "
            f"{each / parameters * 100:.1f} % of the parameters. Choose at least "
            f"{each / parameters * 100:.1f} %."
        )
    return Budget(count, count * each / parameters)


def lowest(scores: Sequence[float | None]) -> int:
    """Index of the lowest score; of equals the one nearest the middle, None never.

    Raises:
        UserError: a score is not a number (the model's gradients overflowed).
    """
    present = [(s, i) for i, s in enumerate(scores) if s is not None]
    if any(s != s or s in (float("inf"), float("-inf")) for s, _ in present):
        raise UserError(
            "The scores are not finite numbers: this model's gradients overflow in the chosen number "
            "format. Choose float32."
        )
    middle = (len(scores) - 1) / 2
    return min(present, key=lambda p: (p[0], abs(p[1] - middle), p[1]))[1]
