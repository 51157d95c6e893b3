"""Calls that cannot be purified: those of trusted servers and models pass, all others are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import RefusedError
from purify_plugins.sources.read_scope import for_fusion, reading

if TYPE_CHECKING:
    from purify_adapters.activation.recorder import Recorder
    from purify_adapters.activation.rules import Rules

Named = Callable[..., Sequence[str]]
"""A call's arguments -> the names it may be trusted by, most specific first; none: it generates nothing."""


class Gate:
    """Passes or refuses calls that cannot be purified."""

    def __init__(self, rules: Rules, recorder: Recorder) -> None:
        self.rules, self.recorder = rules, recorder

    def check(self, caller: str, names: Sequence[str]) -> None:
        """Raise RefusedError unless one of the `names` is trusted; count under the first."""
        rules = self.rules
        with self.recorder.refusals(names[0]):
            if not any(rules.lists(name) for name in names) and not rules.trusts(names[0]):
                self.recorder.refused.add(caller)
                raise RefusedError(
                    f"{caller} asks {names[0]!r}, which cannot be purified; ask a purifying gateway in its "
                    "place, or name it in `trusted`"
                )
        self.recorder.count(names[0], "trusted")

    def refusing(self, named: Named, caller: Callable[[Any], str]) -> Callable[[Any], Any]:
        """A wrapper that refuses calls whose names are not trusted; requests of trusted calls pass."""

        def around(original: Any) -> Any:
            def checked(args: Sequence[Any], options: dict[str, Any]) -> None:
                names = () if reading.get() else named(*args, **options)
                if names:
                    self.check(caller(args[0] if args else None), names)

            @wraps(original)
            def call(*args: Any, **options: Any) -> Any:
                checked(args, options)
                with for_fusion():
                    return original(*args, **options)

            @wraps(original)
            async def later(*args: Any, **options: Any) -> Any:
                checked(args, options)
                with for_fusion():
                    return await original(*args, **options)

            return later if iscoroutinefunction(original) else call

        return around


def kind_of(client: Any) -> str:
    """The full name of a client's class."""
    return f"{type(client).__module__}.{type(client).__name__}"
