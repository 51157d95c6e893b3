"""Tools in a pair's prompts: through the chat templates where they support tools, else as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from purify_adapters.tool_calls.call_parser import CallParser
from purify_adapters.tool_calls.grammars import closed, literal
from purify_adapters.tool_calls.parts import Message, Parser, PlainParser, Tool
from purify_adapters.tool_calls.reasoning_parser import MARKS, ReasoningParser
from purify_adapters.tool_calls.template_parser import TemplateParser
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.grammar import Grammar, json_rule
from purify_plugins.protocols import LogitSource
from purify_plugins.purifier import Purifier
from purify_plugins.types import Chat, ToolFormat, Vocabulary


def template_of(source: LogitSource) -> str:
    """A source's chat template, all its variants; empty if it has none, or none in this process."""
    found = getattr(source.inner.tokenizer, "chat_template", None) or ""
    return "\n".join(found.values()) if isinstance(found, dict) else str(found)


@dataclass(frozen=True)
class ToolProtocol:
    """How tools are put into a pair's prompts, and the format of the calls in its answers.

    `native`: both chat templates render tools themselves, in this format; otherwise tools, calls and
    results are put into the text of the messages. `known`: `format` is the format these models write, so that
    a grammar can force a call; otherwise only the tokenizer's own parser can parse their calls.
    """

    format: ToolFormat
    native: bool
    tokenizer: Any = None
    known: bool = True

    @classmethod
    def for_pair(cls, purifier: Purifier, name: str = "auto") -> ToolProtocol:
        """The pair's own protocol, or that of the format `name`. Raises ConfigError if it is unknown."""
        offers = {key: offer() for key, offer in purifier.plugins.offers("purify_tool_formats").items()}
        if name not in ("auto", *offers):
            raise UnknownNameError("tool format", name, offers)
        named, formats = name != "auto", offers if name == "auto" else {name: offers[name]}
        default = formats.get("hermes", next(iter(formats.values())))
        if not _renders_tools(purifier):
            return cls(default, native=False)
        ours, tokenizer = template_of(purifier.slm), purifier.slm.inner.tokenizer
        templates = [each for each in (ours, template_of(purifier.llm)) if each]
        signed = [each for each in formats.values() if all(re.search(each.sign, text) for text in templates)]
        if signed or named or _own_parser(tokenizer):
            return cls(signed[0] if signed else default, True, tokenizer, bool(signed) or named)
        if not any(re.search(each.sign, ours) for each in formats.values()):
            raise _unknown(purifier, offers)
        return cls(default, native=False)

    def chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Chat:
        """The conversation with tools, for this pair."""
        if self.native:
            return Chat(merge_roles(messages), tuple(tools))
        listed = [{"role": "system", "content": self._tool_list(tools)}] if tools else []
        shown = [self._as_text(message) for message in messages]
        first = [message for message in shown[:1] if message["role"] == "system"]
        return Chat(merge_roles([*first, *listed, *shown[len(first) :]]))

    def _tool_list(self, tools: Sequence[Tool]) -> str:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        shape = self.write("<name>", "<arguments as JSON>").replace('"<arguments as JSON>"', "<arguments>")
        return f"You can call these tools:\n{listed}\n\nTo call one, write\n{shape}\nand nothing else."

    def write(self, name: str, arguments: Any) -> str:
        """A call in the format of the model."""
        if self.format.named is not None:
            body = json.dumps(arguments, ensure_ascii=False)
            return f"{self.format.begin}{name}{self.format.named}{body}{self.format.end}"
        body = json.dumps({"name": name, self.format.arguments: arguments}, ensure_ascii=False)
        return f"{self.format.begin}{f'[{body}]' if self.format.listed else body}{self.format.end}"

    def _as_text(self, message: Message) -> Message:
        """The message with its calls and results as text."""
        if message["role"] == "tool":
            return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
        calls = [
            self.write(call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", ())
        ]
        text = "\n".join(part for part in (message["content"], *calls) if part)
        return {"role": message["role"], "content": text}

    def parser(self, purifier: Purifier, chat: Chat, tools: Sequence[Tool]) -> Parser:
        """The parser of the answer to `chat`, in which `tools` may be called. Raises ConfigError."""
        if _own_parser(self.tokenizer):
            prompt = _prompt(purifier, chat)
            offered = [dict(tool) for tool in chat.tools]
            try:
                return TemplateParser(self.tokenizer.get_response_parser(prefix=prompt, tools=offered))
            except Exception as error:  # a response template is third-party code and can raise anything
                raise ConfigError(
                    f"the response template of this tokenizer cannot be used: {error}"
                ) from error
        names = [tool["function"]["name"] for tool in tools]
        return ReasoningParser(CallParser(self.format, names), _open_mark(purifier, chat))

    def grammar(
        self, tools: Sequence[Tool], vocabulary: Vocabulary, answer: Mapping[str, Any] | None = None
    ) -> Grammar:
        """The grammar of one call of one tool, or of JSON under the schema `answer`. Raises ConfigError."""
        if not self.known:
            raise ConfigError(
                "no format that is known describes the calls of these models, so that none can be forced; "
                "set tool_format, or let the model choose"
            )
        choices = [*(f"call{at}" for at in range(len(tools))), *(["answer"] if answer is not None else [])]
        rules = [f"start: {' | '.join(choices)}"]
        for at, tool in enumerate(tools):
            rules += self._rules(at, tool["function"], vocabulary)
        rules += [f"answer: {json_rule(closed(answer))}"] if answer is not None else []
        return Grammar("lark", "\n".join(rules))

    def _rules(self, at: int, function: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
        """The rules of one tool's call, its arguments under its schema."""
        first, last = literal(self.format.begin, vocabulary), literal(self.format.end, vocabulary)
        schema = closed(function.get("parameters") or {"type": "object", "properties": {}})
        head, tail = self._around(function["name"], vocabulary)
        return [f"call{at}: {first} {head} args{at} {tail} {last}", f"args{at}: {json_rule(schema)}"]

    def _around(self, name: str, vocabulary: Vocabulary) -> tuple[str, str]:
        """The Lark terminals before and after the arguments of a call."""
        if self.format.named is not None:
            return f"{literal(name)} {literal(self.format.named, vocabulary)}", ""
        left, right = ("[", "]") if self.format.listed else ("", "")
        quoted = json.dumps(name, ensure_ascii=False)
        return literal(f'{left}{{"name": {quoted}, "{self.format.arguments}": '), literal("}" + right)


def text_parser(purifier: Purifier, chat: Chat) -> Parser:
    """The parser of the answer to `chat` without tools: text, and reasoning if these models mark it."""
    shown = template_of(purifier.slm) + template_of(purifier.llm)
    thinks = any(mark in shown for mark, _ in MARKS)
    return ReasoningParser(PlainParser(), _open_mark(purifier, chat)) if thinks else PlainParser()


def _open_mark(purifier: Purifier, chat: Chat) -> str:
    """The reasoning mark that the prompt ends with; empty if there is none."""
    known = [mark for mark, _ in MARKS if mark in template_of(purifier.slm)]
    prompt = _prompt(purifier, chat).rstrip() if known else ""
    return next((mark for mark in known if prompt.endswith(mark)), "")


def _prompt(purifier: Purifier, chat: Chat) -> str:
    """The prompt's text, rendered by the SLM's chat template."""
    return str(purifier.slm.inner.tokenizer.decode(purifier.slm.inner.encode(chat)))


def _renders_tools(purifier: Purifier) -> bool:
    """Whether both chat templates render tools; a remote model's template is assumed to."""
    remote = purifier.llm.inner.tokenizer is None
    return "tools" in template_of(purifier.slm) and (remote or "tools" in template_of(purifier.llm))


def _own_parser(tokenizer: Any) -> bool:
    """Whether the tokenizer comes with a parser of answers."""
    return bool(getattr(tokenizer, "response_template", None) and hasattr(tokenizer, "get_response_parser"))


def _unknown(purifier: Purifier, offers: Mapping[str, ToolFormat]) -> ConfigError:
    return ConfigError(
        f"the chat template of {purifier.slm.identity()['name']!r} writes tool calls in an unknown way; set "
        f"tool_format to one of {', '.join(offers)}, or offer its format through purify_tool_formats"
    )


def merge_roles(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with runs of one role merged: many chat templates refuse two in a row."""
    found: list[dict[str, Any]] = []
    for message in messages:
        last = found[-1] if found else {}
        if last.get("role") == message["role"] != "tool":
            calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
            text = "\n\n".join(part for part in (last["content"], message["content"]) if part)
            found[-1] = {**last, **message, "content": text, **({"tool_calls": calls} if calls else {})}
        else:
            found.append(dict(message))
    return tuple(found)
