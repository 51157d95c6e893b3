"""PurifiedLLM: a LlamaIndex language model around a purifier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from purify_adapters.framework_options import SAMPLING, asked_by, refuse_unknown
from purify_adapters.llama_index.base import maker
from purify_adapters.llama_index.calling import Calling
from purify_adapters.llama_index.lazy import Lazy
from purify_adapters.llama_index.messages import rendered, text_of
from purify_adapters.llama_index.responses import ChatPieces, CompletionPieces, LlmRequest
from purify_adapters.llama_index.retrievals import listen, retrieved
from purify_adapters.llama_index.structured import Structured
from purify_adapters.quoting import quoted
from purify_adapters.tool_calls import Parser, PlainParser, ToolRequest, parts_of
from purify_plugins.certificates import citing
from purify_plugins.configuration.build import build
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import (
        ChatMessage,
        ChatResponse,
        ChatResponseAsyncGen,
        ChatResponseGen,
        CompletionResponse,
        CompletionResponseAsyncGen,
        CompletionResponseGen,
    )

    from purify_plugins.types import Chunk, Completion, Prompt

MODELS = ("llm", "slm", "policy", "policy_options")
PER_CALL = (*SAMPLING, "logprobs", "certificate", "whole", "tools", "tool_required", "tool_choice", "user")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _completes(method: F) -> F:
    """LlamaIndex's events and callbacks around a method that completes a text."""
    return cast("F", llm_completion_callback()(method))


def _chats(method: F) -> F:
    """LlamaIndex's events and callbacks around a method that answers a conversation."""
    return cast("F", llm_chat_callback()(method))


