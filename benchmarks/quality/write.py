"""Text that a model writes itself, to calibrate on: `python -m benchmarks.quality.write --out FILE.jsonl`.

Every document begins with three words of a shipped text and goes on as the dense model likes, drawn from
its own probabilities. It is as near to what the model knows as text can be, and anybody can have it.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch

from pip_core.checkpoint import load
from pip_core.streams import drain
from pip_core.texts import documents

from .__main__ import OWN, SETTINGS

BATCH, LENGTH, FIRST = 48, 256, 3


def written(model: str, batches: int, seed: int) -> list[str]:
    """`batches` times 48 documents of 256 tokens each."""
    torch.manual_seed(seed)
    rng, found = random.Random(seed), []
    loaded = drain(load(model))
    begin = [d.split() for name in OWN for d in documents(name)]
    for _ in range(batches):
        chosen = [rng.choice(begin) for _ in range(BATCH)]
        places = [rng.randrange(max(1, len(words) - FIRST)) for words in chosen]
        texts = [" ".join(w[p : p + FIRST]) for w, p in zip(chosen, places, strict=True)]
        # As many tokens of each, so that none is filled up.
        ids = [loaded.tokenizer(text)["input_ids"][:FIRST] for text in texts]
        rows = torch.tensor([i[: min(map(len, ids))] for i in ids])
        told = loaded.model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            min_new_tokens=LENGTH - rows.shape[1],
            max_new_tokens=LENGTH - rows.shape[1],
            do_sample=True,
            top_k=0,
            pad_token_id=loaded.tokenizer.eos_token_id,
        )
        found += loaded.tokenizer.batch_decode(told, skip_special_tokens=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=SETTINGS["model"])
    parser.add_argument("--batches", type=int, default=6, help="of 48 documents of 256 tokens")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"text": t}, ensure_ascii=False) for t in written(args.model, args.batches, args.seed)
    ]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
