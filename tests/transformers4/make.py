"""Run by transformers 4: tiny random checkpoints as it writes them, into the folder that is named.

    python make.py FOLDER

Each is a folder with a model and a tokenizer. Models differ in what a config says of rotary positions,
tokenizers in what they put around texts and in their special tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CohereTokenizerFast,
    GemmaTokenizerFast,
    GPT2TokenizerFast,
    GPTNeoXTokenizerFast,
    LlamaTokenizerFast,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
)

assert transformers.__version__.startswith("4.")
TEXT = Path(__file__).parents[2] / "assets" / "text" / "dialogue.txt"
ROWS = 640
SHAPE = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WHOLE = {"num_key_value_heads": 4}
LAYERS = ["sliding_attention", "full_attention"] * 2
FIRST = "original_max_position_embeddings"
LINEAR = {"rope_type": "linear", "factor": 8.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, FIRST: 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, FIRST: 16}
LONG = {"short_factor": [1.0, 1.2, 1.3, 1.5], "long_factor": [1.5, 2.0, 3.0, 4.0]}
# 48 tokens are read: fewer than the first limit of one, more than that of the other.
BASE = {"rope_theta": 50000.0}
# Name -> model type, and settings under the names of transformers 4.
MODELS: dict[str, tuple[str, dict]] = {
    "llama": ("llama", BASE),
    "llama-linear": ("llama", {**BASE, "rope_scaling": LINEAR}),
    "llama-older-name": ("llama", {**BASE, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama-dynamic": ("llama", {**BASE, "rope_scaling": DYNAMIC, "max_position_embeddings": 32}),
    "llama-yarn": ("llama", {**BASE, "rope_scaling": YARN}),
    "llama-yarn-bare": ("llama", {**BASE, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    "llama-yarn-full": (
        "llama",
        {**BASE, "rope_scaling": {**YARN, "attention_factor": 1.1, "beta_fast": 16.0, "beta_slow": 2.0}},
    ),
    "llama-llama3": ("llama", {**BASE, "rope_scaling": LLAMA3}),
    "llama-longrope": ("llama", {**BASE, FIRST: 64, "rope_scaling": {"rope_type": "longrope", **LONG}}),
    "mistral": ("mistral", {**BASE, "sliding_window": None}),
    "mixtral": ("mixtral", {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", BASE),
    "qwen2-yarn": ("qwen2", {**BASE, "rope_scaling": {"type": "yarn", "factor": 4.0, FIRST: 64}}),
    "qwen3": ("qwen3", {**BASE, "head_dim": 16}),
    "qwen3_moe": (
        "qwen3_moe",
        {**BASE, "head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "gemma": ("gemma", {**BASE, "head_dim": 8}),
    "gemma2": ("gemma2", {**BASE, "head_dim": 8, "sliding_window": 8}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "sliding_window": 8, "layer_types": LAYERS}),
    "gemma3-linear": (
        "gemma3_text",
        {
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": LAYERS,
            "rope_theta": 2e6,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": LINEAR,
        },
    ),
    "phi": ("phi", {**BASE, "partial_rotary_factor": 0.25}),
    "phi-linear": ("phi", {**BASE, "partial_rotary_factor": 0.75, "rope_scaling": LINEAR}),
    "phi3": ("phi3", {**BASE, "sliding_window": None, "partial_rotary_factor": 0.5}),
    "phi3-short": (
        "phi3",
        {**BASE, "sliding_window": None, FIRST: 64, "rope_scaling": {"type": "longrope", **LONG}},
    ),
    "phi3-long": (
        "phi3",
        {**BASE, "sliding_window": None, FIRST: 32, "rope_scaling": {"type": "longrope", **LONG}},
    ),
    "gpt_neox": ("gpt_neox", {**WHOLE, "rotary_pct": 1.0, "rotary_emb_base": 50000}),
    "gpt_neox-default": ("gpt_neox", WHOLE),
    "gpt_neox-linear": ("gpt_neox", {**WHOLE, "rotary_pct": 0.5, "rope_scaling": LINEAR}),
    "stablelm": ("stablelm", {**BASE, "partial_rotary_factor": 0.5}),
    "stablelm-default": ("stablelm", {}),
    "stablelm-dynamic": (
        "stablelm",
        {"partial_rotary_factor": 0.5, "rope_scaling": DYNAMIC, "max_position_embeddings": 32},
    ),
    "granite": ("granite", {**BASE, "residual_multiplier": 0.5, "rope_scaling": LINEAR}),
    "cohere": ("cohere", {**BASE, "rope_scaling": LINEAR}),
    "olmo2": ("olmo2", {**BASE, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "smollm3": ("smollm3", {**BASE, "rope_scaling": LINEAR}),
    "starcoder2": ("starcoder2", {**BASE, "sliding_window": 8, "rope_scaling": LINEAR}),
    "falcon": (
        "falcon",
        {**WHOLE, **BASE, "num_kv_heads": 2, "new_decoder_architecture": True, "rope_scaling": LINEAR},
    ),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt2": ("gpt2", {"n_positions": 256, "n_embd": 32, "n_layer": 4, "n_head": 4}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 4, "num_heads": 4, "window_size": 8, "attention_types": [[["global", "local"], 2]]},
    ),
    "bloom": ("bloom", {"n_layer": 4, "n_head": 4}),
    # Not in the table of families.
    "glm4": ("glm4", {**BASE, "head_dim": 8, "partial_rotary_factor": 0.25}),
    "olmo": ("olmo", {**BASE, "rope_scaling": {"type": "linear", "factor": 4.0}}),
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IM = ["<|im_start|>", "<|im_end|>", "<|tool|>"]
LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GPT = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}


def trained(splitter) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a byte pair encoding of a shipped text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = splitter
    alphabet = pre_tokenizers.ByteLevel.alphabet() if isinstance(splitter, pre_tokenizers.ByteLevel) else []
    bpe.train(
        [str(TEXT)], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(bpe.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    """As of GPT-2, Qwen and Llama 3."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    words, merges = trained(splitter)
    words = ["<s>", "</s>", "<unk>", *words]
    bpe = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=merges))
    bpe.pre_tokenizer, bpe.decoder = splitter, decoders.ByteLevel()
    bpe.add_special_tokens(["<s>", "</s>"])
    return bpe


