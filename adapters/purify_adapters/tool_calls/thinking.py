"""Keep thought apart: what a model writes between `<think>` and `</think>` is no text and no call."""

from __future__ import annotations

from purify_adapters.tool_calls.parts import Part, Plain, Reasoning
from purify_adapters.tool_calls.tagged import Tagged, beginning

MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""How models that think aloud begin and end it."""


class Thinking:
    """Read thoughts, and leave the rest to a reader of calls, or of text.

    `begun` is the mark that the prompt itself ended with: the answer then starts inside a thought.
    """

    def __init__(self, parser: Tagged | Plain, begun: str = "") -> None:
        self.parser = parser
        self._end = dict(MARKS).get(begun, "")
        self._held = ""
        self._after = False  # a thought: the line ends that follow it are no part of the answer

    def reads(self, name: str) -> bool:
        return any(name in pair for pair in MARKS) or self.parser.reads(name)

    def feed(self, text: str) -> list[Part]:
        """What is certain now, in order."""
        self._held += text
        pieces: list[Part] = []
        while self._held and (self._thought(pieces) if self._end else self._answer(pieces)):
            pass
        return pieces

    def close(self) -> list[Part]:
        """The rest; a thought without an end is a thought all the same."""
        rest, self._held = self._held, ""
        if self._end:
            return [*([Reasoning(rest)] if rest else []), *self.parser.close()]
        return [*self.parser.feed(rest), *self.parser.close()]

    def _thought(self, pieces: list[Part]) -> bool:
        """Thought up to its end mark; what may be the mark's beginning is held."""
        before, found, after = self._held.partition(self._end)
        text = before if found else before[: len(before) - beginning(before, self._end)]
        pieces += [Reasoning(text)] if text else []
        self._held, self._after = (after, True) if found else (before[len(text) :], False)
        self._end = "" if found else self._end
        return bool(found)

    def _answer(self, pieces: list[Part]) -> bool:
        """The answer up to where a thought begins, which it does in no call."""
        if self._after:
            self._held = self._held.lstrip("\n")
            self._after = not self._held
        at, mark = min(
            ((self._held.find(mark), mark) for mark, _ in MARKS if mark in self._held), default=(-1, "")
        )
        if at < 0:
            keep = max(beginning(self._held, mark) for mark, _ in MARKS)
            ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            pieces += self.parser.feed(ready)
            return False
        pieces += self.parser.feed(self._held[:at])
        self._held = self._held[at + len(mark) :]
        if self.parser.inside:  # an argument may quote the mark
            pieces += self.parser.feed(mark)
        else:
            self._end = dict(MARKS)[mark]
        return True
