"""Mean and variance of features over the tokens of several texts, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.float64 import double


@dataclass
class Moments:
    """Of each feature: how many values, their mean, and the sum of squared distances from it.

    Parts are joined by the formula of Chan, Golub and LeVeque (1979), which never subtracts two large
    sums from one another.
    """

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @staticmethod
    def none(features: int) -> Moments:
        return Moments(
            0, torch.zeros(features, dtype=torch.float64), torch.zeros(features, dtype=torch.float64)
        )

    def add(self, values: torch.Tensor) -> None:
        """Take in `values`, shape `(T, features)`."""
        part = double(values)
        mean = part.mean(dim=0)
        squares = (part - mean).square().sum(dim=0).cpu()
        found = self.joined(Moments(len(part), mean.cpu(), squares))
        self.count, self.mean, self.squares = found.count, found.mean, found.squares

    def joined(self, other: Moments) -> Moments:
        """The moments of both parts together."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart.square() * self.count * other.count / count
        return Moments(count, self.mean + apart * other.count / count, squares)

    @property
    def variance(self) -> torch.Tensor:
        """The sample variance (divided by the count less one)."""
        return self.squares / (self.count - 1)

    @property
    def mean_square(self) -> torch.Tensor:
        return self.squares / self.count + self.mean.square()
