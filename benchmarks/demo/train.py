"""Train the demo model from nothing but the grammar, with one command.

`python -m benchmarks.demo.train` writes the texts, the tasks, the tokenizer and the trained model
into `assets`, and prints its accuracy. `--check` trains nothing: it makes texts, tasks and
tokenizer again, compares them byte for byte with the shipped ones, and searches the whole training
text for anything that is held out.

Training has two stages. A shallow model learns first, which is quick. Then blocks that change
nothing are put between its blocks (Net2Net: Chen et al., arXiv 1511.05641), and the deep model goes
on learning while each of the new ones is sometimes skipped (stochastic depth: Huang et al., arXiv
1603.09382; LayerDrop: Fan et al., arXiv 1909.11556). So some blocks can be spared and some cannot; a
pruning method has to find which.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path
from string import Template

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pip_core.data import corpora
from pip_core.engine.evaluate import evaluate

from .data import (
    CONTEXT,
    MODEL,
    SEED,
    STEPS,
    TOKENS,
    VOCABULARY,
    batch,
    build_tokenizer,
    differences,
    recipe,
    write_data,
)

SHALLOW, DEEP = 6, 14
GROWN_AT = 6000
# Blocks of the deep model that stood in the shallow one.
OLD = tuple(i * DEEP // SHALLOW for i in range(SHALLOW))
SKIPPED = 0.25
# The learning rate rises over so many steps, at the start and once grown, and falls to zero in the
# last part of the training.
PEAK_RATE, WARM_UP, FALL = 2e-3, 200, 0.3
CARD = Path(__file__).with_name("card.md")
SAVE_EVERY, SAY_EVERY = 100, 100


def build_model(tokenizer: PreTrainedTokenizerFast, blocks: int) -> LlamaForCausalLM:
    """A model of so many blocks, with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.08,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Each block begins with its share of what all blocks together add to the stream.
        for layer in _outputs(model.model.layers):
            layer.weight /= math.sqrt(2 * blocks)
        # Half of the heads begin by looking for what is like their own word (mimetic initialization:
        # Trockman and Kolter, arXiv 2305.09828). Found by chance, that takes most of the training.
        for block in model.model.layers:
            half = block.self_attn.q_proj.out_features // 2
            block.self_attn.k_proj.weight[:half] = block.self_attn.q_proj.weight[:half]
    return model


