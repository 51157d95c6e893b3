"""Checks of the arguments of a factory: known names, none missing, the annotated types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.protocols import LogitSource


def check_arguments(what: str, factory: Callable[..., Any], arguments: Iterable[str]) -> None:
    """Raise UnknownNameError for an argument `factory` does not take."""
    known = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for argument in arguments:
        if argument not in known:
            raise UnknownNameError(what, argument, known)


def require_arguments(what: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise ConfigError where an argument without a default is missing."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for each in inspect.signature(factory).parameters.values():
        if each.default is each.empty and each.kind in named and each.name not in given:
            raise ConfigError(f"{what}: {each.name!r} is missing")


def built(what: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """What a factory makes of these arguments. Raises UnknownNameError for one that it does not take.

    Raises ConfigError where one is missing, or of a type that it cannot be called with.
    """
    check_arguments(f"{what} option", factory, given)
    require_arguments(what, factory, given)
    try:
        return factory(**given)
    except TypeError as error:
        raise ConfigError(f"{what}: {mistyped(factory, given) or error}") from error


SOURCES = ("LogitSource", LogitSource, "list[LogitSource]", list[LogitSource])
"""The annotations of arguments that are sources."""


def sources_of(factory: Callable[..., Any]) -> set[str]:
    """The arguments of a source's factory that are sources themselves, or lists of them."""
    found = inspect.signature(factory).parameters.values()
    return {each.name for each in found if each.annotation in SOURCES}


TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
}
"""An argument's annotation, the types of its values, and these in words."""


def mistyped(factory: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The message for an argument of another type than annotated; "" where there is none."""
    for each in inspect.signature(factory).parameters.values():
        hint = (
            each.annotation if isinstance(each.annotation, str) else getattr(each.annotation, "__name__", "")
        )
        kinds, words = TYPES.get(hint, (object, ""))
        if each.name in given and not isinstance(given[each.name], kinds):
            return f"{each.name} must be {words}, not {given[each.name]!r}"
    return ""
