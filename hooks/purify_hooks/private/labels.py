"""Which parts of a prompt are private: marked, of a message's role, cited by an id, found or listed."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from purify_hooks.private.finders import Finder, Span
from purify_hooks.private.parts import joined
from purify_plugins.errors import RefusedError
from purify_plugins.stages.texts import rewritten, texts
from purify_plugins.types import Chat, Prompt

NAMED = ("role", "type", "id", "tool_call_id", "name")
"""Keys of a message whose values are no content: what it is, and which call it answers."""
Sources = Sequence[tuple[str, str]]
"""Cited texts by id."""


class Marked(NamedTuple):
    """A text without its markers, and its private parts in order, none of which touches another."""

    text: str
    spans: tuple[Span, ...]

    @property
    def private(self) -> list[str]:
        """The private parts' texts."""
        return [self.text[span.start : span.end] for span in self.spans]

    def without(self, instead: str) -> str:
        """The text with each private part replaced; `{kind}` in `instead` stands for its kind."""
        found, at = [], 0
        for span in self.spans:
            found += [self.text[at : span.start], instead.replace("{kind}", span.kind)]
            at = span.end
        return "".join((*found, self.text[at:]))


@dataclass(frozen=True)
class Labels:
    """What is private in a prompt.

    `markers` are the texts before and after a private part, in any case; `roles` those of messages, `cited`
    the ids of cited texts, that are private whole; `finders` find private parts of a text. `key` names the
    operator's text for a refusal.
    """

    markers: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()
    cited: frozenset[str] = frozenset()
    finders: tuple[Finder, ...] = ()
    key: str = "default"

    def read(self, prompt: Prompt, sources: Sources = ()) -> LabelledPrompt:
        """The prompt with its private parts; `sources` are all texts that it cites.

        Raises PromptError for token ids, RefusedError for markers that do not pair, or that a template would
        make by joining the parts of a message, and for a private text that was cited and that the prompt does
        not hold.
        """
        for finder in self.finders:
            prompt = joined(prompt, finder)
        wanted = [(name, self._unmarked(text)[0]) for name, text in self.private_sources(sources)]
        found = LabelledPrompt(self, prompt, tuple(text for _, text in wanted if text))
        if self.markers and any(map(self._pattern.search, texts(found.whole))):
            raise self._unpaired()
        missing = [name for name, text in wanted if text and not found.holds(text)]
        if missing:
            raise RefusedError(
                f"the prompt does not hold the private text {missing[0]!r} as it was cited, so it cannot be "
                "taken out; cite the very text that stands in the prompt",
                key=self.key,
            )
        return found

    def private_sources(self, sources: Sources) -> list[tuple[str, str]]:
        """The cited texts that are private, by id."""
        return [(name, text) for name, text in sources if name in self.cited]

    def marked(self, text: str, known: Sequence[str] = ()) -> Marked:
        """A text without its markers, and its private parts.

        The texts `known` are private wherever they stand. Raises RefusedError.
        """
        plain, spans = self._unmarked(text)
        spans += [each for finder in self.finders for each in finder.find(plain)]
        for one in known:
            spans += [Span(*each.span(), "document") for each in re.finditer(re.escape(one), plain)]
        return Marked(plain, _joined(spans))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        opening, closing = ("|".join(map(re.escape, _escaped(each))) for each in self.markers)
        return re.compile(rf"(?P<opening>{opening})|{closing}", re.IGNORECASE)

    def _unmarked(self, text: str) -> tuple[str, list[Span]]:
        """The text without its markers, and the parts between them."""
        parts: list[str] = []
        spans: list[Span] = []
        at, length, begun = 0, 0, -1
        for found in self._pattern.finditer(text) if self.markers else ():
            parts.append(text[at : found.start()])
            length, at = length + found.start() - at, found.end()
            if bool(found["opening"]) != (begun < 0):
                raise self._unpaired()
            if begun >= 0:
                spans.append(Span(begun, length, "private"))
            begun = length if begun < 0 else -1
        if begun >= 0:
            raise self._unpaired()
        return "".join((*parts, text[at:])), spans

    def _unpaired(self) -> RefusedError:
        # Where a private part ends is unknown: a text inside it may have brought a marker along.
        return RefusedError("the markers of private parts do not pair in a text of the prompt", key=self.key)


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt and what is private in it; `known` are texts that are private wherever they stand."""

    labels: Labels
    prompt: Prompt
    known: tuple[str, ...] = ()
    _marked: dict[str, Marked] = field(default_factory=dict)

    def holds(self, text: str) -> bool:
        """Whether one of the prompt's texts holds this one, and nothing that is left without it does.

        A text that is cut by the parts of a message is joined by its template, and is not taken out.
        """
        _ = self.whole
        left = self.without("")
        stands = any(text in each.text for each in self._marked.values())
        return stands and not (left and any(text in each for each in texts(left)))

    @cached_property
    def whole(self) -> Prompt:
        """The prompt without markers."""
        return rewritten(self.prompt, lambda text: self._read(text).text)

    @property
    def labelled(self) -> bool:
        """Whether there is a private part in it, or a marker."""
        _ = self.whole
        return bool(self.private) or any(text != each.text for text, each in self._marked.items())

    @property
    def private(self) -> tuple[str, ...]:
        """The texts of its private parts."""
        _ = self.whole
        parts = [part for each in self._marked.values() for part in each.private]
        return tuple(dict.fromkeys((*self._messages(), *parts)))

    def without(self, instead: str) -> Prompt | None:
        """The prompt without its private parts; None where nothing is left of it."""

        def change(text: str) -> str:
            return self._read(text).without(instead)

        if not isinstance(self.prompt, Chat):
            return rewritten(self.prompt, change) or None
        messages: list[Mapping[str, Any]] = []
        for message in self.prompt.messages:
            if message.get("role") in self.labels.roles:
                messages += _replaced(message, instead)
            else:
                messages += _chat(rewritten(Chat((message,)), change)).messages
        tools = _chat(rewritten(Chat((), self.prompt.tools), change)).tools
        return Chat(tuple(messages), tools) if messages else None

    def _read(self, text: str) -> Marked:
        if text not in self._marked:
            self._marked[text] = self.labels.marked(text, self.known)
        return self._marked[text]

    def _messages(self) -> Iterator[str]:
        """The texts of messages that are private whole."""
        for message in self.whole.messages if isinstance(self.whole, Chat) else ():
            if message.get("role") in self.labels.roles:
                yield from texts(Chat(({key: message[key] for key in message if key not in NAMED},)))


def _escaped(marker: str) -> set[str]:
    """A marker, and how programs write it that escape `<` in JSON or HTML."""
    coded = re.sub("[<>&'\"]", lambda found: f"\\u{ord(found[0]):04x}", marker)
    return {marker, coded, html.escape(marker)}


def _chat(prompt: Prompt) -> Chat:
    assert isinstance(prompt, Chat)  # `rewritten` keeps what it changes a prompt of its kind
    return prompt


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The spans in order; those that overlap or touch as one, of the first one's kind."""
    found: list[Span] = []
    for span in sorted(each for each in spans if each.end > each.start):
        if found and span.start <= found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, span.end))
        else:
            found.append(span)
    return tuple(found)


def _replaced(message: Mapping[str, Any], instead: str) -> list[dict[str, Any]]:
    """A private message with `instead` for its content, and without its calls' arguments.

    It is left out where nothing stands instead, and nothing else of the conversation answers to it.
    """
    said = instead.replace("{kind}", str(message["role"]))
    person = message["role"] != "tool"  # a tool's name is no content; a person's is
    named = {key: each for key, each in message.items() if key in NAMED and not (person and key == "name")}
    calls = [_call(each) for each in message.get("tool_calls") or ()]
    if not (said or calls or "tool_call_id" in message):
        return []
    return [{**named, "content": said, **({"tool_calls": calls} if calls else {})}]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call's names, without its arguments."""
    named = {key: each for key, each in call.items() if key in NAMED}
    function = call.get("function")
    if not isinstance(function, Mapping):
        return {**named, "arguments": {}}
    arguments = "{}" if isinstance(function.get("arguments"), str) else {}
    return {**named, "function": {"name": function.get("name"), "arguments": arguments}}
