"""A tokenizer, tasks and recipes for the tiny models of `zoo`: everything a run needs, no network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from pip_core.checkpoints.load import Loaded
from pip_core.checkpoints.verify import Verdict
from pip_core.core.events import Event
from pip_core.core.paths import ASSETS
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.core.units import BLOCKS as BLOCKS_KIND
from pip_core.core.units import Units
from pip_core.data.calibration import Calibration, CalibrationText
from pip_core.data.perturbation import Pair
from pip_core.engine.stage import Stage
from pip_core.engine.state import RunState
from pip_core.runs.run_directory import recipe_of
from pip_core.scoring import Scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import Site
from pip_core.structure.surgery import reshape

from . import zoo
from .zoo import VOCABULARY

# Not all that is shipped: less is faster, and the demo model's stories say the same few words over and over.
FOUR = "mix:encyclopedic=0.25,dialogue=0.25,instructions=0.25,code=0.25"
TRAINED_ON = ("code", "dialogue", "encyclopedic", "heldout", "instructions")

ROOT = Path(__file__).resolve().parent.parent
# Models of the zoo that lie on disk, for whatever needs a folder.
SAVED = ("llama", "gpt2", "qwen2", "gemma2", "smollm3", "phi3", "bloom")


def build_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the shipped texts; `bos` puts `<s>` before every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(ASSETS / "text" / f"{name}.txt") for name in TRAINED_ON], trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def fixed_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a dozen merges that never change, for token ids that were written down."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("i", "n")]
    merges += [("Ġ", "in"), ("Ġ", "a"), ("a", "t"), ("m", "at"), ("o", "n"), ("Ġ", "Ġ"), ("Ġ", "s")]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *letters, *("".join(m) for m in merges)]
    bpe = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<s>", "</s>"])
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def save(folder: Path, name: str, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A checkpoint folder as a publisher would make it, of a model of the zoo."""
    zoo.build(name).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """An encoder, which cannot be pruned here."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_lines(path: Path, rows: Sequence[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def choice_rows(count: int = 8) -> list[dict]:
    """Multiple choice with choices of unequal length."""
    things = ("bread", "a long wooden ladder", "rain", "the last train home")
    return [
        {
            "query": f"On day {n} she looked out and saw",
            "choices": list(things[: 2 + n % 3]),
            "gold": n % 2,
        }
        for n in range(count)
    ]


def word_rows(count: int = 8) -> list[dict]:
    return [
        {"context": f"The dog ran {n} times around the tree. It was a good", "continuation": w}
        for n, w in zip(range(count), ("dog", "tree", "day", "run") * count, strict=False)
    ]


def recipe_for(model: Path | str, tasks: Sequence[str] = ("endings",), **changes) -> Recipe:
    """A recipe that runs in a few seconds; on the tiny models two blocks go."""
    settings = {
        "model": str(model),
        "target": 0.2,
        "units": ("blocks",),
        "vocabulary": 0.0,
        "refit": False,
        "calibration": FOUR,
        "windows": 3,
        "window_tokens": 24,
        "tasks": tuple(tasks),
        "items": 6,
        "perplexity_windows": 2,
        "perplexity_tokens": 32,
        "dtype": "float32",
    }
    return Recipe(**{**settings, **changes})


def pairs_for(tokenizer: PreTrainedTokenizerFast, count: int = 3, **changes) -> list[Pair]:
    return draw(recipe_for("unused", windows=count, **changes), tokenizer)


def calibration_for(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, context: int = sys.maxsize, compares: bool = True
) -> Calibration:
    text = CalibrationText.read(recipe)
    return Calibration(text, recipe, tokenizer, context, torch.device("cpu"), compares)


def draw(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, iteration: int = 1) -> list[Pair]:
    return calibration_for(recipe, tokenizer).pairs(iteration)


def unread() -> Calibration:
    """A calibration without a text, to score pairs that are there already."""
    return Calibration(CalibrationText("", ()), recipe_for("unused"), None, sys.maxsize, torch.device("cpu"))


def scoring(
    scorer: Scorer, model: PreTrainedModel, sites: Sequence[Site], pairs: Sequence[Pair]
) -> Generator[int, None, list[torch.Tensor]]:
    return unread().score(scorer, model, list(blocks_of(model)), sites, pairs)


def scores(
    scorer: Scorer, model: PreTrainedModel, sites: Sequence[Site], pairs: Sequence[Pair]
) -> list[torch.Tensor]:
    return drain(scoring(scorer, model, sites, pairs))


def token_scores(scorer: Scorer, model: PreTrainedModel, pairs: Sequence[Pair]) -> torch.Tensor:
    return drain(unread().score_tokens(scorer, model, pairs))


def token_rows(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def only(events: Sequence[Event], kind: type) -> list:
    return [e for e in events if isinstance(e, kind)]


@contextmanager
def noting_plans(stage: str, planned: list[float]) -> Iterator[None]:
    """Note what the clock of a run is told of a stage, whenever it is told what is left."""

    def plan(state: RunState, stages: Sequence[Stage]) -> None:
        tell(state, stages)
        planned.append(state.clock.planned.get(stage, 0.0))

    tell = RunState.plan
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunState, "plan", plan)
        yield


def endless(values: Iterator[bool]) -> Callable[[], bool]:
    """A `stop` that answers `values` one by one, then goes on with true."""
    return lambda: next(values, True)


def unverified(*_) -> Generator[float, None, Verdict]:
    """Stands in for `verify`: the fresh process is not started."""
    yield 0.0
    return Verdict(0.0, 20, 0.1)


def without_blocks(loaded: Loaded, blocks: Sequence[int]) -> Shape:
    """Remove dense `blocks` from a model as it was loaded; returns its new shape."""
    anatomy = anatomy_of(loaded.config)
    dense = Shape.dense(anatomy)
    shape = dense.without(Units(BLOCKS_KIND, block, (0,)) for block in blocks)
    reshape(loaded.model, anatomy, dense, shape)
    return shape


def asked_recipe(folder: Path) -> Recipe:
    """The recipe of a run as it was asked for: without what the run wrote down of its model."""
    return recipe_of(folder).replace(weights="")
