"""`ensemble`: several answers drawn together, and one of them, or an answer composed of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from purify_hooks.stages.varying import WAYS, shuffled, ways_question, with_way
from purify_hooks.stages.wording import (
    aside,
    letters_of,
    lines_of,
    numbered,
    require,
    reworded,
    texts,
    vote_of,
    whole,
)
from purify_plugins.grammar import Grammar
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft, Stage

Vary = Literal["seeds", "approaches", "personas", "choices"]
Select = Literal["vote", "slm", "judge", "aggregate"]
VERDICT = Grammar("regex", "[12]")


@dataclass(frozen=True)
class Ensemble(Stage):
    """Draw `n` fused answers in one batch, and release one of them or an answer composed of them.

    `vary` is how the candidates differ: "seeds" only in their draws; "approaches" in the approach that each
    takes (DIV-SE, arXiv 2310.07088); "personas" in who answers, the first as it is (Jekyll & Hyde,
    arXiv 2408.08631); "choices" in the order of a question's lettered options, each keeping its letter
    (Medprompt, arXiv 2311.16452). `ways` are the approaches or personas; where it is empty, the SLM alone
    names them.

    `select` is what is released: "vote" the first answer of those that most agree, by the letter that they
    choose or else their text; "slm" the one whose tokens' geometric mean of the SLM's probabilities is
    highest; "judge" the winner when the SLM alone compares the best so far with each next one in both orders,
    and the best so far stays where the verdicts differ; "aggregate" the fused answer to the question with the
    candidates before it (Self-MoA, arXiv 2502.00674), `window` of them at once: what was composed of these is
    one of the next.
    """

    n: int = 3
    vary: Vary = "seeds"
    select: Select = "vote"
    window: int = 2
    ways: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require("ensemble", "n", self.n, whole(self.n, 2), "a whole number, at least 2")
        require("ensemble", "window", self.window, whole(self.window, 2), "a whole number, at least 2")
        for name, kind in (("vary", Vary), ("select", Select)):
            known = get_args(kind)
            value = vars(self)[name]
            require("ensemble", name, value, value in known, f"one of {', '.join(map(repr, known))}")
        given = texts(self.ways)
        require("ensemble", "ways", self.ways, given is not None, "a list of texts")
        object.__setattr__(self, "ways", given)
        usable = not self.ways or self.vary in WAYS
        require("ensemble", "ways", self.ways, usable, "empty unless vary is 'approaches' or 'personas'")

    @property
    def choices(self) -> int:
        return 1 if self.select == "aggregate" else self.n

    def answer(self, request: Request) -> Answer:
        drafts: list[Draft] = yield (yield from self._candidates(request))
        if self.select == "aggregate":
            return (yield from self._aggregated(request, drafts))
        if self.select == "judge":
            return (yield from self._judged(request, drafts))
        if self.select == "slm":
            return max(drafts, key=lambda draft: draft.confidence)
        return voted(drafts, letters_of(request.text))

    def _candidates(self, request: Request) -> Generator[Request, Draft, list[Request]]:
        """The `n` requests, told apart by what varies."""
        asked = [request] * self.n
        if self.vary == "choices":
            asked = [shuffled(request, candidate) for candidate in range(self.n)]
        elif self.vary in WAYS:
            ways = list(self.ways)
            if not ways:
                listed = yield aside(request, ways_question(self.vary, self.n))
                ways = lines_of(listed.text, self.n)
            ways = ["", *ways] if self.vary == "personas" else ways
            ways = [*ways, *[""] * self.n][: self.n]  # where there are too few, the others answer as it is
            asked = [with_way(request, self.vary, way) for way in ways]
        return [each.seeded(candidate) for candidate, each in enumerate(asked)]

    def _judged(self, request: Request, drafts: Sequence[Draft]) -> Generator[Any, Any, Draft]:
        best, *others = drafts
        for other in others:
            pairs = ((best, other), (other, best))
            first, second = yield [_comparison(request, one.text, two.text) for one, two in pairs]
            if (first.text.strip(), second.text.strip()) == ("2", "1"):
                best = other
        return best

    def _aggregated(self, request: Request, drafts: Sequence[Draft]) -> Answer:
        waiting = [draft.text for draft in drafts]
        while len(waiting) > self.window:
            now, waiting = waiting[: self.window], waiting[self.window :]
            composed = yield _composition(request, now)
            waiting.insert(0, composed.text)
        return _composition(request, waiting)


def voted(drafts: Sequence[Draft], letters: str) -> Draft:
    """The first of the largest group that count for the same; of two as large, of the one begun first."""
    votes = [vote_of(draft.text, letters) for draft in drafts]
    [(winner, _)] = Counter(votes).most_common(1)
    return drafts[votes.index(winner)]


def _comparison(request: Request, one: str, two: str) -> Request:
    """Which of two answers is better, asked of the SLM alone; it can only write 1 or 2."""
    return aside(
        request,
        lambda question: (
            f"Question: {question}\n\nAnswer 1: {one}\n\nAnswer 2: {two}\n\n"
            "Which answer is better, 1 or 2? Write its number alone."
        ),
        grammar=VERDICT,
        temperature=0.0,
        max_tokens=4,
    )


def _composition(request: Request, answers: Sequence[str]) -> Request:
    """The question with answers before it, of which a better one is to be made."""
    return reworded(
        request,
        lambda question: (
            "Several answers to a question follow. Weigh them, since some may be wrong, and write "
            f"one better answer.\n\n{numbered(answers)}\n\nThe question: {question}"
        ),
    )
