"""PurifiedLLM: a LangChain completion model whose every token is drawn from the fused row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable

from purify_adapters.framework_options import asked_by
from purify_adapters.langchain.base import PurifiedBase
from purify_adapters.langchain.coalesced_batch import CoalescedBatch, announce, cached, expected
from purify_adapters.langchain.response_metadata import logprobs, metadata, token_ids, usage
from purify_adapters.langchain.retrievals import cited_in, run_of
from purify_adapters.openai_schema import usage as openai_usage
from purify_plugins.certificates import citing
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chunk, Completion

CALL = ("model", "logprobs", "certificate", "user")
"""The options of a call besides the sampling options."""


class PurifiedLLM(PurifiedBase, BaseLLM):
    """A completion model of two: it goes on from a text, purified token by token.

    >>> PurifiedLLM(llm="models/large", slm="models/small").invoke("Once upon a time")
    """

    @property
    def _llm_type(self) -> str:
        return "purified-llm"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced("llm", stop, kwargs)

    def _ask(self, stop: list[str] | None, given: Mapping[str, Any]) -> tuple[Purifier, Sampling]:
        self._refuse(given, CALL)
        purifier = self.load(given.get("model"))
        return purifier, self._sampling(purifier, {**given, "stop": stop})

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        purifier, sampling = self._ask(stop, kwargs)
        batch = expected() if len(prompts) == 1 else None
        with asked_by(kwargs), citing(_cited(prompts, run_manager)):
            done = batch.answer(purifier, prompts[0], sampling) if batch else None
            answers = [done] if done else purifier.generate(prompts, sampling, errors="raise")
        return self._result(purifier, answers, kwargs)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        purifier, sampling = self._ask(stop, kwargs)
        batch = expected() if len(prompts) == 1 else None
        with asked_by(kwargs), citing(_cited(prompts, run_manager)):
            done = await batch.aanswer(purifier, prompts[0], sampling) if batch else None
            answers = [done] if done else await purifier.agenerate(prompts, sampling, errors="raise")
        return self._result(purifier, answers, kwargs)

    # With return_exceptions, a refused prompt is one exception, and the others are decoded once

    def batch(
        self, inputs: list[Any], *args: Any, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """LangChain's `batch`; with `return_exceptions` each prompt has its answer or its own error."""
        if not return_exceptions:
            return super().batch(inputs, *args, **kwargs)
        with announce(self._coalesced(inputs, **kwargs)):
            return Runnable.batch(self, inputs, *args, return_exceptions=True, **kwargs)

    async def abatch(
        self, inputs: list[Any], *args: Any, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """LangChain's `abatch`; with `return_exceptions` each prompt has its answer or its own error."""
        if not return_exceptions:
            return await super().abatch(inputs, *args, **kwargs)
        with announce(await asyncio.to_thread(self._coalesced, inputs, **kwargs)):
            return await Runnable.abatch(self, inputs, *args, return_exceptions=True, **kwargs)

    def _coalesced(
        self, inputs: Sequence[Any], stop: list[str] | None = None, **given: Any
    ) -> CoalescedBatch | None:
        """The prompts as one batch; None with a cache, which may hold some of the answers."""
        if cached(self.cache):
            return None
        purifier, sampling = self._ask(stop, given)
        return CoalescedBatch(purifier, [self._convert_input(each).to_string() for each in inputs], sampling)

    def _result(
        self, purifier: Purifier, completions: list[Completion], given: Mapping[str, Any]
    ) -> LLMResult:
        generations = [
            [Generation(text=each.text, generation_info=self._about(purifier, each, given))]
            for each in completions
        ]
        counts = [usage(each) for each in completions]
        read, wrote = (
            sum(each["input_tokens"] for each in counts),
            sum(each["output_tokens"] for each in counts),
        )
        about = {"model_name": self._named(given), "token_usage": openai_usage(read, wrote)}
        return LLMResult(generations=list(generations), llm_output=about)

    def _about(self, purifier: Purifier, completion: Completion, given: Mapping[str, Any]) -> dict[str, Any]:
        about = metadata(completion, self._named(given), bool(given.get("certificate", self.certificate)))
        if given.get("logprobs"):
            about["logprobs"] = {"content": logprobs(completion.drawn, purifier)}
        return {**about, "usage": usage(completion)}

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        purifier, sampling = self._ask(stop, kwargs)
        with asked_by(kwargs), citing(_cited([prompt], run_manager)):
            answer = purifier.stream(prompt, sampling)
        with closing(answer) as chunks:
            for chunk in chunks:
                for part in self._parts(purifier, chunk, kwargs):
                    if run_manager:
                        run_manager.on_llm_new_token(part.text, chunk=part)
                    yield part

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        purifier, sampling = self._ask(stop, kwargs)
        with asked_by(kwargs), citing(_cited([prompt], run_manager)):
            answer = purifier.astream(prompt, sampling)
        async with aclosing(answer) as chunks:
            async for chunk in chunks:
                for part in self._parts(purifier, chunk, kwargs):
                    if run_manager:
                        await run_manager.on_llm_new_token(part.text, chunk=part)
                    yield part

    def _parts(self, purifier: Purifier, chunk: Chunk, given: Mapping[str, Any]) -> list[GenerationChunk]:
        if chunk.completion:
            about = self._about(purifier, chunk.completion, given)
            return [GenerationChunk(text=chunk.text, generation_info=about)]
        return [GenerationChunk(text=chunk.text)] if chunk.text else []

    def get_token_ids(self, text: str) -> list[int]:
        """A text's token ids in the SLM's tokenizer."""
        return token_ids(self.load(), text)


def _cited(prompts: Sequence[str], run_manager: Any) -> dict[str, str]:
    """The documents that a prompt quotes; of several, which LangChain asks as one run, none is known."""
    return cited_in(prompts[0], (), run_of(run_manager)) if len(prompts) == 1 else {}
