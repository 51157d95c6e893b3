"""`decompose`: the SLM writes sub-questions, which are answered together and composed into the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from purify_hooks.stages.wording import FREE, aside, lines_of, numbered, require, reworded, whole
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Stage


@dataclass(frozen=True)
class Decompose(Stage):
    """Answer at most `width` sub-questions first, all in one batch (DaSLaM, arXiv 2310.18338).

    The SLM alone writes them. The fused model answers them, and then the question with these answers before
    it, streamed. With a `depth` above 1 each sub-question is itself decomposed. Where the SLM writes none the
    question is answered as it is.
    """

    width: int = 3
    depth: int = 1

    def __post_init__(self) -> None:
        require("decompose", "width", self.width, whole(self.width, 1), "a whole number, at least 1")
        require("decompose", "depth", self.depth, whole(self.depth, 1), "a whole number, at least 1")

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Answer:
        levels = [[_Question(request)]]
        for _ in range(self.depth):
            lists = yield [aside(each.request, self._asking) for each in levels[-1]]
            for each, draft in zip(levels[-1], lists, strict=True):
                each.parts = [each.part(text) for text in lines_of(draft.text, self.width)]
            below = [part for each in levels[-1] for part in each.parts]
            if not below:
                break
            levels.append(below)
        for level in reversed(levels[1:]):
            drafts = yield [each.composed for each in level]
            for each, draft in zip(level, drafts, strict=True):
                each.answer = draft.text
        return levels[0][0].composed

    def _asking(self, question: str) -> str:
        return (
            f"{question}\n\nWhat must be found out first? Write at most {self.width} short questions, one a "
            "line, whose answers lead to the answer. Do not answer them."
        )


@dataclass(eq=False)
class _Question:
    """A question, the sub-questions that it was decomposed into, and its answer once there is one."""

    request: Request
    parts: list[_Question] = field(default_factory=list)
    answer: str = ""

    def part(self, text: str) -> _Question:
        """A sub-question, whose answer need not look like the question's own."""
        return _Question(reworded(self.request, lambda _: text).sampled(**FREE))

    @property
    def composed(self) -> Request:
        """The question with the answers to its sub-questions before it."""
        found = [f"{part.request.text}\n{part.answer}" for part in self.parts]
        return reworded(self.request, lambda text: f"{numbered(found)}\n\n{text}") if found else self.request
