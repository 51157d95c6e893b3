"""LlamaIndex: `Settings.llm = PurifiedLLM(...)`, and engines and agents go through the purifier."""

from purify_adapters.llama_index.llm import PurifiedLLM

__all__ = ["PurifiedLLM"]
