"""Tiny random models of every family, and of the traps within families: seconds each, no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 1600
BLOCKS = 5
PATTERN = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
# Larger than usual, so that every block changes what the model says.
SPREAD = 0.2
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": SPREAD,
    **TOKENS,
}


def shared_settings(model_type: str, **changes) -> Callable[[], PreTrainedConfig]:
    return lambda: AutoConfig.for_model(model_type, **{**SHAPE, **changes})


def _gpt2(**changes) -> Callable[[], PreTrainedConfig]:
    settings = {
        "vocab_size": VOCABULARY,
        "n_positions": 128,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "initializer_range": SPREAD,
        **TOKENS,
    }
    return lambda: AutoConfig.for_model("gpt2", **{**settings, **changes})


def _whole_heads(model_type: str, **changes) -> Callable[[], PreTrainedConfig]:
    """For families without grouped queries."""
    return shared_settings(model_type, **{"num_key_value_heads": 8, **changes})


CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": shared_settings("llama", tie_word_embeddings=True),
    "llama-biases": shared_settings("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "mistral": shared_settings("mistral", sliding_window=4),
    "qwen2": shared_settings(
        "qwen2",
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=list(PATTERN),
    ),
    "qwen3": shared_settings("qwen3", head_dim=8),
    "qwen3_moe": shared_settings(
        "qwen3_moe",
        head_dim=8,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=2,
        mlp_only_layers=[3],
    ),
    "mixtral": shared_settings("mixtral", num_local_experts=4, num_experts_per_tok=2),
    # Experts in groups, a bias that chooses them, and one that every token goes through.
    "deepseek_v3": _whole_heads(
        "deepseek_v3",
        moe_intermediate_size=16,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=0,
        n_shared_experts=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=4,
    ),
    "gemma": shared_settings("gemma", head_dim=8),
    "gemma2": shared_settings("gemma2", head_dim=8, sliding_window=4, layer_types=list(PATTERN)),
    "gemma3_text": shared_settings("gemma3_text", head_dim=8, sliding_window=4, layer_types=list(PATTERN)),
    "phi": shared_settings("phi"),
    "phi-norms": shared_settings("phi", qk_layernorm=True),
    "phi3": shared_settings("phi3", sliding_window=None),
    "gpt2": _gpt2(),
    "gpt2-inner": _gpt2(n_inner=48, tie_word_embeddings=False),
    "gpt_neo": lambda: AutoConfig.for_model(
        "gpt_neo",
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        window_size=4,
        attention_types=[[["global", "local"], 2]],
        max_position_embeddings=128,
        initializer_range=SPREAD,
        **TOKENS,
    ),
    "gpt_neox": _whole_heads("gpt_neox"),
    "gpt_neox-serial": _whole_heads("gpt_neox", use_parallel_residual=False),
    "opt": shared_settings("opt", ffn_dim=64, word_embed_proj_dim=32),
    "opt-norm-after": shared_settings("opt", ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False),
    "bloom": lambda: AutoConfig.for_model(
        "bloom",
        vocab_size=VOCABULARY,
        hidden_size=32,
        n_layer=4,
        n_head=4,
        initializer_range=SPREAD,
        **TOKENS,
    ),
    "falcon": _whole_heads("falcon", ffn_hidden_size=48),
    "falcon-new": shared_settings("falcon", num_kv_heads=2, new_decoder_architecture=True),
    "falcon-alibi": _whole_heads("falcon", alibi=True, multi_query=False, parallel_attn=False),
    "stablelm": shared_settings("stablelm", qk_layernorm=True),
    "olmo2": shared_settings("olmo2"),
    "granite": shared_settings("granite", residual_multiplier=0.5, embedding_multiplier=2.0),
    "cohere": shared_settings("cohere", use_qk_norm=True, logit_scale=0.5),
    "smollm3": shared_settings("smollm3", no_rope_layers=[1, 0, 1, 1, 0]),
    "starcoder2": shared_settings("starcoder2", sliding_window=4),
    # Not in the table of families: recognised by their structure.
    "helium": shared_settings("helium", head_dim=4),
    "olmo": shared_settings("olmo"),
    "glm4": shared_settings("glm4", head_dim=4),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model in evaluation mode, float32."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]())
    for weight_name, weight in model.named_parameters():
        # Weights that are made as ones and zeros would hide a mistake in them.
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
        assert weight.isfinite().all(), weight_name
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("correction_bias"):
            buffer += 0.1 * torch.randn_like(buffer)
    return model.eval()
