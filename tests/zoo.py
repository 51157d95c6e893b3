"""Random models of many architectures that read the test bed's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import transformers

from purify_hooks.local.source import LocalSource
from tests.toys import both

SHARED = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LAYERS = {"num_hidden_layers": 4, "num_attention_heads": 4}
LLAMA = {**LAYERS, "num_key_value_heads": 2, "max_position_embeddings": 2048}
STATES = {"mamba_n_heads": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
HALVES = ["linear_attention", "full_attention"] * 2


def sizes(width: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Each architecture's class, without its ending, and settings for models of about this width."""
    llama = {**LLAMA, "hidden_size": width, "intermediate_size": 2 * width, "head_dim": width // 4}
    small = {**LAYERS, "hidden_size": width}
    parts = {"mamba_d_head": width // 4}
    return {
        "llama": ("Llama", llama),
        "qwen3": ("Qwen3", llama),
        "gpt2": ("GPT2", {"n_embd": width, "n_layer": 4, "n_head": 4, "n_positions": 2048}),
        "opt": ("OPT", {**small, "ffn_dim": 2 * width, "word_embed_proj_dim": width}),
        "bloom": ("Bloom", {"hidden_size": width, "n_layer": 4, "n_head": 4}),
        "mpt": ("Mpt", {"d_model": width, "n_layers": 4, "n_heads": 4, "expansion_ratio": 2}),
        "mistral": ("Mistral", {**llama, "sliding_window": 16}),
        "gemma2": ("Gemma2", {**llama, "sliding_window": 16}),
        "gpt-oss": (
            "GptOss",
            {**llama, "sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        ),
        "mamba": ("Mamba", {"hidden_size": width, "num_hidden_layers": 4, "state_size": 8}),
        "jamba": (
            "Jamba",
            {**llama, "mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2}
            | {"use_mamba_kernels": False},
        ),
        "bamba": ("Bamba", {**llama, **STATES, **parts, "attn_layer_indices": [1, 3]}),
        "falcon-h1": ("FalconH1", {**llama, **STATES, **parts, "mamba_d_ssm": 2 * width}),
        "lfm2": ("Lfm2", {**llama, "layer_types": ["conv", "full_attention"] * 2, "full_attn_idxs": [1, 3]}),
        "qwen3-next": (
            "Qwen3Next",
            {**llama, "layer_types": HALVES, "linear_num_value_heads": 4, "linear_num_key_heads": 2}
            | {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts": 4}
            | {"num_experts_per_tok": 2, "moe_intermediate_size": width}
            | {"shared_expert_intermediate_size": width},
        ),
        "rwkv": ("Rwkv", {"hidden_size": width, "num_hidden_layers": 4, "attention_hidden_size": width}),
    }


ZOO = sorted(sizes(32))


@cache
def of_the_zoo(kind: str, width: int = 32) -> LocalSource:
    """A random model of four layers, strongly enough weighted that contexts matter."""
    name, settings = sizes(width)[kind]
    config = getattr(transformers, f"{name}Config")(**{**SHARED, **settings})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return LocalSource(model, both()[0].tokenizer, kind)
