"""Benchmark of scoring: time and memory of one scoring pass of each method, each in its own process.

The baseline is a naive implementation of PIP's formula: float32, a backward pass for each view, two whole
copies of the gradients. "Footprint" is the memory of the framework itself: the same scoring on a toy model
of two blocks. `python -m pip_core bench` prints the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..checkpoints.load import load, resolve
from ..core.accelerator import device
from ..core.device import number_name, peak_memory
from ..core.finite import to_json
from ..core.paths import ROOT
from ..core.progress import drain
from ..core.recipe import Recipe
from ..core.units import BLOCKS
from ..data.calibration import Calibration, CalibrationText
from ..data.perturbation import Pair
from ..scoring import METHODS, get_scorer
from ..scoring.base import gradient_of
from ..structure.anatomy import anatomy_of
from ..structure.families import blocks_of
from ..structure.shape import Shape
from ..structure.sites import sites_of
from . import stages  # noqa: F401  they own the settings of a recipe, which a process of its own needs too

NAIVE, FOOTPRINT = "naive", "footprint"
BENCHED = tuple(m.name for m in METHODS if BLOCKS in m.kinds)
TOY_WORDS = 256


def report(model: str, windows: int) -> str:
    """A Markdown table of seconds and peak memory of each method, and their ratios to the naive baseline.

    Raises:
        UserError: as `load.resolve`.
    """
    drain(resolve(model))  # a wrong reference fails here, not in every process
    found = {name: in_a_process(name, model, windows) for name in (FOOTPRINT, NAIVE, *BENCHED)}
    weights = found[BENCHED[0]]["weights"]
    base = found[FOOTPRINT]["peak"]
    lines = [
        f"One scoring pass over {model}: {windows} pairs of {Recipe().window_tokens} tokens, seed 0, "
        f"{torch.get_num_threads()} threads.",
        f"The framework's own footprint is {base / 1e6:.0f} MB; the bfloat16 weights {weights / 1e6:.0f} MB.",
        "",
        "| method | seconds | times faster | peak above footprint, MB | in bfloat16 weights |",
        "|---|---|---|---|---|",
    ]
    for name in (NAIVE, *BENCHED):
        one, above = found[name], found[name]["peak"] - base
        lines.append(
            f"| {name} ({one['dtype']}) | {one['seconds']:.1f} "
            f"| {found[NAIVE]['seconds'] / one['seconds']:.1f} | {above / 1e6:.0f} | {above / weights:.2f} |"
        )
    return "\n".join(lines)


def in_a_process(name: str, model: str, windows: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "pip_core.engine.scoring_benchmark", name, model, str(windows)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(name: str, reference: str, windows: int) -> dict:
    """Measure one variant in this process: seconds of the scoring alone, peak memory of the process."""
    if name == FOOTPRINT:
        tokenizer = AutoTokenizer.from_pretrained(drain(resolve(reference)).folder)
        calibration = _calibration(1, tokenizer)
        pairs = [_within(p, TOY_WORDS) for p in calibration.pairs(1)]
        model, variants = _toy(), list(BENCHED)
    else:
        loaded = drain(load(reference, "float32" if name == NAIVE else "bfloat16"))
        calibration = _calibration(windows, loaded.tokenizer)
        pairs = calibration.pairs(1)
        model, variants = loaded.model, [name]
    started = time.perf_counter()
    for variant in variants:
        if variant == NAIVE:
            naive_scores(model, pairs)
        else:
            anatomy = anatomy_of(model.config)
            sites = sites_of(anatomy, Shape.dense(anatomy), (BLOCKS,))
            drain(calibration.score(get_scorer(variant), model, list(blocks_of(model)), sites, pairs))
    return {
        "seconds": time.perf_counter() - started,
        "peak": peak_memory(),
        "weights": 2 * sum(p.numel() for p in model.parameters()),
        "dtype": number_name(model.dtype),
    }


def _calibration(windows: int, tokenizer: PreTrainedTokenizerBase) -> Calibration:
    recipe = Recipe(windows=windows)
    return Calibration(CalibrationText.read(recipe), recipe, tokenizer, sys.maxsize, device())


def naive_scores(model: PreTrainedModel, pairs: Sequence[Pair]) -> list[float]:
    """A naive implementation of PIP: per pair two backward passes and two copies of all gradients.

    Returns:
        Per block the mean over pairs of `|| grad L(s) - grad L(s~) ||_2`.
    """
    totals = [0.0] * len(blocks_of(model))
    for pair in pairs:
        copies = []
        for view in (pair.clean, pair.perturbed):
            model.zero_grad(set_to_none=True)
            ids = view.ids.to(model.device)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            F.cross_entropy(logits, ids[1:]).backward()
            copies.append([[gradient_of(p).clone() for p in b.parameters()] for b in blocks_of(model)])
        for index, (clean, perturbed) in enumerate(zip(*copies, strict=True)):
            squares = sum(float((c - p).square().sum()) for c, p in zip(clean, perturbed, strict=True))
            totals[index] += squares**0.5
    model.zero_grad(set_to_none=True)
    return [t / len(pairs) for t in totals]


def _toy() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=TOY_WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    nn.Module.to(model, torch.bfloat16)
    return model.eval()


def _within(pair: Pair, words: int) -> Pair:
    """The pair with token ids folded into a small vocabulary."""
    clean = replace(pair.clean, ids=pair.clean.ids % words)
    return replace(pair, clean=clean, perturbed=replace(pair.perturbed, ids=pair.perturbed.ids % words))


if __name__ == "__main__":
    print(to_json(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
