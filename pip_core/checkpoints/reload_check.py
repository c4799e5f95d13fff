"""Run as a script by `export.verify`, in a process of its own: does a checkpoint load plainly?

It imports nothing of this project, so that passing means any program can do the same.
Usage: reload_check.py FOLDER PROBE COUNT, where PROBE holds `ids` and the `logits` of the model in
memory, and COUNT tokens are generated. Prints one line of JSON.
"""

import json
import sys
from collections.abc import Callable

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(
    folder: str, probe_path: str, count: int, load: Callable = AutoModelForCausalLM.from_pretrained
) -> None:
    probe = load_file(probe_path)
    model = load(folder).eval()
    AutoTokenizer.from_pretrained(folder)
    ids = probe["ids"]
    with torch.inference_mode():
        difference = (model(input_ids=ids).logits.float() - probe["logits"]).abs().max()
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
        # Where the two first disagree: by how much did one token beat the other?
        gap = 0.0
        apart = (cached != plain).nonzero()
        if len(apart):
            first = int(apart[0])
            before = torch.cat([ids[0], plain[:first]])[None]
            last = model(input_ids=before, use_cache=False).logits[0, -1].float()
            gap = float((last[plain[first]] - last[cached[first]]).abs())
    print(json.dumps({"largest_difference": float(difference), "cache_gap": gap, "tokens": len(cached)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
