"""Mean and variance of features over the tokens of several texts, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
        part = values.double()
        mean = part.mean(dim=0)
        squares = (part - mean).square().sum(dim=0).cpu()
        mean, count = mean.cpu(), self.count + len(part)
        apart = mean - self.mean
        self.squares = self.squares + squares + apart.square() * self.count * len(part) / count
        self.mean = self.mean + apart * len(part) / count
        self.count = count

    @property
    def variance(self) -> torch.Tensor:
        """The sample variance (divided by the count less one)."""
        return self.squares / (self.count - 1)

    @property
    def mean_square(self) -> torch.Tensor:
        return self.squares / self.count + self.mean.square()
