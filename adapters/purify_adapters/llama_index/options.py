"""What may be said of all calls, and of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from purify_adapters.foreign_options import changes_nothing
from purify_plugins.configuration.build import sampling
from purify_plugins.errors import UnknownNameError
from purify_plugins.sampling import Sampling

DRAWN = frozenset(field.name for field in fields(Sampling))
"""Options that say how tokens are drawn."""
PER_CALL = DRAWN | {"logprobs", "certificate", "whole", "tools", "tool_required", "tool_choice"}


def check(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownNameError, with the nearest known name, for a name that is not known."""
    names = set(known)
    for name in given:
        if name not in names:
            raise UnknownNameError(what, name, names)


def check_call(given: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for an option of a call that is not known, and would change its answer."""
    check("option of a purified call", (n for n, v in given.items() if not changes_nothing(n, v)), PER_CALL)


def redrawn(base: Sampling, options: Mapping[str, Any]) -> Sampling:
    """The sampling options, but for what a call says (None: nothing, save of a seed). Raises ConfigError."""
    said = (name for name in DRAWN & options.keys() if options[name] is not None or name == "seed")
    given = {name: _plain(options[name]) for name in said}
    checked = sampling(given)
    return replace(base, **{name: getattr(checked, name) for name in given}) if given else base


def _plain(value: Any) -> Any:
    """One stop string is a list of one."""
    return [value] if isinstance(value, str) else value
