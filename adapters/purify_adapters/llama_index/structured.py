"""Structured prediction: the prompt describes the schema, and a grammar enforces it."""

from __future__ import annotations

from typing import Any

from llama_index.core.types import PydanticProgramMode

from purify_adapters.llama_index.base import PurifiedLLMBase
from purify_adapters.tool_calls import json_grammar


class Structured(PurifiedLLMBase):
    """LlamaIndex's structured prediction for a model that can follow a grammar.

    The grammar masks both models' rows before they are fused: the answer is always valid under the schema,
    and purified like any other. One that `max_tokens` cuts short raises SourceError.
    """

    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM

    def structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        """An `output_cls` parsed from the answer, whose schema a grammar enforces."""
        return super().structured_predict(output_cls, prompt, _held(output_cls, llm_kwargs), **prompt_args)

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        """`structured_predict` without blocking the event loop."""
        await self._loaded()
        held = _held(output_cls, llm_kwargs)
        return await super().astructured_predict(output_cls, prompt, held, **prompt_args)

    def _structured_stream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        held = _held(output_cls, llm_kwargs)
        return super()._structured_stream_call(output_cls, prompt, held, **prompt_args)

    async def _structured_astream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        await self._loaded()
        held = _held(output_cls, llm_kwargs)
        return await super()._structured_astream_call(output_cls, prompt, held, **prompt_args)


def _held(output_cls: Any, llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """A call's options with the schema's grammar. Raises ConfigError for an unsupported schema."""
    return {**(llm_kwargs or {}), "grammar": json_grammar(output_cls.model_json_schema()), "whole": True}
