"""One call of the chat model: its options parsed, and its answer as LangChain's messages or chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from purify_adapters.langchain.messages import chunk_of, message_of, rendered
from purify_adapters.langchain.response_metadata import logprobs, metadata, usage
from purify_adapters.langchain.retrievals import cited_in
from purify_adapters.tool_calls import CallPart, ChunkParser, Tool, ToolRequest, parts_of
from purify_plugins.errors import ConfigError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chunk, Completion, DrawnToken


@dataclass(frozen=True)
class ChatCall:
    """One parsed call: the purifier, the prompt with its tools, the sampling, and what to report."""

    purifier: Purifier
    model_name: str
    request: ToolRequest
    sampling: Sampling
    logprobs: bool = False
    certificate: bool = False
    messages: Sequence[BaseMessage] = ()

    def cited(self, run: UUID | None) -> dict[str, str]:
        """The documents, by id, that the prompt quotes; `run` is the run that calls the model."""
        return cited_in(self.request.chat, self.messages, run)

    def result(self, completion: Completion) -> ChatResult:
        """The whole answer as a ChatResult."""
        pieces = parts_of(self.request.parser(), completion, self.purifier.vocabulary)
        called = any(isinstance(piece, CallPart) for piece in pieces)
        about = metadata(completion, self.model_name, self.certificate, called)
        if self.logprobs:
            about["logprobs"] = self.likely(completion.drawn)
        message = message_of(pieces, response_metadata=about, usage_metadata=usage(completion))
        return ChatResult(
            generations=[ChatGeneration(message=message)], llm_output={"model_name": self.model_name}
        )

    def likely(self, drawn: Sequence[DrawnToken]) -> dict[str, Any]:
        """OpenAI's `logprobs`."""
        return {"content": logprobs(drawn, self.purifier)}


class ChatStream:
    """Turns the chunks of one answer into LangChain's."""

    def __init__(self, call: ChatCall) -> None:
        self.call = call
        self.reading = ChunkParser(call.request.parser(), call.purifier.vocabulary)

    def take(self, chunk: Chunk) -> list[ChatGenerationChunk]:
        """LangChain's chunks for one of the purifier's; the last one has the metadata and usage."""
        parts = [chunk_of(piece) for piece in self.reading.take(chunk)]
        if self.call.logprobs and chunk.drawn:
            parts = parts or [AIMessageChunk(content="")]
            parts[0].response_metadata = {"logprobs": self.call.likely(chunk.drawn)}
        if chunk.completion:
            parts.append(self._last(chunk.completion))
        return [ChatGenerationChunk(message=part) for part in parts]

    def _last(self, completion: Completion) -> AIMessageChunk:
        call = self.call
        about = metadata(completion, call.model_name, call.certificate, self.reading.called)
        return AIMessageChunk(
            content="",
            chunk_position="last",
            response_metadata=about,
            usage_metadata=usage(completion),
        )


# Parsing a call


def tool_of(tool: Any) -> Tool:
    """A tool in the form chat templates read. Raises ConfigError for one that only a provider runs."""
    found = convert_to_openai_tool(tool)
    if "function" not in found:
        raise ConfigError(f"the tool {found.get('type')!r} is run by a provider, and models here have none")
    return found


def schema_of(response_format: Any) -> dict[str, Any] | None:
    """The schema in OpenAI's `response_format`; None for text."""
    kind = (response_format or {"type": "text"}).get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        return dict(response_format["json_schema"]["schema"])
    raise ConfigError(f"response_format must be of type 'json_schema', 'json_object' or 'text', not {kind!r}")


def tool_request(
    purifier: Purifier, messages: Sequence[BaseMessage], format: str, given: Mapping[str, Any]
) -> ToolRequest:
    """The request of a call with tools, a tool choice or a response format."""
    chat = [rendered(message) for message in messages]
    tools = [tool_of(tool) for tool in given.get("tools") or ()]
    schema = schema_of(given.get("response_format"))
    found = ToolRequest.of(purifier, chat, tools, given.get("tool_choice"), schema, format)
    return found.single() if given.get("parallel_tool_calls") is False else found
