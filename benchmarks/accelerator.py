"""What pruning takes on the accelerator at hand, or on the processor where there is none.

    python -m benchmarks.accelerator [--sizes 1B,7B] [--minutes 8] [--out FILE.json]

Needs no network: random llama-like models (1.1 and 6.7 billion parameters; 160 million on a processor) are
made on the device, and texts and tokenizer are shipped. Each figure stands beside what it is to be compared
with, measured in the same run: scoring beside the naive formula (a backward pass for each view, two copies of
all gradients) and beside the floor (one batch of all views, a forward pass and a backward pass for what flows
through it alone); streamed beside resident. On an accelerator the methods' scores of a small model are
compared with the processor's first. What would begin after the minutes allowed is left out, which the table
says.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import pip_core.engine.stages  # noqa: F401 - they own the settings of a recipe
from pip_core.checkpoints.reference import local_folder
from pip_core.checkpoints.streaming import load_streamed
from pip_core.core.accelerator import device, empty_cache, free_bytes, name_of, peak_bytes, synchronize
from pip_core.core.batching import rows_of
from pip_core.core.device import fast_bfloat16, is_out_of_memory, peak_memory
from pip_core.core.progress import drain
from pip_core.core.recipe import DEMO, Recipe
from pip_core.core.units import BLOCKS, CHANNELS, Units
from pip_core.data.calibration import BATCH_ROWS, ROW_TOKENS, Calibration, CalibrationText
from pip_core.data.perturbation import Pair
from pip_core.engine.scoring_benchmark import naive_scores
from pip_core.evaluation.evaluator import TaskBatches
from pip_core.evaluation.requests import Encoder
from pip_core.evaluation.tasks import Task, load_task
from pip_core.reconstruction.refit import refit
from pip_core.recovery.distillation import learn
from pip_core.recovery.optimiser import STEP_ROWS, Optimiser, learning, pass_rows
from pip_core.scoring import METHODS, Scorer, get_scorer
from pip_core.scoring.base import gradients_for
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.structure.surgery import reshape

# Width, inner width, blocks, heads, key-value heads.
SIZES = {
    "160M": (768, 3072, 12, 12, 12),
    "1B": (2048, 5632, 22, 32, 4),
    "7B": (4096, 11008, 32, 32, 32),
}
SMALL = (128, 384, 4, 4, 2)
VOCABULARY, CONTEXT = 32_000, 2048
NAIVE, FLOOR = "naive", "floor"
OURS = "pip-gate"
# Bytes for each weight that recovery needs beside both models, see `engine.stages.recover`.
LEARNING_BYTES = 20
# Largest checkpoint that is written to be streamed, in bytes: a larger one takes the minutes for itself.
STREAMED_BYTES = 4e9


@dataclass
class Figure:
    """One line of the table.

    Attributes:
        seconds: None where it was not measured; `why` then says so.
        memory: bytes at the peak above the weights; 0 where it was not measured.
        tokens: that were read in `seconds`.
    """

    model: str
    what: str
    seconds: float | None = None
    memory: int = 0
    tokens: int = 0
    why: str = ""


class Bench:
    """Measures, as long as there is time."""

    def __init__(self, minutes: float, windows: int, rows: int) -> None:
        self.until, self.place = time.monotonic() + 60 * minutes, device()
        self.windows, self.rows = windows, rows
        self.tokenizer = AutoTokenizer.from_pretrained(local_folder(DEMO))
        recipe = Recipe(windows=windows)
        text = CalibrationText.read(recipe)
        self.calibration = Calibration(text, recipe, self.tokenizer, CONTEXT, self.place)
        self.figures: list[Figure] = []

    def measure(self, model: str, what: str, work: Callable[[], int | None], warm_up: bool = False) -> Figure:
        """Time `work`, which returns how many tokens it read."""
        figure = Figure(model, what)
        self.figures.append(figure)
        if time.monotonic() > self.until:
            figure.why = "the minutes were over"
            return figure
        try:
            if warm_up and self.place.type != "cpu":
                work()
            figure.seconds, figure.tokens, figure.memory = _timed(self.place, work)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            figure.why = "memory ran out"
        print(f"{model} {what}: {_words(figure)}", file=sys.stderr, flush=True)
        empty_cache()
        return figure

    def leave_out(self, model: str, what: str, why: str) -> None:
        self.figures.append(Figure(model, what, why=why))


def _timed(place: torch.device, work: Callable[[], int | None]) -> tuple[float, int, int]:
    """Seconds, tokens, and bytes at the peak above what was there before."""
    tokens, seconds = 0, 0.0

    # A processor is shared with other programs, whose time is not the work's.
    clock = time.process_time if place.type == "cpu" else time.perf_counter

    def timed() -> None:
        nonlocal tokens, seconds
        synchronize(place)
        began = clock()
        tokens = work() or 0
        synchronize(place)
        seconds = clock() - began

    if place.type != "cpu":
        before = torch.accelerator.memory_allocated(place)
        return_ = peak_bytes(place, timed)
        return seconds, tokens, max(0, return_ - before)
    # On Linux this makes the process's peak what it holds now.
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later
        reset.write_text("5", encoding="ascii")
    before = psutil.Process().memory_info().rss
    timed()
    return seconds, tokens, max(0, peak_memory() - before) if reset.exists() else 0


def build(size: tuple[int, int, int, int, int], dtype: torch.dtype, place: torch.device) -> PreTrainedModel:
    """A random model, made where it is computed with."""
    width, inner, blocks, heads, shared = size
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        dtype=dtype,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(place):
            model = LlamaForCausalLM(config)
        return model.eval()
    finally:
        torch.set_default_dtype(before)


def scores(bench: Bench, scorer: Scorer, model: PreTrainedModel, pairs: list[Pair]) -> list[torch.Tensor]:
    anatomy = anatomy_of(model.config)
    sites = sites_of(anatomy, Shape.dense(anatomy), (BLOCKS,))
    bench.calibration.device = model.device
    return drain(bench.calibration.score(scorer, model, list(blocks_of(model)), sites, pairs))


def floor(model: PreTrainedModel, pairs: list[Pair]) -> None:
    """A forward pass over all views in one batch, and a backward pass for activations."""
    rows, _ = rows_of([view.ids for pair in pairs for view in (pair.clean, pair.perturbed)])
    with gradients_for(model, ()), torch.enable_grad():
        entering = model.get_input_embeddings()(rows.to(model.device)).detach().requires_grad_()
        logits = model(inputs_embeds=entering, use_cache=False).logits
        logits.backward(torch.full_like(logits, 1e-4))


def parity(bench: Bench) -> Iterator[str]:
    """How the methods' scores of a small model differ from the processor's."""
    if bench.place.type == "cpu":
        yield "Parity: there is no accelerator here, so there is nothing to compare with the processor."
        return
    processor = build(SMALL, torch.float32, torch.device("cpu"))
    model = nn.Module.to(copy.deepcopy(processor), bench.place)
    pairs = bench.calibration.pairs(1)[:2]
    for scorer in (m for m in METHODS if BLOCKS in m.kinds):
        one, other = (torch.cat(scores(bench, scorer, m, pairs)) for m in (processor, model))
        finite = one.isfinite()
        apart = (one - other)[finite].abs().max() / one[finite].abs().max()
        same = "the same" if torch.equal(one.argsort(), other.argsort()) else "ANOTHER"
        yield f"Parity of {scorer.name}, float32: largest difference {float(apart):.1e}, {same} order"


def scoring(bench: Bench, name: str, model: PreTrainedModel) -> None:
    pairs = bench.calibration.pairs(1)[: bench.windows]
    tokens = sum(len(view.ids) for pair in pairs for view in (pair.clean, pair.perturbed))
    floor(model, pairs[:1])  # kernels are chosen at the first call

    def read(work: Callable[[], object]) -> Callable[[], int]:
        def done() -> int:
            work()
            return tokens

        return done

    bench.measure(name, FLOOR, read(partial(floor, model, pairs)), warm_up=True)
    bench.measure(name, NAIVE, read(partial(naive_scores, model, pairs)), warm_up=True)
    for scorer in (m for m in METHODS if BLOCKS in m.kinds):
        work = read(partial(scores, bench, scorer, model, pairs))
        bench.measure(name, scorer.name, work, warm_up=scorer.name == OURS)


def streaming(bench: Bench, name: str, model: PreTrainedModel) -> str:
    """The scoring pass of a model whose blocks are read from disk, and how its scores differ."""
    what = f"{OURS}, streamed"
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if weights > STREAMED_BYTES:
        bench.leave_out(name, what, f"{weights / 1e9:.0f} GB would have to be written first")
        return ""
    pairs, found = bench.calibration.pairs(1)[: bench.windows], []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        streamed, _, _ = load_streamed(Path(folder), name, model.config, model.dtype)

        def once() -> int:
            found.extend(scores(bench, get_scorer(OURS), streamed, pairs))
            return sum(len(view.ids) for pair in pairs for view in (pair.clean, pair.perturbed))

        bench.measure(name, what, once)
    if not found:
        return ""
    here, there = torch.cat(scores(bench, get_scorer(OURS), model, pairs)), torch.cat(found)
    apart = float((here - there).abs().max() / here.abs().max())
    return f"{name}: scores of {OURS} streamed and resident differ by {apart:.1e} of the largest"


def measuring(bench: Bench, name: str, model: PreTrainedModel, items: int) -> None:
    task = load_task("stories-who", items)
    assert isinstance(task, Task)
    batches = TaskBatches(task, Encoder(bench.tokenizer, CONTEXT))

    def once() -> int:
        drain(batches.measure(model))
        return batches.tokens

    bench.measure(name, "evaluation", once, warm_up=True)


def refitting(bench: Bench, name: str, dense: PreTrainedModel) -> PreTrainedModel | None:
    """A tenth of the channels goes, and what is left is refitted; the pruned model."""
    if free_bytes(bench.place) < 1.3 * sum(p.numel() * p.element_size() for p in dense.parameters()):
        bench.leave_out(name, "refit", "both models do not fit")
        return None
    anatomy = anatomy_of(dense.config)
    whole = Shape.dense(anatomy)
    count = dense.config.intermediate_size // 10
    gone = [Units(CHANNELS, n, tuple(range(count))) for n in range(len(anatomy.blocks))]
    pruned, left = copy.deepcopy(dense), whole.without(gone)
    reshape(pruned, anatomy, whole, left)
    made = torch.Generator().manual_seed(0)
    rows = torch.randint(VOCABULARY, (bench.rows, ROW_TOKENS), generator=made).to(bench.place)
    parts = list(rows.split(BATCH_ROWS))
    bench.measure(
        name, "refit", lambda: drain(refit(dense, pruned, anatomy, left, parts)).halves and rows.numel()
    )
    return pruned


def recovering(bench: Bench, name: str, dense: PreTrainedModel, pruned: PreTrainedModel | None) -> None:
    """Two steps of learning from the dense model."""
    weights = sum(p.numel() for p in dense.parameters())
    if pruned is None or free_bytes(bench.place) < LEARNING_BYTES * weights:
        bench.leave_out(
            name, "recovery", f"it needs {LEARNING_BYTES * weights / 1e9:.0f} GB beside the models"
        )
        return
    made = torch.Generator().manual_seed(1)
    rows = torch.randint(VOCABULARY, (STEP_ROWS, ROW_TOKENS), generator=made)
    with learning(pruned) as chosen:
        optimiser = Optimiser(chosen)

        def steps() -> int:
            for _ in range(2):
                for part in rows.split(pass_rows(bench.place)):
                    learn(pruned, dense, part.to(bench.place), part, None, rows.numel())
                    optimiser.collect()
                optimiser.step(1e-5)
            return 2 * rows.numel()

        bench.measure(name, "recovery", steps, warm_up=True)


def _words(figure: Figure) -> str:
    if figure.seconds is None:
        return figure.why
    return f"{figure.seconds:.2f} s, {figure.memory / 1e6:,.0f} MB, {figure.tokens} tokens"


def table(figures: list[Figure]) -> str:
    lines = [
        "| model | what | seconds | peak above weights, MB | times faster than naive | times the floor "
        "| tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {(f.model, f.what): f.seconds for f in figures if f.seconds}
    methods = {m.name for m in METHODS} | {NAIVE, FLOOR, f"{OURS}, streamed"}
    for f in figures:
        if f.seconds is None:
            lines.append(f"| {f.model} | {f.what} | not measured: {f.why} | | | | |")
            continue
        naive, least = (known.get((f.model, n)) if f.what in methods else None for n in (NAIVE, FLOOR))
        faster = f"{naive / f.seconds:.1f}" if naive else ""
        times = f"{f.seconds / least:.1f}" if least else ""
        speed = f"{f.tokens / f.seconds:,.0f}" if f.tokens else ""
        figures_ = f"{f.seconds:.2f} | {f.memory / 1e6:,.0f} | {faster} | {times} | {speed}"
        lines.append(f"| {f.model} | {f.what} | {figures_} |")
    return "\n".join(lines)


def main() -> None:
    place = device()
    alone = place.type == "cpu"
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--sizes", default="160M" if alone else "1B,7B", help=f"of {', '.join(SIZES)}")
    options.add_argument("--minutes", type=float, default=8.0)
    options.add_argument("--windows", type=int, default=2 if alone else 8, help="pairs that are scored on")
    options.add_argument(
        "--rows", type=int, default=4 if alone else 64, help=f"of {ROW_TOKENS}, for the refit"
    )
    options.add_argument("--items", type=int, default=20 if alone else 400, help="questions")
    options.add_argument("--out", type=Path, help="file for the figures as JSON")
    given = options.parse_args()
    # As the rest of a run is computed: never slower, and a half of the memory where it is native.
    dtype = torch.bfloat16 if fast_bfloat16() else torch.float32
    bench = Bench(given.minutes, given.windows, given.rows)
    said = [*parity(bench)]
    for name in given.sizes.split(","):
        model = build(SIZES[name], dtype, place)
        scoring(bench, name, model)
        said.append(streaming(bench, name, model))
        measuring(bench, name, model, given.items)
        pruned = refitting(bench, name, model)
        recovering(bench, name, model, pruned)
        del model, pruned
        empty_cache()
    threads = f", {torch.get_num_threads()} threads" if alone else ""
    clock = ", processor seconds" if alone else ""
    where = (
        f"{name_of(place)}{threads}{clock}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
    )
    print("\n".join([where, "", *filter(None, said), "", table(bench.figures)]))
    if given.out:
        facts = {"device": where, "said": said, "figures": [asdict(f) for f in bench.figures]}
        given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
