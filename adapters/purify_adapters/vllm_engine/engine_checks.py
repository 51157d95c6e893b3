"""What vLLM must not be started with: it would change or bypass the fused rows."""

from __future__ import annotations

from typing import Any

from purify_adapters.vllm_engine.running import one_device
from purify_plugins.errors import ConfigError

VERIFICATIONS = (None, "standard", "block")
"""The ways of verifying a draft that keep to the rows; the others accept tokens that were not drawn."""


def require_purifiable(vllm_config: Any) -> None:
    """Raise ConfigError where Model Runner V2 would change or bypass the fused rows, or draw them twice."""
    model, speculation = vllm_config.model_config, getattr(vllm_config, "speculative_config", None)
    method = getattr(speculation, "rejection_sample_method", None)
    if method not in VERIFICATIONS:
        raise ConfigError(
            f"rejection_sample_method={method!r} accepts tokens of a draft that were not drawn from the "
            "fused row; leave it out of --speculative-config"
        )
    if getattr(speculation, "draft_sample_method", "greedy") != "greedy":
        raise ConfigError(
            "draft_sample_method: where such a draft was all but sure of the token that was drawn, vLLM's "
            "residual has none left; leave it out of --speculative-config"
        )
    if getattr(speculation, "enable_adaptive_verification", False):
        raise ConfigError(
            "enable_adaptive_verification drops rows where the processor cannot see it; leave it out of "
            "--speculative-config"
        )
    if getattr(vllm_config, "watermark_config", None) is not None:
        raise ConfigError("a row with one token leaves a watermark nothing to choose; start vLLM without one")
    if getattr(model, "is_diffusion", False):
        raise ConfigError("a diffusion model's sampler does not draw token by token from the fused rows")
    if getattr(model, "enable_sleep_mode", False):
        raise ConfigError("sleep mode would throw the SLM's weights away; start vLLM without it")
    if getattr(model, "enable_prompt_embeds", False):
        raise ConfigError("the SLM reads tokens, not embeddings; start vLLM without --enable-prompt-embeds")
    one_device(vllm_config)