def grow(shallow: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The same function in `DEEP` blocks: a new block is its neighbour's copy, adding nothing yet."""
    deep = build_model(tokenizer, DEEP)
    deep.model.embed_tokens.load_state_dict(shallow.model.embed_tokens.state_dict())
    deep.model.norm.load_state_dict(shallow.model.norm.state_dict())
    for index, block in enumerate(deep.model.layers):
        before = max(n for n, old in enumerate(OLD) if old <= index)
        block.load_state_dict(shallow.model.layers[before].state_dict())
        if index not in OLD:
            with torch.no_grad():
                for layer in _outputs([block]):
                    layer.weight.zero_()
    return deep


def _outputs(blocks) -> list[nn.Linear]:
    return [layer for b in blocks for layer in (b.self_attn.o_proj, b.mlp.down_proj)]


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Weighted mean cross-entropy in nats, and the plain means over answers and over the rest."""
    logits = model(input_ids=ids, use_cache=False).logits
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    answers = weights > 1
    weighted = (losses * weights).sum() / weights.sum()
    return weighted, losses.detach()[answers].mean(), losses.detach()[~answers].mean()


def rate(step: int, steps: int) -> float:
    """The learning rate of a step."""
    risen = (step - GROWN_AT if step >= GROWN_AT else step) + 1
    return PEAK_RATE * min(risen / WARM_UP, (steps - step) / (FALL * steps), 1)


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train(work: Path, steps: int = STEPS) -> LlamaForCausalLM:
    """Train, going on from what an earlier attempt left in `work`."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    saved = work / "training.pt"
    state = torch.load(saved) if saved.is_file() else {"step": 0}
    first = state["step"]
    # What was saved right before growing is still shallow.
    model = build_model(tokenizer, DEEP if first > GROWN_AT else SHALLOW)
    optimizer = optimizer_of(model)
    if first:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        print(f"going on from step {first}", flush=True)
    began, losses = time.monotonic(), []
    for step in range(first, steps):
        if step == GROWN_AT:
            model = grow(model, tokenizer)
            optimizer = optimizer_of(model)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        blocks = model.model.layers
        rng = random.Random(f"{SEED}/depth/{step}")
        kept = [b for i, b in enumerate(blocks) if step < GROWN_AT or i in OLD or rng.random() >= SKIPPED]
        _put(model, nn.ModuleList(kept))
        loss, *parts = loss_of(model, *batch(step, tokenizer))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _put(model, blocks)
        losses.append([float(p) for p in parts])
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
        if (step + 1) % SAY_EVERY == 0:
            answers, rest = torch.tensor(losses[-SAY_EVERY:]).mean(dim=0).tolist()
            seconds = time.monotonic() - began
            print(
                f"step {step + 1} of {steps}: loss {answers:.3f} on answers, {rest:.3f} elsewhere, "
                f"{seconds:.0f} s",
                flush=True,
            )
    return model.eval()


def _put(model: LlamaForCausalLM, blocks: nn.ModuleList) -> None:
    model.model.layers = blocks
    model.config.num_hidden_layers = len(blocks)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model in bfloat16, beside its tokenizer."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(assets: Path) -> str:
    """What the model in `assets` can do, as a Markdown table: every task whole, and perplexity."""
    *_, found = evaluate(recipe(assets).replace(perplexity_windows=0))
    chance = sum(t.chance for t in found.tasks) / len(found.tasks)
    items = sum(t.items for t in found.tasks)
    lines = ["| task | accuracy | chance | items |", "|---|---|---|---|"]
    lines += [
        f"| {t.name} | {t.accuracy:.1%} ± {t.se:.1%} | {t.chance:.1%} | {t.items} |" for t in found.tasks
    ]
    lines += [f"| mean | {found.accuracy:.1%} ± {found.accuracy_se:.1%} | {chance:.1%} | {items} |", ""]
    lines += [
        f"Perplexity on the held-back stories ({found.windows} windows of {found.window_tokens} tokens): "
        f"{found.perplexity:.2f} ± {found.perplexity_se:.2f}. ± is one standard error."
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo.train", description=__doc__)
    parser.add_argument("--check", action="store_true", help="train nothing; compare with what is shipped")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="where training saves its state")
    parser.add_argument("--assets", type=Path, default=corpora.ASSETS, help="where the files go")
    given = parser.parse_args()
    if given.check:
        found = differences(given.assets)
        print("\n".join(found) or "Texts, tasks and tokenizer are what the grammar makes; nothing leaks.")
        sys.exit(bool(found))
    given.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    write_data(given.assets)
    model = train(given.work)
    minutes = (time.monotonic() - began) / 60
    save(model, given.assets / MODEL)
    table = measure(given.assets)
    card = Template(CARD.read_text(encoding="utf-8")).substitute(
        table=table,
        steps=STEPS,
        step_tokens=TOKENS,
        tokens=f"{STEPS * TOKENS / 1e6:.1f}",
        parameters=f"{model.num_parameters() / 1e6:.2f}",
        skipped=f"{SKIPPED:.0%}",
        shallow=SHALLOW,
        deep=DEEP,
        grown=GROWN_AT,
        old=", ".join(map(str, OLD)),
        vocabulary=VOCABULARY,
        seed=SEED,
    )
    (given.assets / MODEL / "README.md").write_text(card, encoding="utf-8", newline="\n")
    print(f"{table}\n\n{minutes:.0f} minutes on {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
