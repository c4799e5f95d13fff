"""What checkpoints answer, to be compared between versions of transformers: run by 4, and imported under 5.

python read.py FOLDERS.json ANSWERS.pt
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers import __version__ as version
from transformers.utils import logging

TEXTS = (
    "The ferry had been due at six, 1,024 times: naïve café – 東京 ✓\n\tdef f(x): return x",
    " begins with a space,  has two of them <|im_start|>user\nand <image> special </s> tokens<|im_end|> ",
    "",
)
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "image_token")
SETTINGS = ("padding_side", "truncation_side", "model_max_length", "clean_up_tokenization_spaces")
CHAT = [{"role": "user", "content": "Where is the ferry?"}, {"role": "assistant", "content": "Late, at six."}]
LENGTH, NEW = 48, 6
# The usual kernel of version 4 leaves out the norms of queries and keys of this family, in dense models too.
EAGER = ("stablelm",)


def answers(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Logits, float32 `(1, T, rows)`, generated ids, and what the tokenizer makes of texts."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(2, model.config.vocab_size, (1, LENGTH), generator=draw)
    with torch.inference_mode():
        logits = model.eval()(rows, attention_mask=torch.ones_like(rows)).logits
        start = rows[:, :10]
        mask, greedy = (
            torch.ones_like(start),
            {"do_sample": False, "min_new_tokens": NEW, "max_new_tokens": NEW},
        )
        generated = model.generate(start, attention_mask=mask, **greedy)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    special = {name: getattr(tokenizer, name, None) for name in SPECIAL}
    nameless = "extra_special_tokens" if version.startswith("5") else "additional_special_tokens"
    return {
        "logits": logits,
        "generated": generated.tolist(),
        "ids": ids,
        "text": [tokenizer.decode(i) for i in ids],
        "text without special tokens": [tokenizer.decode(i, skip_special_tokens=True) for i in ids],
        "inputs": sorted(tokenizer(TEXTS[0])),
        "tokens": len(tokenizer),
        "special": {name: str(token) for name, token in special.items() if token is not None},
        "nameless special": sorted(map(str, getattr(tokenizer, nameless))),
        "settings": {name: getattr(tokenizer, name) for name in SETTINGS},
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False) if tokenizer.chat_template else None,
        "family": model.config.model_type,
    }


def read(folder: Path) -> dict[str, Any]:
    """What the checkpoint in `folder` answers, or `error`: why it cannot be read."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = AutoConfig.from_pretrained(folder)
        kernel = "eager" if config.model_type in EAGER else None
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, attn_implementation=kernel
        )
        unread = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
        return {"unread": unread, **answers(model, tokenizer)}
    except Exception as error:  # whatever a library raises is what is asked for
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    asked, answered = map(Path, sys.argv[1:])
    torch.save({name: read(Path(name)) for name in json.loads(asked.read_text(encoding="utf-8"))}, answered)
