"""Fusion inside vLLM: its logits processor `purify_adapters.vllm_engine:PurifyLogitsProcessor`."""

from purify_adapters.vllm_engine.processor import PurifyLogitsProcessor

__all__ = ["PurifyLogitsProcessor"]
