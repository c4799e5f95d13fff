"""Script that `gguf_export` runs in a process of its own: compares a GGUF file with the model behind it.

Usage: python -m pip_core.checkpoints.gguf_check MODEL FILE. Prints one line of JSON: whether both split texts
"alike", the "largest_difference" of their logits, and the "largest" logit.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..core.environment import quiet_libraries
from ..data.corpora import DOMAINS, documents

CHARACTERS = 1000


def compare(model: Path, file: Path) -> dict:
    """Compare tokens and logits on a passage of every shipped text."""
    where, name = str(file.parent), file.name
    # How digits are split is in the file for llama.cpp, but not read from it by transformers.
    texts = [re.sub(r"\d", "", documents(domain)[0][:CHARACTERS]) for domain in DOMAINS]
    plain = AutoTokenizer.from_pretrained(model)(texts)["input_ids"]
    other = AutoTokenizer.from_pretrained(where, gguf_file=name)(texts)["input_ids"]
    one = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for weight in one.parameters():
        if weight.ndim > 1:  # the others stay in float32
            weight.data = weight.data.half().float()
    two = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32).eval()
    gap = largest = 0.0
    with torch.inference_mode():
        for ids in plain:
            rows = torch.tensor([ids])
            logits = one(rows).logits
            gap = max(gap, float((logits - two(rows).logits).abs().max().nan_to_num(torch.inf)))
            largest = max(largest, float(logits.abs().max()))
    return {"alike": plain == other, "largest_difference": gap, "largest": largest}


if __name__ == "__main__":
    quiet_libraries()
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))
