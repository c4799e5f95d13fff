"""The refit as a stage of a run: how many tokens it needs, which it reads, and the second dense model."""

from __future__ import annotations

import time
from collections.abc import Generator

import torch
from transformers import PreTrainedModel

from ..checkpoints.load import Loaded, load_folder
from ..core.errors import UserError
from ..core.events import Refitted
from ..core.recipe import Recipe
from ..data.calibration import BATCH_ROWS, ROW_TOKENS, Calibration
from ..reconstruction.refit import refit, widest
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape

# Tokens per input of the widest projection: below the first a regression would learn the text by heart;
# the second is what is read where the recipe does not say.
LEAST, USUAL = 4, 32
# Tokens per input that what a refit could give back of a block is judged on, while blocks are scored.
LOOK = 8
# Forward passes of a block that solving it takes: the dense one, thrice what is left of it, and the
# products of its inputs.
PASSES = 6
# And that finding a block's substitute takes: one of it, and the products of its inputs.
LOOK_PASSES = 2


def least_tokens(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """Calibration tokens below which the refit of a model (weights or none) is refused."""
    return LEAST * widest(model, anatomy)


def usual_tokens(recipe: Recipe, least: int) -> int:
    """Tokens that a recipe's refit reads where the text holds them."""
    return recipe.refit_tokens or USUAL // LEAST * least


def look_tokens(read: int, least: int) -> int:
    """Of `read` tokens of the refit, those that substitutes are found on."""
    return min(read, LOOK // LEAST * least)


def look_rows(rows: list[torch.Tensor], least: int) -> list[torch.Tensor]:
    """The first batches of a refit's rows, as many as `look_tokens` fill."""
    found, wanted = [], look_tokens(sum(part.numel() for part in rows), least)
    for part in rows:
        if sum(p.numel() for p in found) >= wanted:
            break
        found.append(part)
    return found


def refit_rows(
    recipe: Recipe, loaded: Loaded, anatomy: Anatomy, calibration: Calibration
) -> list[torch.Tensor]:
    """The tokens a refit reads, none twice: batches of token ids, int64, each `(B, T)`; none where the
    recipe asks for no refit. Where the recipe names no number of tokens and the text does not hold the
    usual one, what it holds is read.

    Raises:
        UserError: nothing to solve; the text or the recipe's number of tokens is below `least_tokens`, or
            the text below that number.
    """
    if not recipe.refit:
        return []
    least = least_tokens(loaded.model, anatomy)
    wanted = usual_tokens(recipe, least)
    if not least:
        raise UserError(
            "This model cannot be refitted: its blocks hold no attention or MLP that ends in a projection of "
            "its own. Switch the refit off."
        )
    why = f"for this model ({LEAST} for each input of its widest projection)"
    if wanted < least:
        raise UserError(
            f"The refit needs at least {least:,} tokens {why}, and is given {wanted:,}. Choose more "
            "(refit_tokens), or 0 for the usual number."
        )
    needed = recipe.refit_tokens or least
    need = f"The refit needs {needed:,} tokens {'as asked for' if recipe.refit_tokens else why}"
    return calibration.rows(wanted, needed, need)


def repaired(
    recipe: Recipe,
    loaded: Loaded,
    anatomy: Anatomy,
    shape: Shape,
    parts: list[torch.Tensor],
    same: list[torch.Tensor],
    iteration: int,
) -> Generator[int, None, Refitted]:
    """Refit the model in memory, with the dense one loaded beside it for as long as that takes.

    Args:
        parts: see `refit`; `same` are the same tokens by the dense model's ids.

    Yields:
        How many blocks are done, after each.
    """
    began = time.monotonic()
    now = str(loaded.model.dtype).removeprefix("torch.")
    dense = load_folder(loaded.source, recipe.dtype, now).model
    place = loaded.model.device
    here, there = [part.to(place) for part in parts], [part.to(place) for part in same]
    found = yield from refit(dense, loaded.model, anatomy, shape, here, there)
    return Refitted(
        iteration,
        sum(part.numel() for part in parts),
        found.projections,
        found.halves,
        found.left,
        found.before,
        found.after,
        time.monotonic() - began,
        found.moved,
    )


def refit_memory(weights: float, itemsize: int, tokens: int, width: int, inputs: int) -> float:
    """Bytes at the peak of a refit: both models (the file that the second is read from stays mapped), their
    streams, one regression, a batch inside a block.

    Args:
        weights: bytes of the dense model.
        width: of the residual stream; `inputs` of the widest projection.
    """
    batch = BATCH_ROWS * ROW_TOKENS
    streams = 6 * tokens * width * itemsize
    return 3 * weights + streams + _regression(inputs, width) + batch * itemsize * 8 * max(inputs, width)


def look_memory(weights: float, itemsize: int, tokens: int, width: int, inputs: int) -> float:
    """Bytes at the peak of finding substitutes, themselves left out: a stream, what reaches two projections,
    one regression, a batch inside a block. Arguments as for `refit_memory`."""
    batch = BATCH_ROWS * ROW_TOKENS
    kept = tokens * (width + 2 * inputs) * itemsize
    return weights + kept + _regression(inputs, width) + batch * itemsize * 8 * max(inputs, width)


def _regression(inputs: int, width: int) -> int:
    """Sums in two halves of the text, and solving them."""
    return inputs * inputs * (2 * 4 + 4 + 8 + 8) + inputs * width * 4 * 8
