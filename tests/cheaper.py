"""What runs in workers of the tests leave out; a process that forks workers imports this before it does.

A worker that exports starts a fresh process to load the checkpoint, which takes four seconds of a processor
to import its libraries. Of the tiny models that is left out, as it is in the tests' own process (see
`_exports_are_trusted` in tests/fixtures.py), unless the environment holds VERIFY. The demo model is verified.

A plan measures a model's speed for half a second; here any speed will do.

A run that a test interferes with must last until that has happened. One of LASTING windows waits in its
second iteration until it is stopped, paused or killed, or the file GO_ON lies beside the folder of runs; once
it is resumed it waits no more. While the file HOLD lies there, every run waits in its second iteration.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from pip_core.checkpoints.load import Loaded
from pip_core.checkpoints.verify import Verdict, verify
from pip_core.core import events as ev
from pip_core.data.calibration import Calibration, Scorer
from pip_core.data.perturbation import Pair
from pip_core.engine.stages import verify as stage
from pip_core.planning import estimate
from pip_core.runs.files import EVENTS
from pip_core.runs.run_directory import read_events
from pip_core.structure.sites import Site

from . import tiny, zoo
from .processes import GO_ON, HELD, HOLD, LASTING, VERIFY

# A test that failed leaves no worker behind for longer.
MOST_SECONDS = 300.0
calls = itertools.count(1)
score = Calibration.score


def trust(loaded: Loaded, *arguments) -> Generator[float, None, Verdict]:
    is_tiny = loaded.config.vocab_size <= zoo.VOCABULARY
    return (tiny.unverified if is_tiny and VERIFY not in os.environ else verify)(loaded, *arguments)


def is_held(call: int, lasts: bool) -> bool:
    """Whether the run that this process works on waits.

    Args:
        call: which time in this process that it scores, from 1.
        lasts: whether it is one that waits by itself.
    """
    if len(sys.argv) < 3:
        return False
    folder = Path(sys.argv[2])
    beside = folder.parent.parent
    if (beside / HOLD).exists():
        return len(ev.removals(read_events(folder))) == 1
    if not lasts or call != 2 or (beside / GO_ON).exists():
        return False
    return (folder / EVENTS).read_text(encoding="utf-8").count('"Started"') == 1


def score_and_wait(
    self: Calibration,
    scorer: Scorer,
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    pairs: Sequence[Pair],
) -> Generator[int, None, list[torch.Tensor]]:
    call, lasts = next(calls), self.recipe.windows == LASTING or HELD in os.environ
    until = time.monotonic() + MOST_SECONDS
    while is_held(call, lasts) and time.monotonic() < until:
        time.sleep(0.1)
        yield 0
    return (yield from score(self, scorer, model, blocks, sites, pairs))


stage.verify = trust
estimate.PROBE_SECONDS = 0.0
Calibration.score = score_and_wait
