"""The kind of value that each sampling option takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

WHOLE = frozenset(("max_tokens", "top_k", "seed"))
"""Options that are whole numbers; a seed may be None too."""
NUMBERS = frozenset(("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "frequency_penalty"))


def expected(values: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """Each option's name, whether its value is of the kind it takes, and what that kind is, in words."""
    for name, value in values.items():
        if name in WHOLE:
            yield name, _is(value, Integral) or (name == "seed" and value is None), "a whole number"
        elif name in NUMBERS:
            yield name, _is(value, Real), "a number"
        elif name == "ignore_eos":
            yield name, isinstance(value, bool), "True or False"
        elif name == "stop":
            yield name, _are_texts(value), "a text, or a list of texts"


def _is(value: object, kind: type) -> bool:
    """Whether a value is a number of this kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
