"""ChatPurified: a LangChain chat model whose every token is drawn from the fused row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable

from purify_adapters.framework_options import asked_by
from purify_adapters.langchain.base import PurifiedBase
from purify_adapters.langchain.chat_call import ChatCall, ChatStream, tool_of, tool_request
from purify_adapters.langchain.coalesced_batch import CoalescedBatch, announce, cached, expected
from purify_adapters.langchain.response_metadata import token_ids
from purify_adapters.langchain.retrievals import run_of, runs_of
from purify_adapters.langchain.structured import Method, structured
from purify_adapters.tool_calls import parse_tool_choice
from purify_plugins.certificates import citing
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.language_models.model_profile import ModelProfile

logger = logging.getLogger(__name__)
CALL = (
    *("model", "tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "certificate"),
    *("parallel_tool_calls", "strict", "stream_usage", "user"),
    "stream",  # LangChain's own switch between _generate and _stream
)
"""The options of a call besides the sampling options."""
RUN = ("config", "callbacks", "tags", "metadata", "run_name", "run_id", "return_exceptions", "stop")
"""Further arguments of LangChain's own methods."""


class ChatPurified(PurifiedBase, BaseChatModel):
    """A chat model of two: every token of an untrusted LLM's answer is drawn with a benign SLM's consent.

    >>> chat = ChatPurified(llm="models/large", slm="models/small", temperature=0.7)
    >>> chat.invoke("Tell me a story.").response_metadata["purification"]["guarantee"]
    'passage'
    """

    tool_format: str = "auto"
    """How the models write tool calls: the name of an offered format, or "auto": their templates say."""

    @property
    def _llm_type(self) -> str:
        return "purified-chat"

    def _resolve_model_profile(self) -> ModelProfile:
        media = {f"{kind}_inputs": False for kind in ("image", "audio", "video", "pdf")}
        able = dict.fromkeys(("text_inputs", "text_outputs", "tool_calling", "structured_output"), True)
        return {**media, **able}  # type: ignore[typeddict-item]  # keys written out two lines above

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced("chat", stop, kwargs)

    # One call

    def _call(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> ChatCall:
        """Parse a call. Raises UnknownNameError for an unknown option."""
        self._refuse(given, CALL)
        if given.get("top_logprobs"):
            raise ConfigError("top_logprobs must be 0: only the drawn token's own figure is kept")
        purifier = self.load(given.get("model"))
        request = tool_request(purifier, messages, self.tool_format, given)
        drawn = {**given, "stop": stop, "grammar": request.grammar or given.get("grammar")}
        return ChatCall(
            purifier,
            self._named(given),
            request,
            self._sampling(purifier, drawn),
            bool(given.get("logprobs")),
            bool(given.get("certificate", self.certificate)),
            messages,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, batch = self._call(messages, stop, kwargs), expected()
        alone = [call.request.chat], call.sampling
        with asked_by(kwargs), citing(call.cited(run_of(run_manager))):
            completion = batch.answer(call.purifier, call.request.chat, call.sampling) if batch else None
            return call.result(completion or call.purifier.generate(*alone, errors="raise")[0])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, batch = self._call(messages, stop, kwargs), expected()
        alone, asked = ([call.request.chat], call.sampling), (call.request.chat, call.sampling)
        with asked_by(kwargs), citing(call.cited(run_of(run_manager))):
            completion = await batch.aanswer(call.purifier, *asked) if batch else None
            return call.result(completion or (await call.purifier.agenerate(*alone, errors="raise"))[0])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        stream = ChatStream(call)
        with asked_by(kwargs), citing(call.cited(run_of(run_manager))):
            answer = call.purifier.stream(call.request.chat, call.sampling)
        with closing(answer) as chunks:
            for chunk in chunks:
                for part in stream.take(chunk):
                    if run_manager:
                        run_manager.on_llm_new_token(part.text, chunk=part)
                    yield part

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        stream = ChatStream(call)
        with asked_by(kwargs), citing(call.cited(run_of(run_manager))):
            answer = call.purifier.astream(call.request.chat, call.sampling)
        async with aclosing(answer) as chunks:
            async for chunk in chunks:
                for part in stream.take(chunk):
                    if run_manager:
                        await run_manager.on_llm_new_token(part.text, chunk=part)
                    yield part

    # Batches; models are loaded on a worker thread

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """LangChain's `generate`; several conversations are decoded as one batch."""
        with announce(self._coalesced(messages, runs_of(None, len(messages)), *args[:1], **kwargs)):
            return super().generate(messages, *args, **kwargs)

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """LangChain's `agenerate`; several conversations are decoded as one batch."""
        await asyncio.to_thread(self.load, kwargs.get("model"))
        with announce(self._coalesced(messages, runs_of(None, len(messages)), *args[:1], **kwargs)):
            return await super().agenerate(messages, *args, **kwargs)

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """LangChain's `batch`; all that are not cached, seeded or streamed are decoded as one batch."""
        runs = runs_of(args[0] if args else kwargs.get("config"), len(inputs))
        with announce(self._coalesced(self._conversations(inputs), runs, **kwargs)):
            return super().batch(inputs, *args, **kwargs)

    async def abatch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """LangChain's `abatch`; all that are not cached, seeded or streamed are decoded as one batch."""
        await asyncio.to_thread(self.load, kwargs.get("model"))
        runs = runs_of(args[0] if args else kwargs.get("config"), len(inputs))
        with announce(self._coalesced(self._conversations(inputs), runs, **kwargs)):
            return await super().abatch(inputs, *args, **kwargs)

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[AIMessageChunk]:
        """LangChain's `astream`."""
        await asyncio.to_thread(self.load, kwargs.get("model"))
        async with aclosing(super().astream(*args, **kwargs)) as chunks:  # type: ignore[type-var]  # a generator
            async for chunk in chunks:
                yield chunk

    def _conversations(self, inputs: Sequence[Any]) -> list[list[BaseMessage]]:
        return [self._convert_input(each).to_messages() for each in inputs]

    def _coalesced(
        self,
        conversations: Sequence[list[BaseMessage]],
        runs: Sequence[UUID | None],
        stop: list[str] | None = None,
        **given: Any,
    ) -> CoalescedBatch | None:
        """The conversations as one batch, if they can be decoded together.

        Not with a cache, which may hold some of the answers, with a seed, whose draws depend on the row,
        when streaming, or where prompts quote documents: each answer cites its own.
        """
        if len(conversations) < 2 or cached(self.cache) or self.streaming or given.get("stream"):
            return None
        kept = {key: value for key, value in given.items() if key not in RUN}
        try:
            calls = [self._call(messages, stop, kept) for messages in conversations]
        except Exception:  # the call itself will raise the error
            return None
        if any(call.cited(run) for call, run in zip(calls, runs, strict=True)):
            logger.info("prompts that quote documents are decoded one by one: each answer cites its own")
            return None
        sampling = calls[0].sampling
        seeded = sampling.seed is not None and not sampling.greedy
        return (
            None
            if seeded
            else CoalescedBatch(calls[0].purifier, [call.request.chat for call in calls], sampling)
        )

    # Tools and structure

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, strict: bool | None = None, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """The model with tools: LangChain tools, functions, pydantic or TypedDict classes, or schemas.

        `tool_choice` "any" (or "required", True) makes it call one, a name that one, "none" none; a
        forced call follows the tool's schema to the letter, with or without `strict`.
        """
        offered = [tool_of(tool) for tool in tools]
        choice = parse_tool_choice(tool_choice, offered)
        return self.bind(tools=offered, **({"tool_choice": choice} if choice else {}), **kwargs)

    def with_structured_output(
        self,
        schema: Any,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """The model with answers that are always valid under a pydantic class, TypedDict or JSON schema.

        The grammar masks both models' rows, so the answer is purified like any other. `method`
        "function_calling" shows the models the schema as a tool, the others leave the prompt alone.
        An answer that `max_tokens` cuts short is an error.
        """
        return structured(self, schema, method, include_raw, kwargs)

    # Counting tokens, without downloading a tokenizer

    def get_token_ids(self, text: str) -> list[int]:
        """A text's token ids in the SLM's tokenizer."""
        return token_ids(self.load(), text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """The number of tokens of a conversation in the SLM's chat template, tools included."""
        purifier = self.load()
        request = tool_request(purifier, messages, self.tool_format, {"tools": tools})
        return len(purifier.slm.inner.encode(request.chat))
