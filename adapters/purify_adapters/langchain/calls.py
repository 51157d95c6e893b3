"""One call of a chat model: what it asks for, and its answer in LangChain's terms, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from purify_adapters.langchain.messages import chunk_of, message_of
from purify_adapters.langchain.models import logprobs, metadata, usage
from purify_adapters.tools import CallPiece, Piece, Plain, Reader, Speech, Tool, closed, marked, merged
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.purifier import Purifier
from purify_plugins.types import Chat, Chunk, Completion, Grammar, Sampling


@dataclass(frozen=True)
class Call:
    """One call, understood: what is asked of which pair, and what its reader wants to know."""

    purifier: Purifier
    model_name: str
    chat: Chat
    sampling: Sampling
    reader: Callable[[], Reader]
    logprobs: bool = False
    certificate: bool = False

    def result(self, completion: Completion) -> ChatResult:
        """A whole answer."""
        reader = self.reader()
        text = marked(completion.tokens, completion.text, self.purifier.vocabulary)
        pieces = [*reader.feed(text), *reader.close()]
        about = self.about(completion, any(isinstance(piece, CallPiece) for piece in pieces))
        if self.logprobs:
            about["logprobs"] = self.likely(completion.steps)
        message = message_of(pieces, response_metadata=about, usage_metadata=usage(completion))
        return ChatResult(
            generations=[ChatGeneration(message=message)], llm_output={"model_name": self.model_name}
        )

    def about(self, completion: Completion, called: bool) -> dict[str, Any]:
        """An answer's metadata."""
        found = metadata(completion, self.model_name, self.certificate)
        if called and completion.finish_reason != "length":
            found["finish_reason"] = "tool_calls"
        return found

    def likely(self, steps: Sequence[Any]) -> dict[str, Any]:
        """OpenAI's `logprobs`."""
        return {"content": logprobs(steps, self.purifier.vocabulary)}


class Stream:
    """One answer while it is written."""

    def __init__(self, call: Call) -> None:
        self.call, self.reader = call, call.reader()
        self.called = False

    def take(self, chunk: Chunk) -> list[ChatGenerationChunk]:
        """What a piece of the core's stream is in LangChain's; the last part says all about the answer."""
        parts = [chunk_of(piece) for piece in self._pieces(chunk)]
        if self.call.logprobs and chunk.steps:
            parts = parts or [AIMessageChunk(content="")]
            parts[0].response_metadata = {"logprobs": self.call.likely(chunk.steps)}
        if chunk.completion:
            parts.append(self._last(chunk.completion))
        return [ChatGenerationChunk(message=part) for part in parts]

    def _pieces(self, chunk: Chunk) -> list[Piece]:
        text = marked([step.id for step in chunk.steps], chunk.text, self.call.purifier.vocabulary)
        pieces = self.reader.feed(text) if text else []
        if chunk.completion:
            pieces += self.reader.close()
        self.called |= any(isinstance(piece, CallPiece) for piece in pieces)
        return pieces

    def _last(self, completion: Completion) -> AIMessageChunk:
        return AIMessageChunk(
            content="",
            chunk_position="last",
            response_metadata=self.call.about(completion, self.called),
            usage_metadata=usage(completion),
        )


# What is asked for


def tool_of(tool: Any) -> Tool:
    """A tool in the form chat templates read. Raises ConfigError for one that only a provider runs."""
    found = convert_to_openai_tool(tool)
    if "function" not in found:
        raise ConfigError(f"the tool {found.get('type')!r} is run by a provider, and models here have none")
    return found


def choice_of(choice: Any, tools: Sequence[Tool]) -> str | None:
    """A tool choice as "any", "none", a tool's name, or None where the model decides."""
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name", choice.get("type"))
    if choice in (None, False, "auto"):
        return None
    if choice in (True, "any", "required"):
        return "any"
    names = [tool["function"]["name"] for tool in tools]
    if choice != "none" and choice not in names:
        raise UnknownNameError("tool", str(choice), [*names, "auto", "any", "none"])
    return str(choice)


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


def json_answer(schema: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar of answers under a schema."""
    return None if schema is None else Grammar.json_schema(closed(schema))


@dataclass(frozen=True)
class Spoken:
    """A conversation as a pair reads it, what its answer must look like, and what reads that."""

    chat: Chat
    grammar: Grammar | None
    reader: Callable[[], Reader] = Plain

    @classmethod
    def of(
        cls, purifier: Purifier, said: Sequence[dict[str, Any]], format: str, given: Mapping[str, Any]
    ) -> Spoken:
        """What a call with tools, a tool choice or a response format comes to."""
        schema = schema_of(given.get("response_format"))
        offered = [tool_of(tool) for tool in given.get("tools") or ()]
        choice = choice_of(given.get("tool_choice"), offered) if offered else None
        tools = [] if choice == "none" else offered
        if not tools and not any(message["role"] == "tool" or "tool_calls" in message for message in said):
            return cls(Chat(merged(said)), json_answer(schema))
        speech = Speech.of(purifier, format)
        chat = speech.chat(said, tools)
        if not tools:
            return cls(chat, json_answer(schema))
        chosen = [tool for tool in tools if choice in (None, "any", tool["function"]["name"])]
        constrained = choice is not None or schema is not None
        answer = schema if choice is None else None
        grammar = speech.grammar(chosen, purifier.vocabulary, answer) if constrained else None
        return cls(chat, grammar, lambda: speech.reader(purifier, chat))
