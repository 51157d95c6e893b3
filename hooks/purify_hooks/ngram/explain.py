"""An explained probability: each order's counts, discount and weight, and the files they were counted in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.ngram.smoothing import ESTIMATOR

if TYPE_CHECKING:
    from purify_hooks.ngram.model import NgramModel, Term
    from purify_hooks.ngram.storage import Record
    from purify_plugins.types import Vocabulary


class Occurrences(NamedTuple):
    """A document that an n-gram stands in, and how often."""

    name: str
    times: int


@dataclass(frozen=True)
class OrderTerm:
    """One order's part: its context in words, its numbers (see `Term`) and its documents, the most first."""

    order: int
    context: str
    times: int
    kind: str
    total: float
    discount: float
    backoff: float
    reach: float
    added: float
    documents: tuple[Occurrences, ...]


@dataclass(frozen=True)
class Explanation:
    """The probability of `token` (spelled in `text`): the sum of what its `parts` and `uniform` add."""

    token: int
    text: str
    parts: tuple[OrderTerm, ...]
    uniform: float
    vocabulary: int

    @property
    def probability(self) -> float:
        return sum(part.added for part in self.parts) + self.uniform

    def lines(self, most: int = 5) -> list[str]:
        """The explanation in sentences, at most so many documents for each order."""
        return [
            f"p({self.text!r}) = {self.probability:.6g}, by {ESTIMATOR}",
            *(line for part in self.parts for line in _lines(part, most)),
            f"uniform: the rest, over {self.vocabulary:,} tokens, adds {self.uniform:.6g}",
        ]


def _lines(part: OrderTerm, most: int) -> list[str]:
    where = f"after {part.context!r}" if part.context else "after any text"
    if not part.times:
        return [f"order {part.order}, {where}: never seen; {_passed(part)}"]
    sum_ = f"{part.reach:.6g} x ({part.times} - {part.discount:.6g}) / {part.total:.0f}"
    more = len(part.documents) - most
    named = ", ".join(f"{each.name} ({each.times})" for each in part.documents[:most])
    return [
        f"order {part.order}, {where}: {part.times} {part.kind} of {part.total:.0f}, discount "
        f"{part.discount:.6g}, adds {sum_} = {part.added:.6g}; {_passed(part)}",
        f"    in {named}{f' and {more} more documents' if more > 0 else ''}",
    ]


def _passed(part: OrderTerm) -> str:
    return f"{part.backoff:.6g} goes to shorter contexts"


def explained(
    model: NgramModel, record: Record, vocabulary: Vocabulary, prompt: Sequence[int], token: int
) -> Explanation:
    """The explanation of a token after a prompt's ids."""
    wanted = model.order - 1
    terms = model.explain([model.size, *prompt[-wanted:]][-wanted:], token)
    parts = tuple(_part(term, vocabulary, record) for term in terms)
    return Explanation(token, _spelled(vocabulary, [token]), parts, model.uniform(terms), model.size)


def _part(term: Term, vocabulary: Vocabulary, record: Record) -> OrderTerm:
    found = {name: value for name, value in term._asdict().items() if name not in ("context", "positions")}
    context = _spelled(vocabulary, term.context)
    documents = _documents(term.positions, record)
    return OrderTerm(len(term.context) + 1, context, **found, added=term.added, documents=documents)


def _documents(positions: Any, record: Record) -> tuple[Occurrences, ...]:
    """How often each document holds an n-gram that stands at these positions of the stream."""
    import numpy as np

    at = np.searchsorted(np.array(record.starts), positions, side="right") - 1
    numbers, times = np.unique(at, return_counts=True)
    found = (Occurrences(record.texts[number].name, int(n)) for number, n in zip(numbers, times, strict=True))
    return tuple(sorted(found, key=lambda each: (-each.times, each.name)))


def _spelled(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    """Tokens as text, control tokens and the beginning of a document by their names."""
    parts = (
        b"<begin>"
        if each == len(vocabulary)
        else vocabulary.control.get(each, "").encode() or vocabulary.tokens[each]
        for each in tokens
    )
    return b"".join(parts).decode("utf-8", "replace")