def sentencepiece_like() -> Tokenizer:
    """As of Llama 2 and Gemma: spaces are letters, unknown letters become bytes."""
    words, merges = trained(pre_tokenizers.Metaspace())
    words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *words][: ROWS - 8]
    vocab = {w: n for n, w in enumerate(words)}
    merges = [(a, b) for a, b in merges if a in vocab and b in vocab and a + b in vocab]
    bpe = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bpe.decoder = decoders.Sequence(steps)
    bpe.add_special_tokens(["<unk>", "<s>", "</s>"])
    return bpe


def tokenizers(folder: Path) -> dict[str, tuple[str, dict, PreTrainedTokenizerFast]]:
    """Name -> model type and settings of the model beside it, and the tokenizer."""
    plain, spaced, pieces = byte_level(), byte_level(add_prefix_space=True), sentencepiece_like()
    (words := folder / "words.json").write_text(plain.to_str(), encoding="utf-8")
    (spaced_words := folder / "spaced.json").write_text(spaced.to_str(), encoding="utf-8")
    (sentences := folder / "pieces.json").write_text(pieces.to_str(), encoding="utf-8")
    started, both = byte_level(), byte_level()
    started.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]),
        ]
    )
    both.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    bytewise = {"tokenizer_file": str(words), **GPT}
    piecewise = {"tokenizer_file": str(sentences), **LLAMA}
    qwen = Qwen2TokenizerFast(
        tokenizer_file=str(words), unk_token=None, bos_token=None, eos_token="<|im_end|>", pad_token="</s>"
    )
    qwen.add_special_tokens({"additional_special_tokens": IM})
    qwen.add_tokens(["<tool_call>", "</tool_call>"])
    qwen.chat_template, qwen.model_max_length = TEMPLATE, 256
    named = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    named_and_more = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        additional_special_tokens=IM[:1],
    )
    sided = PreTrainedTokenizerFast(
        tokenizer_object=started,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        truncation_side="left",
        clean_up_tokenization_spaces=True,
        model_input_names=["input_ids", "attention_mask"],
    )
    return {
        "qwen": ("qwen2", {}, qwen),
        "gpt2": ("gpt2", MODELS["gpt2"][1], GPT2TokenizerFast(**bytewise)),
        "gpt2-spaced": (
            "gpt2",
            MODELS["gpt2"][1],
            GPT2TokenizerFast(tokenizer_file=str(spaced_words), add_prefix_space=True, **GPT),
        ),
        "opt-bos": ("opt", MODELS["opt"][1], GPT2TokenizerFast(**bytewise, add_bos_token=True)),
        "gpt_neox": ("gpt_neox", WHOLE, GPTNeoXTokenizerFast(**bytewise)),
        "gpt_neox-around": (
            "gpt_neox",
            WHOLE,
            GPTNeoXTokenizerFast(**bytewise, add_bos_token=True, add_eos_token=True),
        ),
        "cohere": ("cohere", {}, CohereTokenizerFast(**{**bytewise, "bos_token": "<s>"})),
        "cohere-bare": (
            "cohere",
            {},
            CohereTokenizerFast(**{**bytewise, "bos_token": "<s>"}, add_bos_token=False),
        ),
        "llama": ("llama", ids, LlamaTokenizerFast(**piecewise)),
        "llama-bare": ("llama", ids, LlamaTokenizerFast(**piecewise, add_bos_token=False)),
        "llama-ended": ("llama", ids, LlamaTokenizerFast(**piecewise, add_eos_token=True)),
        "llama-only-ended": (
            "llama",
            ids,
            LlamaTokenizerFast(**piecewise, add_bos_token=False, add_eos_token=True),
        ),
        "llama-padded": (
            "llama",
            ids,
            LlamaTokenizerFast(**piecewise, pad_token="[PAD]", additional_special_tokens=IM),
        ),
        "mistral": ("mistral", ids, LlamaTokenizerFast(**piecewise, additional_special_tokens=["[INST]"])),
        "gemma": ("gemma", {**ids, "head_dim": 8}, GemmaTokenizerFast(**piecewise, pad_token="<s>")),
        "gemma-bare": (
            "gemma2",
            {**ids, "head_dim": 8},
            GemmaTokenizerFast(**piecewise, pad_token="<s>", add_bos_token=False),
        ),
        "llama3": (
            "llama",
            {},
            PreTrainedTokenizerFast(tokenizer_object=started, bos_token="<s>", eos_token="</s>"),
        ),
        "around": (
            "llama",
            {},
            PreTrainedTokenizerFast(tokenizer_object=both, bos_token="<s>", eos_token="</s>"),
        ),
        "named": ("llama", {}, named),
        "named-and-more": ("llama", {}, named_and_more),
        "sided": ("stablelm", {}, sided),
    }


def save(folder: Path, kind: str, settings: dict, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPE, **settings}))
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    plain = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>")
    for name, (kind, settings) in MODELS.items():
        save(target / f"model-{name}", kind, settings, plain)
    for name, (kind, settings, tokenizer) in tokenizers(target).items():
        save(target / f"tokenizer-{name}", kind, settings, tokenizer)