class PurifiedLLM(Structured, Calling):
    """A purified language model for LlamaIndex.

    Give it a `Purifier`, or `llm`, `slm` and `policy` as `Purifier.load` takes them (its options
    are `policy_options`, or it is a mapping with a `name`); models given that way are loaded when they are
    first needed.
    Sampling options (`max_tokens`, `temperature`, …) are the defaults of every call, and a call may
    override each of them. Raises UnknownNameError for any other option.

    >>> Settings.llm = PurifiedLLM(llm="big-llm", slm="small-slm", max_tokens=200)
    """

    def __init__(
        self,
        purifier: Purifier | Callable[[], Purifier] | None = None,
        *models: Any,
        llm: Any = None,
        slm: Any = None,
        policy: Any = "balanced",
        policy_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if models or isinstance(purifier, str | Path):
            raise ConfigError("name the models: PurifiedLLM(llm=…, slm=…)")
        if "model" in options:
            raise ConfigError("unknown option of PurifiedLLM 'model'; did you mean 'llm'?")
        known = type(self).model_fields.keys() - {"drawn"}
        for name in options.keys() - known - set(SAMPLING):
            raise UnknownNameError("option of PurifiedLLM", name, {*SAMPLING, *known, *MODELS})
        drawn = {name: options.pop(name) for name in SAMPLING if name in options}
        Sampling(**{name: value for name, value in drawn.items() if value is not None})  # refused now
        super().__init__(**{"drawn": drawn, **options})
        self._purifier = Lazy(maker(purifier, llm, slm, policy, policy_options or {}))
        self._metadata = Lazy(self._found)
        listen()

    @classmethod
    def from_config(cls, path: str | Path | None = None, **options: Any) -> Self:
        """The model of a `purify.toml`, read and checked now; its models are loaded when first needed."""
        config = read_config(path)
        return cls(lambda: build(config, Purifier), **options)

    @classmethod
    def class_name(cls) -> str:
        return "PurifiedLLM"

    # Parsing and running a call

    def _request(
        self, prompt: Prompt, options: dict[str, Any], reader: Callable[[], Parser] = PlainParser
    ) -> LlmRequest:
        """Parse one call. Raises UnknownNameError for an unknown option."""
        refuse_unknown("option of a purified call", options, PER_CALL)
        return LlmRequest(
            prompt,
            self._sampling(options),
            self.metadata.model_name,
            self.purifier.vocabulary,
            reader,
            logprobs=options.get("logprobs", self.logprobs),
            certificate=options.get("certificate", self.certificate),
            whole=options.get("whole", False),
            tool_required=options.get("tool_required", False),
            user=options.get("user"),
        )

    def _completion(self, prompt: str, formatted: bool, options: dict[str, Any]) -> LlmRequest:
        shape = self.completion_to_prompt
        return self._request(prompt if formatted or shape is None else shape(prompt), options)

    def _conversation(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> LlmRequest:
        shape, tools = self.messages_to_prompt, options.get("tools") or ()
        if shape not in (None, generic) and not tools:
            return self._request(shape(messages), options)
        choice = options.get("tool_choice") or ("any" if options.get("tool_required") else None)
        format = "auto" if self.tool_format == "none" else self.tool_format
        chat = [rendered(message) for message in messages]
        tool_request = ToolRequest.of(self.purifier, chat, tools, choice, format=format)
        held = {**options, "grammar": tool_request.grammar or options.get("grammar")}
        return self._request(tool_request.chat, held, tool_request.parser)

    def _answer(self, request: LlmRequest) -> Completion:
        with asked_by(vars(request)), citing(quoted(text_of(request.prompt), retrieved())):
            return self.purifier.generate([request.prompt], request.sampling, errors="raise")[0]

    async def _aanswer(self, request: LlmRequest) -> Completion:
        with asked_by(vars(request)), citing(quoted(text_of(request.prompt), retrieved())):
            return (await self.purifier.agenerate([request.prompt], request.sampling, errors="raise"))[0]

    def _stream(self, request: LlmRequest, take: Callable[[Chunk], T | None]) -> Iterator[T]:
        """Stream the answer; quoted documents are noted before the first chunk."""
        with asked_by(vars(request)), citing(quoted(text_of(request.prompt), retrieved())):
            return _taken(self.purifier.stream(request.prompt, request.sampling), take)

    def _astream(self, request: LlmRequest, take: Callable[[Chunk], T | None]) -> AsyncIterator[T]:
        with asked_by(vars(request)), citing(quoted(text_of(request.prompt), retrieved())):
            return _ataken(self.purifier.astream(request.prompt, request.sampling), take)

    # LlamaIndex's four methods, and their async versions

    @_completes
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a text; keyword arguments override the sampling options."""
        request = self._completion(prompt, formatted, kwargs)
        return request.completed(self._answer(request))

    @_completes
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer in chunks; the last one has the usage and the certificate's facts."""
        request = self._completion(prompt, formatted, kwargs)
        return cast("CompletionResponseGen", self._stream(request, CompletionPieces(request).take))

    @_chats
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation, rendered with each model's own chat template."""
        request = self._conversation(messages, kwargs)
        return _answered(request, self._answer(request))

    @_chats
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer in chunks; the last one has the tool calls, the usage and the certificate's facts."""
        request = self._conversation(messages, kwargs)
        return cast("ChatResponseGen", self._stream(request, ChatPieces(request).take))

    @_completes
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete` without blocking the event loop."""
        await self._loaded()
        request = self._completion(prompt, formatted, kwargs)
        return request.completed(await self._aanswer(request))

    @_completes
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """`stream_complete` without blocking the event loop."""
        await self._loaded()
        request = self._completion(prompt, formatted, kwargs)
        return cast("CompletionResponseAsyncGen", self._astream(request, CompletionPieces(request).take))

    @_chats
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat` without blocking the event loop."""
        await self._loaded()
        request = self._conversation(messages, kwargs)
        return _answered(request, await self._aanswer(request))

    @_chats
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat` without blocking the event loop."""
        await self._loaded()
        request = self._conversation(messages, kwargs)
        return cast("ChatResponseAsyncGen", self._astream(request, ChatPieces(request).take))


def _answered(request: LlmRequest, completion: Completion) -> ChatResponse:
    return request.answered(completion, parts_of(request.reader(), completion, request.vocabulary))


def _taken(chunks: Any, take: Callable[[Chunk], T | None]) -> Iterator[T]:
    """The items that `take` makes of the chunks; closing the iterator frees the models."""
    try:
        yield from (piece for chunk in chunks if (piece := take(chunk)) is not None)
    finally:
        chunks.close()


async def _ataken(chunks: Any, take: Callable[[Chunk], T | None]) -> AsyncIterator[T]:
    try:
        async for chunk in chunks:
            if (piece := take(chunk)) is not None:
                yield piece
    finally:
        await chunks.aclose()
