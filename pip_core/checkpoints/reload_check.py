"""Script that `verify.verify` runs in a process of its own: loads a checkpoint and compares its logits.

It imports nothing of this project, so that passing means that any program can do the same.
Usage: reload_check.py FOLDER PROBE COUNT [DTYPE [DEVICE]]. PROBE is a safetensors file with `ids` and the
`logits` of the model in memory; COUNT tokens are generated; DTYPE is the number format to compute in, by
default the stored one; DEVICE is where, by default where it is loaded to. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(
    folder: str,
    probe_path: str,
    count: int | str,
    dtype: str = "",
    place: str = "",
    *,
    load: Callable = AutoModelForCausalLM.from_pretrained,
) -> None:
    probe, count = load_file(probe_path), int(count)
    model = (load(folder, dtype=getattr(torch, dtype)) if dtype else load(folder)).eval()
    if place:
        model = model.to(place)
    AutoTokenizer.from_pretrained(folder)
    ids = probe["ids"].to(model.device)
    with torch.inference_mode():
        difference = (model(input_ids=ids).logits.float().cpu() - probe["logits"]).abs().max()
        cached, plain = (
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                use_cache=cache,
            )[0, ids.shape[1] :]
            for cache in (True, False)
        )
        # At the first difference: by how much did one token beat the other?
        gap = 0.0
        apart = (cached != plain).nonzero()
        if len(apart):
            first = int(apart[0])
            before = torch.cat([ids[0], plain[:first]])[None]
            last = model(input_ids=before, use_cache=False).logits[0, -1].float()
            gap = float((last[plain[first]] - last[cached[first]]).abs())
    print(json.dumps({"largest_difference": float(difference), "cache_gap": gap, "tokens": len(cached)}))


if __name__ == "__main__":
    main(*sys.argv[1:6])
