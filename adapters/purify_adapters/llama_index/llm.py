"""The language model that LlamaIndex sees: two models and a policy behind one face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from anyio import to_thread
from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.types import PydanticProgramMode

from purify_adapters.llama_index.lazily import Lazily
from purify_adapters.llama_index.messages import OPEN, conversation, selections, text_of
from purify_adapters.llama_index.options import DRAWN, PER_CALL, check, constrained, redrawn
from purify_adapters.llama_index.responses import ChatPieces, CompletionPieces, Request
from purify_adapters.llama_index.retrieved import listen, quoted
from purify_plugins.certificate import citing
from purify_plugins.config import build, read_config
from purify_plugins.errors import ConfigError, SourceError
from purify_plugins.purifier import Purifier
from purify_plugins.types import Sampling

if TYPE_CHECKING:
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.tools.types import BaseTool

    from purify_plugins.types import Chunk, Completion, Prompt

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _completes(method: F) -> F:
    """LlamaIndex's events and callbacks around a method that completes a text."""
    return cast("F", llm_completion_callback()(method))


def _chats(method: F) -> F:
    """LlamaIndex's events and callbacks around a method that answers a conversation."""
    return cast("F", llm_chat_callback()(method))


class PurifiedLLM(FunctionCallingLLM):
    """A purified language model for LlamaIndex.

    Give it a `Purifier`, or `llm`, `slm` and `policy` as `Purifier.load` takes them (a policy with
    options is a mapping with a `name`); models given that way are loaded when they are first needed.
    Sampling options (`max_tokens`, `temperature`, …) are the defaults of every call, and a call may
    override each; none switches purification off. Raises UnknownNameError for any other option.

    >>> Settings.llm = PurifiedLLM(llm="big-llm", slm="small-slm", max_tokens=200)
    """

    drawn: dict[str, Any] = Field({}, description="Sampling options that differ from the purifier's own.")
    logprobs: bool = Field(False, description="Whether responses carry each token's log-probability.")
    certificate: bool = Field(
        False, description="Whether `raw` carries the certificate, not its digest alone."
    )
    chat_model: bool | None = Field(None, description="Whether to be asked in messages; None: found out.")
    tool_format: Literal["auto", "tags", "none"] = Field(
        "auto", description="auto: as both chat templates describe tools; tags: in words; none: not at all."
    )
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM

    _purifier: Lazily[Purifier] = PrivateAttr()
    _metadata: Lazily[LLMMetadata] = PrivateAttr()

    def __init__(
        self,
        purifier: Purifier | Callable[[], Purifier] | None = None,
        *,
        llm: Any = None,
        slm: Any = None,
        policy: Any = "balanced",
        **options: Any,
    ) -> None:
        known = type(self).model_fields.keys() - {"drawn"}
        check("option of PurifiedLLM", options, DRAWN | known)
        drawn = {name: options.pop(name) for name in DRAWN & options.keys()}
        redrawn(Sampling(), drawn)  # refused now rather than with the first call
        super().__init__(drawn=drawn, **options)
        self._purifier = Lazily(_maker(purifier, llm, slm, policy))
        self._metadata = Lazily(self._found)
        listen()

    @classmethod
    def from_config(cls, path: str | Path | None = None, **options: Any) -> Self:
        """Be what `purify.toml` describes: read and checked now, its models loaded when first needed."""
        config = read_config(path)
        return cls(lambda: build(config, Purifier), **options)

    @classmethod
    def class_name(cls) -> str:
        return "PurifiedLLM"

    @property
    def purifier(self) -> Purifier:
        """The purifier; its models are loaded if they are not yet."""
        return self._purifier()

    # What LlamaIndex asks about it

    @property
    def metadata(self) -> LLMMetadata:
        """What the two models can do together; loads them when first asked."""
        return self._metadata()

    def _found(self) -> LLMMetadata:
        llm, slm = self.purifier.llm, self.purifier.slm
        lengths = [length for length in (llm.context_length, slm.context_length) if length]
        templates = [_template(llm), _template(slm)]
        return LLMMetadata(
            context_window=min(lengths, default=DEFAULT_CONTEXT_WINDOW),
            num_output=self._sampling().max_tokens,
            is_chat_model=all(templates) if self.chat_model is None else self.chat_model,
            is_function_calling_model=self._told or (self.tool_format == "auto" and _know_tools(templates)),
            model_name=f"{llm.identity()['name']} purified by {slm.identity()['name']}",
        )

    @property
    def _told(self) -> bool:
        """Whether tools are described in words."""
        return self.tool_format == "tags"

    def to_payload(self) -> dict[str, Any]:
        """What events say of it: never anything secret, and never a reason to load a model."""
        known = self._metadata().model_dump() if self._metadata.made else {}
        return {"class_name": self.class_name(), **known}

    def tokenizer(self, text: str) -> list[int]:
        """The SLM's tokens of a text: `Settings.tokenizer = llm.tokenizer` makes every count right."""
        tokenizer = _tokenizer(self.purifier.slm)
        if tokenizer is None:
            raise ConfigError("this SLM has no tokenizer to count with; give Settings.tokenizer another")
        return list(tokenizer(text)["input_ids"])

    # From a call to a request, from a request to chunks

    def _sampling(self, options: dict[str, Any] | None = None) -> Sampling:
        return redrawn(self.purifier.sampling, {**self.drawn, **(options or {})})

    def _request(self, prompt: Prompt, options: dict[str, Any]) -> Request:
        """What one call asks for; raises UnknownNameError for an option there is not."""
        check("option of a purified call", options, PER_CALL)
        return Request(
            prompt,
            self._sampling(options),
            self.metadata.model_name,
            self.purifier.vocabulary,
            logprobs=options.get("logprobs", self.logprobs),
            certificate=options.get("certificate", self.certificate),
            tools=bool(options.get("tools")),
            tool_required=options.get("tool_required", False),
        )

    def _completion(self, prompt: str, formatted: bool, options: dict[str, Any]) -> Request:
        shape = self.completion_to_prompt
        return self._request(prompt if formatted or shape is None else shape(prompt), options)

    def _conversation(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> Request:
        shape, tools = self.messages_to_prompt, options.get("tools") or ()
        if shape is None or shape is generic or tools:
            return self._request(conversation(messages, tools, self._told), options)
        return self._request(shape(messages), options)

    def _answer(self, request: Request) -> Completion:
        with citing(quoted(text_of(request.prompt))):
            return self.purifier.generate([request.prompt], request.sampling)[0]

    async def _aanswer(self, request: Request) -> Completion:
        with citing(quoted(text_of(request.prompt))):
            return (await self.purifier.agenerate([request.prompt], request.sampling))[0]

    def _stream(self, request: Request, take: Callable[[Chunk], T | None]) -> Iterator[T]:
        """The answer's pieces; what it quotes is noted before the first of them."""
        with citing(quoted(text_of(request.prompt))):
            return _taken(self.purifier.stream(request.prompt, request.sampling), take)

    def _astream(self, request: Request, take: Callable[[Chunk], T | None]) -> AsyncIterator[T]:
        with citing(quoted(text_of(request.prompt))):
            return _ataken(self.purifier.astream(request.prompt, request.sampling), take)

    async def _loaded(self) -> None:
        """Have the models loaded on another thread."""
        if not self._metadata.made:
            await to_thread.run_sync(self._metadata)

    # The four ways to ask, and the same without blocking the event loop

    @_completes
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a text; keyword arguments override the sampling options."""
        request = self._completion(prompt, formatted, kwargs)
        return request.completed(self._answer(request))

    @_completes
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer in pieces; the last has its usage and its proof."""
        request = self._completion(prompt, formatted, kwargs)
        return cast("CompletionResponseGen", self._stream(request, CompletionPieces(request).take))

    @_chats
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation, which each model renders with its own template."""
        request = self._conversation(messages, kwargs)
        return request.answered(self._answer(request))

    @_chats
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer in pieces; the last has its tool calls, its usage and its proof."""
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
        return request.answered(await self._aanswer(request))

    @_chats
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat` without blocking the event loop."""
        await self._loaded()
        request = self._conversation(messages, kwargs)
        return cast("ChatResponseAsyncGen", self._astream(request, ChatPieces(request).take))

    # Tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `chat` for a conversation with tools. Raises ConfigError without a format."""
        if tools and not self.metadata.is_function_calling_model:
            raise ConfigError(
                "these models' chat templates do not say how to call a tool; "
                "set tool_format='tags' to have the tools described in words"
            )
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        described = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        return {"messages": messages, "tools": described, "tool_required": tool_required, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """The response, with its first tool call alone unless several are welcome."""
        if not allow_parallel_tool_calls:
            calls = [block for block in response.message.blocks if block.block_type == "tool_call"]
            response.message.blocks = [each for each in response.message.blocks if each not in calls[1:]]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tools an answer calls; raises SourceError if there are none and one is needed."""
        found = selections(response.message)
        if error_on_no_tool_call and not found:
            raise SourceError("the answer calls no tool; ask again, or describe the tools more plainly")
        return found

    # Structured output: asked for in the prompt and checked; held to the schema where the core can

    def structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        """An `output_cls` made of the answer; raises ValueError for an answer that is none."""
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


def _maker(purifier: Any, llm: Any, slm: Any, policy: Any) -> Callable[[], Purifier]:
    """What makes the purifier; raises ConfigError unless it is given either way."""
    if purifier is not None and llm is None and slm is None:
        return purifier if callable(purifier) else lambda: cast("Purifier", purifier)
    if purifier is not None or llm is None or slm is None:
        raise ConfigError("PurifiedLLM takes either a purifier, or an llm and an slm")
    return lambda: Purifier.load(llm, slm, policy)


def _held(output_cls: Any, llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    return {**constrained(output_cls.model_json_schema()), **(llm_kwargs or {})}


def _taken(chunks: Any, take: Callable[[Chunk], T | None]) -> Iterator[T]:
    """What `take` makes of the chunks; leaving early frees the models at once."""
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


def _tokenizer(source: Any) -> Any:
    """The tokenizer behind a source, under whatever wraps it; None if it shows none."""
    while (inner := getattr(source, "source", None)) is not None:
        source = inner
    return getattr(source, "tokenizer", None)


def _template(source: Any) -> str:
    """The chat template behind a source; empty if there is none."""
    return str(getattr(_tokenizer(source), "chat_template", None) or "")


def _know_tools(templates: Sequence[str]) -> bool:
    """Whether every chat template describes tools, and has them called in tags."""
    return all("tools" in template and OPEN in template for template in templates)
