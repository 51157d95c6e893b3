"""The cost of a chat template's operations, and the budget of one rendering."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

SECONDS = 1.0
"""CPU time of one rendering; published templates take milliseconds for a long conversation."""
SIZE = 4_000_000
"""The most characters, plus 16 for each item, of one value."""
NUMBER = 100_000
"""The largest number a method or filter may be given, as of range."""
BITS = 4096
DEPTH = 64


class Exhausted(TemplateError):
    """A template exceeds its limits of time or output."""


class _Budget:
    """The remaining budget of one rendering."""

    def __init__(self) -> None:
        self.end = time.thread_time() + SECONDS
        self.left = 8 * SIZE

    def spend(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0 or time.thread_time() > self.end:
            raise Exhausted("the template takes too long or writes too much")


_budget: ContextVar[_Budget | None] = ContextVar("_budget", default=None)


def spend(amount: int = 1) -> None:
    """Count work of this thread's rendering; compiling a template counts too."""
    if (budget := _budget.get()) is not None:
        budget.spend(amount)


@contextmanager
def budgeted() -> Iterator[None]:
    """Give this block the budget of one rendering."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def weigh(value: Any, depth: int = DEPTH) -> int:
    """The size of a value: characters, plus 16 for each item. Raises Exhausted beyond SIZE."""
    weight, waiting = 0, [(value, depth)]
    while waiting:
        each, left = waiting.pop()
        weight += (
            len(each) if isinstance(each, str | bytes) else 16 * len(each) if type(each) is range else 16
        )
        if isinstance(each, int) and each.bit_length() > BITS:
            raise Exhausted("the template computes with numbers without end")
        if weight > SIZE or left < 0:
            raise Exhausted("the template makes too much of what it is given")
        inner = object.__getattribute__(each, "_Namespace__attrs") if isinstance(each, Namespace) else each
        if isinstance(inner, dict):
            waiting += [(part, left - 1) for pair in inner.items() for part in pair]
        elif isinstance(inner, list | tuple | set):
            waiting += [(part, left - 1) for part in inner]
    return weight


def spent(value: Any) -> Any:
    """Count the size of a new value / 16, and return it."""
    spend(1 + weigh(value) // 16)
    return value


def written(value: Any) -> Any:
    """Count every character of an output value, and return it."""
    spend(1 + weigh(value))
    return value


def numbers(values: Iterable[Any]) -> int:
    """The largest of the numbers among arguments. Raises Exhausted above NUMBER."""
    most = max((abs(each) for each in values if isinstance(each, int | float)), default=0)
    if most > NUMBER:
        raise Exhausted(f"the template asks for {most!r} of something")
    return int(most)


def bounded(product: int) -> None:
    if product > SIZE:
        raise Exhausted("the template makes too much of what it is given")


def check_format(pattern: Any) -> None:
    """Raise Exhausted for a width or precision, of `%` or `format`, that would fill memory."""
    if isinstance(pattern, str | bytes):
        text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
        if re.search(r"\d{5}|\*", text) or "{:{" in text:
            raise Exhausted("the template formats with widths without end")


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Raise Exhausted before an operator's result exceeds the limits."""
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        bounded(SIZE * (left.bit_length() * abs(right) // BITS))
    if operator == "*":
        times = [each for each in (left, right) if isinstance(each, int)]
        whole = [each for each in (left, right) if not isinstance(each, int | float)]
        if whole:
            bounded(weigh(whole[0]) * max(times, default=1))
    if operator == "+":
        bounded(weigh(left) + weigh(right))
    if operator == "%":
        check_format(left)
        numbers(each for each in (right if isinstance(right, tuple) else ()) if isinstance(left, str))
        weigh([left, right])


def check_call(called: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise Exhausted before a call's result exceeds the limits."""
    given = (*args, *kwargs.values())
    method = getattr(called, "__wrapped__", called)  # the sandbox wraps str.format
    weight, owner, name = (
        weigh(list(given)),
        getattr(method, "__self__", None),
        getattr(method, "__name__", ""),
    )
    if isinstance(owner, str):
        numbers(given)
        weight += weigh(owner)
        if name == "format":
            check_format(owner)
        if name == "replace" and len(args) > 1:
            replacing(owner, args[0], args[1])
        if name == "join":
            bounded(weight + len(owner) * length(args[0] if args else ()))
    elif isinstance(owner, int) or called is range:
        numbers(given)
    spend(weight // 16)


def replacing(text: Any, old: Any, new: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    bounded(len(text) + (len(text) // max(len(old), 1) + 1) * len(new))


def length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else NUMBER  # a generator's length is unknown
