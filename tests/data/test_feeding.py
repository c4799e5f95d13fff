"""Pairs handed to a scoring method on a device that is not at hand."""

from __future__ import annotations

import torch

from pip_core.core import accelerator, notices, portions
from pip_core.core.progress import drain
from pip_core.data.feeding import feed

from .. import tiny


class Counting:
    """Counts pairs; memory runs out with more than two at a time, when some were counted already."""

    sums = ("pairs", "batches")

    def __init__(self) -> None:
        self.pairs, self.batches = 0, [0]

    def add(self, batch) -> None:
        self.batches[0] += 1
        for number, pair in enumerate(batch):
            if number == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            assert pair.clean.ids.device.type == "meta"
            self.pairs += 1

    def scores(self) -> tuple[int, int]:
        return self.pairs, self.batches[0]


def test_an_accelerator_is_given_several_pairs_and_fewer_where_memory_runs_out(
    tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(accelerator, "total_bytes", lambda place: 16e9)
    monkeypatch.setattr(accelerator, "name_of", lambda place: "GPU")
    said: list[str] = []
    monkeypatch.setattr(notices, "say", said.append)
    portions.begin()
    try:
        assert drain(feed(Counting(), tiny.pairs_for(tokenizer, 5), torch.device("meta"))) == (5, 3)
    finally:
        portions.begin()
    assert len(said) == 1
    assert "4 rows at a time" in said[0]
    assert "2 are read" in said[0]
