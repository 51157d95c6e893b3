"""huggingface_hub's requests as prompts and sampling options, and completions as its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purify_adapters.framework_options import SAMPLING
from purify_adapters.openai_schema import TGI_FINISH_REASONS, finish_reason, usage
from purify_plugins.errors import ConfigError
from purify_plugins.grammar import Grammar
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chat, Prompt

if TYPE_CHECKING:
    from purify_plugins.types import Chunk, Completion, Token

DRAWN = tuple(name for name in SAMPLING if name not in ("max_tokens", "stop", "ignore_eos", "grammar"))
"""Options with the same name in `Sampling`."""


class HubRequest:
    """One request: its `prompt`, its sampling options, and whether it streams.

    Options that are not given are the configuration's. Raises ConfigError for unsupported options.
    """

    method: str
    taken: Sequence[str]
    prompt: Prompt

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = {name: value for name, value in options.items() if value not in (None, False, [])}
        for name, value in self.options.items():
            if name not in (*DRAWN, *self.taken):
                raise ConfigError(
                    f"a purified {self.method} does not do {name}={value!r}; it does "
                    f"{', '.join(sorted((*DRAWN, *self.taken)))}"
                )
        self.stream = bool(self.options.get("stream"))

    def sampling(self, base: Sampling) -> Sampling:
        """The configuration's sampling, overridden by the request's options."""
        given = {name: self.options[name] for name in DRAWN if name in self.options}
        return replace(base, **{**given, **self._own()})

    def _own(self) -> dict[str, Any]:
        """The fields of Sampling that have another name here."""
        raise NotImplementedError

    def answer(self, completion: Completion) -> Any:
        """The return value of the call."""
        raise NotImplementedError

    def pieces(self, chunk: Chunk) -> Iterator[Any]:
        """The items that a stream yields for one chunk."""
        raise NotImplementedError


class HubTextRequest(HubRequest):
    """`text_generation`."""

    method = "text_generation"
    taken = (
        *("stream", "details", "do_sample", "max_new_tokens", "stop", "stop_sequences", "return_full_text"),
        "grammar",
    )

    def __init__(self, prompt: str, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.prompt: str = prompt
        self.greedy = options.get("do_sample") is False
        self.so_far = ""

    def _own(self) -> dict[str, Any]:
        options = self.options
        own: dict[str, Any] = {"temperature": 0.0} if self.greedy else {}
        if "max_new_tokens" in options:
            own["max_tokens"] = options["max_new_tokens"]
        if stop := options.get("stop") or options.get("stop_sequences"):
            own["stop"] = tuple(stop)
        if "grammar" in options:
            own["grammar"] = _grammar(_plain(options["grammar"]))
        return own

    def answer(self, completion: Completion) -> Any:
        from huggingface_hub import TextGenerationOutput

        before = self.prompt if "return_full_text" in self.options else ""
        if "details" not in self.options:
            return before + completion.text
        tokens = [_token(token, "") for token in completion.steps]
        details = {**_details(completion), "prefill": [], "tokens": tokens}
        return TextGenerationOutput.parse_obj_as_instance(
            {"generated_text": before + completion.text, "details": details}
        )

    def pieces(self, chunk: Chunk) -> Iterator[Any]:
        self.so_far += chunk.text
        if "details" in self.options:
            yield self._detailed(chunk)
        elif chunk.text:
            yield chunk.text

    def _detailed(self, chunk: Chunk) -> Any:
        from huggingface_hub import TextGenerationStreamOutput

        drawn = chunk.steps and all(piece.token for piece in chunk.pieces)
        token = _token(chunk.steps[-1], chunk.text) if drawn else _no_token(chunk.text)
        ending = chunk.completion and {
            "generated_text": self.so_far,
            "details": {**_details(chunk.completion), "input_length": 0},
        }
        return TextGenerationStreamOutput.parse_obj_as_instance(
            {"index": 0, "token": token, **(ending or {})}
        )


class HubChatRequest(HubRequest):
    """`chat_completion`."""

    method = "chat_completion"
    taken = ("stream", "stream_options", "max_tokens", "stop", "response_format")

    def __init__(self, messages: Sequence[Any], options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.prompt = Chat(tuple(_plain(message) for message in messages))

    def _own(self) -> dict[str, Any]:
        options = self.options
        own: dict[str, Any] = {"max_tokens": options["max_tokens"]} if "max_tokens" in options else {}
        if "stop" in options:
            own["stop"] = tuple(options["stop"])
        if "response_format" in options:
            own["grammar"] = _grammar(_plain(options["response_format"]))
        return own

    def answer(self, completion: Completion) -> Any:
        from huggingface_hub import ChatCompletionOutput

        message = {"role": "assistant", "content": completion.text}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(completion)}
        return ChatCompletionOutput.parse_obj_as_instance(
            {**_head(), "choices": [choice], "usage": usage(0, len(completion.tokens))}
        )

    def pieces(self, chunk: Chunk) -> Iterator[Any]:
        from huggingface_hub import ChatCompletionStreamOutput

        ended = chunk.completion and finish_reason(chunk.completion)
        choice = {"index": 0, "delta": {"role": "assistant", "content": chunk.text}, "finish_reason": ended}
        counted = chunk.completion if "stream_options" in self.options else None
        yield ChatCompletionStreamOutput.parse_obj_as_instance(
            {**_head(), "choices": [choice], "usage": counted and usage(0, len(counted.tokens))}
        )


HUB_REQUESTS: Mapping[str, Callable[[Any, Mapping[str, Any]], HubRequest]] = {
    "text_generation": HubTextRequest,
    "chat_completion": HubChatRequest,
}
"""A client's method -> its kind of request."""


def _plain(thing: Any) -> dict[str, Any]:
    """A mapping, or one of huggingface_hub's dataclasses, as a dictionary."""
    return {key: value for key, value in dict(thing).items() if value is not None}


def _grammar(options: Mapping[str, Any]) -> Grammar:
    """The grammar of TGI's `grammar` or of `response_format`. Raises ConfigError."""
    match options:
        case {"type": "regex", "value": str(text)}:
            return Grammar("regex", text)
        case {
            "type": "json" | "json_object" | "json_schema",
            "value": {"schema": dict(schema)} | dict(schema),
        }:
            return Grammar.json_schema(schema)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return Grammar.json_schema(schema)
        case {"type": "json_object"}:
            return Grammar.json_schema({"type": "object"})
    raise ConfigError(f"a grammar of type {options.get('type')!r} is not known; use 'json' or 'regex'")


def _token(token: Token, text: str) -> dict[str, Any]:
    return {"id": token.id, "logprob": token.fused, "special": False, "text": text}


def _no_token(text: str) -> dict[str, Any]:
    """A chunk of text that was held back in case a stop string began there, or an operator's."""
    return {"id": 0, "logprob": 0.0, "special": not text, "text": text}


def _details(completion: Completion) -> dict[str, Any]:
    return {
        "finish_reason": TGI_FINISH_REASONS[completion.finish_reason],
        "generated_tokens": len(completion.tokens),
    }


def _head() -> dict[str, Any]:
    return {
        "id": "",
        "created": int(time.time()),
        "model": "purified",
        "system_fingerprint": "purify-plugins",
    }
