"""Types of JSON, checked exactly: no text is a number, no number true, and no field is unknown.

By hand, since checking a certificate must need nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from purify_plugins.errors import NoCertificateError


class Least(NamedTuple):
    """The least value of a number, or the least length of a list."""

    least: float

    def wrong(self, value: Any) -> str:
        many = isinstance(value, list)
        fine = (len(value) if many else value) >= self.least
        return "" if fine else f"at least {self.least:g}" + " item long" * many


class Most(NamedTuple):
    """The largest value of a number."""

    most: float

    def wrong(self, value: Any) -> str:
        return "" if value <= self.most else f"at most {self.most:g}"


class Spelled(NamedTuple):
    """The pattern of a whole text, and what such a text is."""

    pattern: str
    words: str

    def wrong(self, value: Any) -> str:
        return "" if re.fullmatch(self.pattern, value) else self.words


class Wrong(NamedTuple):
    """What is wrong in a JSON value, and where."""

    where: tuple[str, ...]
    why: str
    unknown: bool = False


class Fields:
    """A JSON object whose keys are a subclass's annotations; `open`: others may stand beside them.

    A key with a default may be left out. A trailing underscore is no part of a key's name.
    """

    open: ClassVar[bool] = False

    def __init_subclass__(cls, open: bool = False) -> None:
        cls.open = open

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The keys that it may have."""
        kind: Any = cls
        return tuple(_hints(kind))

    @classmethod
    def check(cls, body: Any) -> None:
        """Raise NoCertificateError, naming the first field that is not as it must be."""
        wrong = next(_wrong_fields(cls, body, ()), None)
        if wrong is None:
            return
        where = ".".join(wrong.where) or "the whole"
        if wrong.unknown:
            raise NoCertificateError(
                f"the certificate has an unknown field {where!r}; nothing may be added to one, so keep "
                "notes in a file beside it"
            )
        raise NoCertificateError(f"the certificate is malformed at {where}, which {wrong.why}")


PLAIN: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    NoneType: ((NoneType,), "null"),
    list: ((list,), "a list"),
    tuple: ((list,), "a list"),
    dict: ((dict,), "a table"),
}
"""A plain type, the exact types of its values, and these in words."""


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Each key's type, and whether it must be there."""
    found = get_type_hints(kind, include_extras=True)
    return {
        name.removesuffix("_"): (hint, not hasattr(kind, name))
        for name, hint in found.items()
        if name != "open"
    }


def _wrong_fields(kind: Any, value: Any, where: tuple[str, ...]) -> Iterator[Wrong]:
    if not isinstance(value, dict):
        yield Wrong(where, _must("a table", value))
        return
    hints = _hints(kind)
    for name, (hint, needed) in hints.items():
        if name in value:
            yield from _wrong(hint, value[name], (*where, name))
        elif needed:
            yield Wrong((*where, name), "is missing")
    if not kind.open:
        yield from (Wrong((*where, name), "", True) for name in value if name not in hints)


def _wrong(hint: Any, value: Any, where: tuple[str, ...]) -> Iterator[Wrong]:
    """All that is wrong in a value of a type, in its order."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin is Annotated:
        yield from _annotated(hint, value, where)
    elif origin is Literal:
        if not any(type(value) is type(each) and value == each for each in inner):
            yield Wrong(where, _must(" or ".join(map(repr, inner)), value))
    elif origin in (Union, UnionType):
        tried = [next(_wrong(each, value, where), None) for each in inner]
        if None not in tried:
            yield max((each for each in tried if each), key=lambda each: len(each.where))
    elif isinstance(hint, type) and issubclass(hint, Fields):
        yield from _wrong_fields(hint, value, where)
    else:
        yield from _wrong_plain(origin or hint, inner, value, where)


def _annotated(hint: Any, value: Any, where: tuple[str, ...]) -> Iterator[Wrong]:
    plain, *checks = get_args(hint)
    found = [*_wrong(plain, value, where)]
    yield from found
    for check in () if found else checks:
        if words := check.wrong(value):
            yield Wrong(where, _must(words, value))


def _wrong_plain(kind: Any, inner: tuple[Any, ...], value: Any, where: tuple[str, ...]) -> Iterator[Wrong]:
    kinds, words = PLAIN[kind]
    if type(value) not in kinds:
        yield Wrong(where, _must(words, value))
    elif kind is tuple:
        if len(value) != len(inner):
            yield Wrong(where, _must(f"a list of {len(inner)}", value))
        for at, (each, item) in enumerate(zip(inner, value, strict=False)):
            yield from _wrong(each, item, (*where, str(at)))
    elif kind is list:
        for at, item in enumerate(value):
            yield from _wrong(inner[0], item, (*where, str(at)))
    elif kind is dict:
        for name, item in value.items():
            yield from _wrong(inner[1], item, (*where, name))


def _must(expected: str, value: Any) -> str:
    found = repr(value)
    return f"must be {expected}, not {found if len(found) < 80 else f'{found[:76]}…'}"
