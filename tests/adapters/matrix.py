"""Every way to have text written that we know of, before activation and after, and what becomes of it.

A row is purified, refused by name, or open, with the reason; docs/activation.md lists the open ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.adapters import ways_children, ways_clients, ways_engines, ways_hub, ways_models

Write = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One way: `prepare` takes what it writes with (a model, a server's URL), and returns what writes.

    `reason` is why an open one is open.
    """

    kind: str
    way: str
    expected: str
    built: str
    prepare: Callable[[Any], Write] | None = None
    reason: str = ""
    slow: bool = False


def rows(
    kind: str,
    ways: dict[str, Any],
    *,
    purified: set[str] | frozenset[str] = frozenset(),
    open: dict[str, str] | None = None,
    earlier: set[str] | frozenset[str] = frozenset(),
    slow: Callable[[str, str], bool] = lambda way, built: False,
) -> list[Row]:
    """Two rows for each way, but for those of before alone; in the slow suite where `slow` says so."""
    reasons = open or {}
    return [
        Row(
            kind,
            way,
            "purified" if way in purified else "open" if way in reasons else "refused",
            built,
            prepare,
            reasons.get(way, ""),
            slow(way, built),
        )
        for way, prepare in ways.items()
        for built in (["before"] if way in earlier else ["before", "after"])
    ]


def at_once(run: Callable[[Any], Any]) -> Callable[[Any], Write]:
    """A way that prepares nothing."""
    return lambda thing: lambda: run(thing)


def without(prepare: Callable[[], Write]) -> Callable[[Any], Write]:
    """A way that is given nothing."""
    return lambda thing: prepare()


def built_of(way: str) -> str:
    """When a process was started."""
    return "before" if "started before" in way else "after"


MATRIX = [
    *rows(
        "model",
        {name: at_once(run) for name, run in ways_models.WAYS.items()},
        purified=ways_models.WAYS.keys() - ways_models.REFUSED,
        slow=lambda way, built: built == "after" and way not in ways_models.QUICK,
    ),
    *rows(
        "model",
        ways_models.HELD,
        purified=ways_models.HELD_PURIFIED,
        open=ways_models.HELD_OPEN,
        earlier=ways_models.EARLIER,
        slow=lambda way, built: built == "after" or way in ways_models.COMPILED,
    ),
    *rows("hub", ways_hub.WAYS, purified=set(ways_hub.WAYS), slow=lambda way, built: built == "after"),
    *rows("client", ways_clients.CLIENTS, open=ways_clients.OPEN),
    *rows(
        "engine",
        {way: without(prepare) for way, prepare in ways_engines.WAYS.items()},
        open=ways_engines.OPEN,
        earlier=ways_engines.EARLIER,
        slow=lambda way, built: built == "before" and way not in ways_engines.EARLIER,
    ),
    *(Row("child", way, "purified", built_of(way)) for way in sorted(ways_children.PURIFIED)),
    *(Row("child", way, "refused", built_of(way)) for way in sorted(ways_children.REFUSED)),
    *(Row("child", way, "open", built_of(way), reason=reason) for way, reason in ways_children.OPEN.items()),
]
