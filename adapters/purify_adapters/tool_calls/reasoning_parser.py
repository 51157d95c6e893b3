"""A parser of reasoning: text between `<think>` and `</think>` is neither text nor a call."""

from __future__ import annotations

from purify_adapters.tool_calls.call_parser import CallParser, beginning
from purify_adapters.tool_calls.parts import Part, PlainParser, Reasoning

MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""The marks that begin and end reasoning."""


class ReasoningParser:
    """Parse reasoning, and feed the rest to a parser of calls or of text.

    `begun`: the mark that the prompt ends with; the answer then starts inside the reasoning.
    """

    def __init__(self, parser: CallParser | PlainParser, begun: str = "") -> None:
        self.parser = parser
        self._end = dict(MARKS).get(begun, "")
        self._held = ""
        self._after = False  # after reasoning: line ends that follow it do not belong to the answer

    def reads(self, name: str) -> bool:
        return any(name in pair for pair in MARKS) or self.parser.reads(name)

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain now, in order."""
        self._held += text
        parts: list[Part] = []
        while self._held and (self._reasoning(parts) if self._end else self._answer(parts)):
            pass
        return parts

    def close(self) -> list[Part]:
        """The rest; reasoning without an end mark is reasoning too."""
        rest, self._held = self._held, ""
        if self._end:
            return [*([Reasoning(rest)] if rest else []), *self.parser.close()]
        return [*self.parser.feed(rest), *self.parser.close()]

    def _reasoning(self, parts: list[Part]) -> bool:
        """Parse reasoning up to its end mark; text that may begin the mark is held."""
        before, found, after = self._held.partition(self._end)
        text = before if found else before[: len(before) - beginning(before, self._end)]
        parts += [Reasoning(text)] if text else []
        self._held, self._after = (after, True) if found else (before[len(text) :], False)
        self._end = "" if found else self._end
        return bool(found)

    def _answer(self, parts: list[Part]) -> bool:
        """Parse the answer up to a begin mark; inside a call a mark is quoted text."""
        if self._after:
            self._held = self._held.lstrip("\n")
            self._after = not self._held
        at, mark = min(
            ((self._held.find(mark), mark) for mark, _ in MARKS if mark in self._held), default=(-1, "")
        )
        if at < 0:
            keep = max(beginning(self._held, mark) for mark, _ in MARKS)
            ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            parts += self.parser.feed(ready)
            return False
        parts += self.parser.feed(self._held[:at])
        self._held = self._held[at + len(mark) :]
        if self.parser.inside:  # an argument may quote the mark
            parts += self.parser.feed(mark)
        else:
            self._end = dict(MARKS)[mark]
        return True
