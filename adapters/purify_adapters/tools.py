"""Tools for models in this process: told of in the prompt, read from the answer, forced by a grammar.

No framework is known here; every adapter translates its own tools to and from these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from purify_plugins.decode.grammar import json_rule
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.purifier import Purifier
from purify_plugins.types import Chat, Grammar, ToolFormat, Vocabulary

Tool = Mapping[str, Any]
"""A tool as chat templates read it: `type` "function", and `function` with its name and parameters."""
Message = Mapping[str, Any]


@dataclass(frozen=True)
class CallPiece:
    """A part of call number `index`: its first part brings `id` and `name`, the others more `arguments`."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Reasoning:
    """A part of what the model thought before it answered."""

    text: str


Piece = str | CallPiece | Reasoning
"""A part of an answer: its text, a call, or thought."""


class Reader(Protocol):
    """Splits an answer into text and calls while it is written."""

    def feed(self, text: str) -> list[Piece]: ...

    def close(self) -> list[Piece]: ...


class Plain:
    """Reads text as text."""

    def feed(self, text: str) -> list[Piece]:
        return [text] if text else []

    def close(self) -> list[Piece]:
        return []


HEAD = re.compile(
    r'[\s,\[]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""The beginning of a call, up to its arguments."""


class Tagged:
    """Reads the calls that a ToolFormat describes; arguments are passed on as they come."""

    def __init__(self, format: ToolFormat) -> None:
        self.begin, self.end = format.begin.strip(), format.end.strip()
        self.calls = 0
        self._held = ""
        self._inside = False
        self._value: Value | None = None

    def feed(self, text: str) -> list[Piece]:
        """What is certain now, in order."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def close(self) -> list[Piece]:
        """The rest: a call that is not whole is kept as it stands."""
        rest, self._held = self._held, ""
        if not self._inside:
            return [rest] if rest and not (self.calls and rest.isspace()) else []
        unfinished_end = self.calls and self.end.startswith(rest.strip(" \n\t,]}"))
        return self._odd(rest) if self._value is None and not unfinished_end else []

    def _step(self, pieces: list[Piece]) -> bool:
        """Take one thing from what is held; False when more text is needed."""
        if self._value is not None:
            return self._arguments(self._value, pieces)
        return self._call(pieces) if self._inside else self._text(pieces)

    def _text(self, pieces: list[Piece]) -> bool:
        """Text up to where a call begins; what may be a beginning is held."""
        if not self.begin:
            return self._bare(pieces)
        before, found, after = self._held.partition(self.begin)
        text = before if found else before[: len(before) - _beginning(before, self.begin)]
        text = text.rstrip()  # white space waits: before a call it is no part of the text
        pieces += [text] if text else []
        self._held, self._inside = (after if found else before[len(text) :]), bool(found)
        return bool(found)

    def _bare(self, pieces: list[Piece]) -> bool:
        """An answer that starts with a brace is a call; any other has none."""
        if not self._held.strip().removeprefix("<|python_tag|>"):
            return False
        self._held = self._held.lstrip().removeprefix("<|python_tag|>")
        if self._held.startswith("{"):
            self._inside = True
            return True
        self.begin = "\0"  # no text holds it
        return True

    def _call(self, pieces: list[Piece]) -> bool:
        """The head of a call, or the end of them."""
        if head := HEAD.match(self._held):
            pieces.append(CallPiece(self.calls, "", f"call_{uuid4().hex[:24]}", json.loads(head[1])))
            self._held, self._value = self._held[head.end() :], Value()
            return True
        before, found, after = self._held.partition(self.end) if self.end else (self._held, "", "")
        if not found:
            return False
        pieces += self._odd(before)
        self._held, self._inside = after, False
        return True

    def _arguments(self, value: Value, pieces: list[Piece]) -> bool:
        """As much of the arguments as has come."""
        taken = value.take(self._held)
        if taken:
            pieces.append(CallPiece(self.calls, self._held[:taken]))
        self._held = self._held[taken:]
        if value.depth or not self._held.lstrip():
            return False
        self._held = self._held.lstrip().removeprefix("}")
        self._value, self.calls = None, self.calls + 1
        return True

    def _odd(self, body: str) -> list[Piece]:
        """Calls whose JSON is not written as expected; what is no call stays as it is, to be told of."""
        if not body.strip(" \n\t,]}"):
            return []
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        calls = found if isinstance(found, list) else [found]
        if not self.begin and not all(isinstance(call, dict) and "name" in call for call in calls):
            return [body]
        return [self._whole(call, body) for call in calls]

    def _whole(self, call: Any, body: str) -> CallPiece:
        call = call if isinstance(call, dict) else {}
        arguments = call.get("arguments", call.get("parameters", body))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.calls += 1
        return CallPiece(self.calls - 1, text, f"call_{uuid4().hex[:24]}", call.get("name"))


class Value:
    """Finds the end of a JSON object in text that comes in pieces."""

    def __init__(self) -> None:
        self.depth = 1
        self._started = self._quoted = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object; `depth` is 0 once it is whole."""
        for at, char in enumerate(text):
            if self.depth == 0:
                return at
            self._see(char)
        return len(text)

    def _see(self, char: str) -> None:
        if self._quoted:
            self._quoted = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self.depth += self._started
            self._started = True
        elif char in "}]":
            self.depth -= 1


def _beginning(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((n for n in lengths if mark.startswith(text[-n:])), 0)


class Templated:
    """Reads an answer with the response template that came with a transformers tokenizer."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.calls = 0
        self._raw = ""
        self._broken = False

    def feed(self, text: str) -> list[Piece]:
        self._raw += text
        return [] if self._broken or not text else self._read(lambda: self.parser.feed(text))

    def close(self) -> list[Piece]:
        rest = [] if self._broken else self._read(lambda: self.parser.finalize()[1])
        return [*rest, CallPiece(self.calls, self._raw, f"call_{uuid4().hex[:24]}")] if self._broken else rest

    def _read(self, events: Any) -> list[Piece]:
        try:
            return [piece for event in events() for piece in self._pieces(event)]
        except Exception:  # a template is a stranger's program; what it cannot read is kept as it stands
            self._broken = True
            return []

    def _pieces(self, event: Mapping[str, Any]) -> list[Piece]:
        kind, field = event["type"], event.get("field")
        if kind == "region_close" and field == "tool_calls":
            call = event["value"]["function"]
            arguments = call["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            self.calls += 1
            return [CallPiece(self.calls - 1, text, f"call_{uuid4().hex[:24]}", call["name"])]
        if kind != "region_chunk" or event.get("dirty") or not event.get("text"):
            return []
        if field in ("reasoning_content", "thinking"):
            return [Reasoning(event["text"])]
        return [event["text"]] if field == "content" else []


# How a pair of models is spoken to


def inner(source: Any) -> Any:
    """The source behind any that only translate."""
    while hasattr(source, "source"):
        source = source.source
    return source


def template(source: Any) -> str:
    """A source's chat template, all its variants; empty if it has none that we can see."""
    found = getattr(getattr(inner(source), "tokenizer", None), "chat_template", None) or ""
    return "\n".join(found.values()) if isinstance(found, dict) else str(found)


@dataclass(frozen=True)
class Speech:
    """How a pair of models is told of tools, and how it calls them.

    `native`: both chat templates render tools themselves, in this format; otherwise tools, calls and
    results are put into the text of the messages.
    """

    format: ToolFormat
    native: bool
    tokenizer: Any = None

    @classmethod
    def of(cls, purifier: Purifier, name: str = "auto") -> Speech:
        """The pair's own way, or the `name`d one. Raises ConfigError when it is not known."""
        offers = {key: offer() for key, offer in purifier.plugins.offers("purify_tool_formats").items()}
        if name != "auto" and name not in offers:
            raise UnknownNameError("tool format", name, offers)
        known = offers if name == "auto" else {name: offers[name]}
        ours, theirs = template(purifier.slm), template(purifier.llm)
        both = [each for each in known.values() if all(re.search(each.sign, t) for t in (ours, theirs) if t)]
        tokenizer = getattr(inner(purifier.slm), "tokenizer", None)
        native = _renders_tools(purifier) and bool(both or name != "auto" or _own_parser(tokenizer))
        if (
            _renders_tools(purifier)
            and not native
            and not any(re.search(f.sign, ours) for f in known.values())
        ):
            raise _unknown(purifier, offers)
        chosen = both[0] if native and both else known.get("hermes", next(iter(known.values())))
        return cls(chosen, native, tokenizer if native else None)

    def chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Chat:
        """The conversation as this pair reads it."""
        if self.native:
            return Chat(merged(messages), tuple(tools))
        told = [{"role": "system", "content": self._told(tools)}] if tools else []
        said = [self._spelled(message) for message in messages]
        first = [message for message in said[:1] if message["role"] == "system"]
        return Chat(merged([*first, *told, *said[len(first) :]]))

    def _told(self, tools: Sequence[Tool]) -> str:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        shape = self.write("<name>", "<arguments as JSON>").replace('"<arguments as JSON>"', "<arguments>")
        return f"You can call these tools:\n{listed}\n\nTo call one, write\n{shape}\nand nothing else."

    def write(self, name: str, arguments: Any) -> str:
        """A call as the model would write it."""
        body = json.dumps({"name": name, self.format.arguments: arguments}, ensure_ascii=False)
        return f"{self.format.begin}{f'[{body}]' if self.format.listed else body}{self.format.end}"

    def _spelled(self, message: Message) -> Message:
        """A message whose calls and results are text."""
        if message["role"] == "tool":
            return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
        calls = [
            self.write(call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", ())
        ]
        text = "\n".join(part for part in (message["content"], *calls) if part)
        return {"role": message["role"], "content": text}

    def reader(self, purifier: Purifier, chat: Chat) -> Reader:
        """What reads the answer to `chat`."""
        if _own_parser(self.tokenizer):
            prompt = self.tokenizer.decode(inner(purifier.slm).encode(chat))
            tools = [dict(tool) for tool in chat.tools]
            try:
                return Templated(self.tokenizer.get_response_parser(prefix=prompt, tools=tools))
            except Exception as error:  # a template is a stranger's program and can raise anything
                raise ConfigError(
                    f"the response template of this tokenizer cannot be used: {error}"
                ) from error
        return Tagged(self.format)

    def grammar(
        self, tools: Sequence[Tool], vocabulary: Vocabulary, answer: Mapping[str, Any] | None = None
    ) -> Grammar:
        """One call of one of the tools, or an answer in JSON under the schema `answer`."""
        choices = [*(f"call{at}" for at in range(len(tools))), *(["answer"] if answer is not None else [])]
        rules = [f"start: {' | '.join(choices)}"]
        for at, tool in enumerate(tools):
            rules += self._rules(at, tool["function"], vocabulary)
        rules += [f"answer: {json_rule(closed(answer))}"] if answer is not None else []
        return Grammar("lark", "\n".join(rules))

    def _rules(self, at: int, function: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
        """The call of one tool, its arguments under its own schema."""
        left, right = ("[", "]") if self.format.listed else ("", "")
        name = json.dumps(function["name"], ensure_ascii=False)
        first, last = literal(self.format.begin, vocabulary), literal(self.format.end, vocabulary)
        head = literal(f'{left}{{"name": {name}, "{self.format.arguments}": ')
        schema = closed(function.get("parameters") or {"type": "object", "properties": {}})
        return [
            f"call{at}: {first} {head} args{at} {literal('}' + right)} {last}",
            f"args{at}: {json_rule(schema)}",
        ]


def _renders_tools(purifier: Purifier) -> bool:
    """Whether both chat templates render tools; a remote model without one in sight surely does."""
    remote = not hasattr(inner(purifier.llm), "tokenizer")
    return "tools" in template(purifier.slm) and (remote or "tools" in template(purifier.llm))


def _own_parser(tokenizer: Any) -> bool:
    """Whether transformers can parse what a model with this tokenizer writes."""
    return bool(getattr(tokenizer, "response_template", None) and hasattr(tokenizer, "get_response_parser"))


def _unknown(purifier: Purifier, offers: Mapping[str, ToolFormat]) -> ConfigError:
    return ConfigError(
        f"the chat template of {purifier.slm.identity()['name']!r} writes tool calls in an unknown way; set "
        f"tool_format to one of {', '.join(offers)}, or offer its format through purify_tool_formats"
    )


def literal(text: str, vocabulary: Vocabulary | None = None) -> str:
    """A text in a Lark rule; one that is a control token's name is that token."""
    names = {name: index for index, name in vocabulary.control.items()} if vocabulary else {}
    if text.strip() in names:
        return f"<[{names[text.strip()]}]>"
    return json.dumps(text, ensure_ascii=False) if text else ""


def merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Runs of one role as one message: many chat templates refuse two in a row."""
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


def closed(schema: Any) -> Any:
    """A schema whose objects have no properties but those it names, unless it says otherwise."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {
        key: {name: closed(part) for name, part in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else value
        if key in ("allOf", "enum", "const", "default", "examples")
        else closed(value)
        for key, value in schema.items()
    }
    return (
        {**inside, "additionalProperties": schema.get("additionalProperties", False)}
        if "properties" in schema
        else inside
    )


def marked(pieces: Sequence[int], text: str, vocabulary: Vocabulary) -> str:
    """An answer's text with the names of the control tokens before it, as tool formats know them."""
    names = (vocabulary.control.get(token, "") for token in pieces if token not in vocabulary.eos)
    return "".join(names) + text
