"""What a refit would give back: against regressions by hand, and nothing where a refit solves nothing."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pip_core.core.progress import drain
from pip_core.core.units import BLOCKS, CHANNELS, HEADS
from pip_core.reconstruction.given_back import Look, shares_given_back
from pip_core.reconstruction.ridge import LOOSE, explained
from pip_core.scoring.removal_cost import masked
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of

from .. import zoo
from .test_linear_substitute import PARTS, ROWS, seen


def by_hand(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Of four parts of the text the first and the third alone, and two together, tested on the other two."""

    def share(here: list[int], there: list[int]) -> float:
        x_here, y_here, x_there, y_there = (
            torch.cat([parts[n] for n in chosen])
            for chosen, parts in ((here, xs), (here, ys), (there, xs), (there, ys))
        )
        gram = x_here.T @ x_here
        gram += LOOSE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        left = y_there - x_there @ torch.linalg.solve(gram, x_here.T @ y_here)
        return max(0.0, 1 - float(left.square().sum() / y_there.square().sum()))

    xs, ys = x.double().chunk(4), y.double().chunk(4)
    few = (share([0], [2, 3]) + share([2], [0, 1])) / 2
    return few, (share([0, 1], [2, 3]) + share([2, 3], [0, 1])) / 2


def looked(name: str, kinds: dict[str, int], tokens: int) -> list[float]:
    """The shares of blocks, channels, ...: kind -> position, with the first unit there masked."""
    model, anatomy = zoo.build(name), anatomy_of(zoo.CONFIGS[name]())
    sites = sites_of(anatomy, Shape.dense(anatomy), tuple(kinds))
    places = {s.kind: n for n, s in enumerate(sites) if s.position == kinds[s.kind]}
    looks = [
        Look(kinds[kind], kind == BLOCKS, partial(masked, model, sites, {n: torch.tensor([0])}))
        for kind, n in places.items()
    ]
    return drain(shares_given_back(model, anatomy, looks, PARTS, tokens))


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_is_what_a_regression_explains_elsewhere_and_grows_with_the_text(name):
    # All that is read, of which half was solved on.
    few, many = by_hand(*seen(zoo.build(name), 2, ROWS))
    (share,) = looked(name, {BLOCKS: 2}, ROWS.numel() // 2)
    assert share == pytest.approx(many, abs=1e-3)
    (longer,) = looked(name, {BLOCKS: 2}, 2 * ROWS.numel())
    assert longer == pytest.approx(min(1, many + 2 * max(0, many - few)), abs=5e-3)


def test_what_others_say_as_well_is_given_back():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 0
    few, many = explained(x, 3 * x[:, :2])
    assert 0.5 < few < 0.6
    assert 0.5 < many < 0.6
    assert explained(x, torch.randn(400, 2, generator=torch.Generator().manual_seed(1)))[1] < 0.05
    assert explained(torch.zeros(400, 6), x) == (0.0, 0.0)
    assert explained(x, torch.zeros(400, 2)) == (0.0, 0.0)


def test_of_what_a_refit_leaves_as_it_is_nothing_is_given_back():
    """Another norm follows the MLP's projection."""
    assert looked("gemma2", {BLOCKS: 2, CHANNELS: 1, HEADS: 1}, 10**4) == [0.0, 0.0, 0.0]
    assert all(0 <= share <= 1 for share in looked("llama", {BLOCKS: 2, CHANNELS: 1, HEADS: 1}, 10**4))
