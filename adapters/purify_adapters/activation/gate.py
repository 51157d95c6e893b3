"""Who may write: trusted servers and models pass, all others are refused by name."""

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
"""A call's arguments -> the names it may be trusted by, most telling first; none: it writes nothing."""


class Gate:
    """Passes or refuses calls of what cannot be purified."""

    def __init__(self, rules: Rules, recorder: Recorder) -> None:
        self.rules, self.recorder = rules, recorder

    def check(self, who: str, names: Sequence[str]) -> None:
        """Raise RefusedError unless one of the `names` is trusted; count under the first."""
        rules = self.rules
        with self.recorder.refusals(names[0]):
            if not any(rules.lists(name) for name in names) and not rules.trusts(names[0]):
                self.recorder.refused.add(who)
                raise RefusedError(
                    f"{who} asks {names[0]!r}, which cannot be purified; ask a purifying gateway in its "
                    "place, or name it in `trusted`"
                )
        self.recorder.count(names[0], "trusted")

    def refusing(self, named: Named, who: Callable[[Any], str]) -> Callable[[Any], Any]:
        """A wrapper that refuses calls whose names are not trusted; what trusted ones ask passes the wire."""

        def around(original: Any) -> Any:
            def checked(args: Sequence[Any], options: dict[str, Any]) -> None:
                names = () if reading.get() else named(*args, **options)
                if names:
                    self.check(who(args[0] if args else None), names)

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
    """The class of a client, as one imports it."""
    return f"{type(client).__module__}.{type(client).__name__}"
