"""Script that `gguf_export` runs in a process of its own: compares a GGUF file with the model behind it.

Usage: python -m pip_core.checkpoints.gguf_check MODEL FILE FORMAT. Prints one line of JSON: whether both
split texts "alike", the "largest_difference" of their logits where the model's weights are rounded as those
of the file, the "largest" logit, the share of places where the model as it is has the "same_choice" of the
next token, and the share of the file's weights that are not in the format ("aside").
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, quants
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..core.environment import quiet_libraries
from ..data.corpora import DOMAINS, documents

CHARACTERS = 1000
BLOCK = GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0][0]


def compare(model: Path, file: Path, format: str) -> dict:
    """Compare tokens and logits on a passage of every shipped text."""
    where, name = str(file.parent), file.name
    # How digits are split is in the file for llama.cpp, but not read from it by transformers.
    texts = [re.sub(r"\d", "", documents(domain)[0][:CHARACTERS]) for domain in DOMAINS]
    plain = AutoTokenizer.from_pretrained(model)(texts)["input_ids"]
    other = AutoTokenizer.from_pretrained(where, gguf_file=name)(texts)["input_ids"]
    rows = [torch.tensor([ids]) for ids in plain]
    one = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.inference_mode():
        chosen = [one(ids).logits.argmax(-1) for ids in rows]
    two = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32).eval()
    round_alike(one, dict(two.named_parameters()), format)
    gap = largest = 0.0
    same = []
    with torch.inference_mode():
        for ids, choice in zip(rows, chosen, strict=True):
            logits, read = one(ids).logits, two(ids).logits
            gap = max(gap, float((logits - read).abs().max().nan_to_num(torch.inf)))
            largest = max(largest, float(logits.abs().max()))
            same.append((read.argmax(-1) == choice).flatten())
    return {
        "alike": plain == other,
        "largest_difference": gap,
        "largest": largest,
        "same_choice": float(torch.cat(same).float().mean()),
        "aside": aside(file, format),
    }


def round_alike(model: torch.nn.Module, read: dict[str, torch.Tensor], format: str) -> None:
    """Round each weight matrix as the file does, which keeps some of them more exactly than its format says:
    in the way that comes nearest to what was `read` from it. What is another weight stays far from it."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:  # the others stay in float32
            ways = [weight.data.half().float(), weight.data.clone()]
            if format == GGMLQuantizationType.Q8_0.name.lower() and weight.shape[-1] % BLOCK == 0:
                ways.insert(0, in_8_bits(weight.data))
            other = read.get(name)
            if other is not None and other.shape == weight.shape:
                ways.sort(key=lambda way: float((way - other).abs().max().nan_to_num(torch.inf)))
            weight.data = ways[0]


def in_8_bits(weight: torch.Tensor) -> torch.Tensor:
    """A weight as Q8_0 keeps it: in blocks of 32 in a row, each with a scale."""
    packed = quants.quantize(weight.numpy(), GGMLQuantizationType.Q8_0)
    return torch.from_numpy(quants.dequantize(packed, GGMLQuantizationType.Q8_0))


def aside(file: Path, format: str) -> float:
    """Share of the weights of a file that are in another format than its own."""
    counts = [
        (tensor.tensor_type.name.lower(), int(tensor.n_elements)) for tensor in GGUFReader(file).tensors
    ]
    return 1 - sum(n for name, n in counts if name == format) / sum(n for _, n in counts)


if __name__ == "__main__":
    quiet_libraries()
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
