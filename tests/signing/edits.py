"""Single edits of certificates, envelopes and chains, drawn at random from a seed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from random import Random
from typing import Any

from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import totals

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, 10**30, 0.5, 1e300, "", "x", "inf", "0.000000000"),
    *([], {}, [1], {"a": 1}, "f" * 64, "lockstep", "path", "none", "windowed", "engine"),
)


def hundred(way: Callable[[Any, Random], Any], original: Any) -> Iterator[Any]:
    """The first hundred edits of one kind that leave something else than there was."""
    made = (way(original, Random(seed)) for seed in count())
    return islice((each for each in made if each not in (original, (original, ()))), 100)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a JSON value, containers too."""
    if path:
        yield path
    inside = [*value.items()] if isinstance(value, dict) else []
    inside += [*enumerate(value)] if isinstance(value, list) else []
    for key, item in inside:
        yield from places(item, (*path, key))


def edit(body: Any, random: Random) -> tuple[Any, ...]:
    """Change one place: another value, nothing at all, or one more key; where it was."""
    while True:
        path = random.choice([*places(body)])
        inside = body
        for key in path[:-1]:
            inside = inside[key]
        before = json.dumps(inside)
        what = random.randrange(8)
        if what == 0:
            del inside[path[-1]]
        elif what == 1 and isinstance(inside, dict):
            inside["more"] = random.choice(VALUES)
        elif isinstance(inside[path[-1]], int | float) and what < 5:
            inside[path[-1]] = inside[path[-1]] + random.choice((1, -1, 0.5))
        else:
            inside[path[-1]] = random.choice(VALUES)
        if json.dumps(inside) != before:
            return path


def forged(text: str, random: Random, mend: bool = True) -> tuple[str, tuple[Any, ...]]:
    """A certificate with one edit, its totals and digest made again to match; and where the edit is."""
    body = json.loads(text)
    path = edit(body, random)
    if mend:
        with suppress(ArithmeticError, TypeError, ValueError, IndexError, KeyError, AttributeError):
            body["totals"] = totals(body["steps"])
        with suppress(TypeError, ValueError):
            body["digest"] = digest(body)
    made = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return made, path if made != text else ()


def inside(envelope: bytes, random: Random) -> bytes:
    """An envelope whose certificate was edited, with its digest made again."""
    outer = json.loads(envelope)
    statement = json.loads(base64.b64decode(outer["payload"]))
    edit(statement, random)
    with suppress(TypeError, KeyError):
        statement["predicate"]["digest"] = digest(statement["predicate"])
    outer["payload"] = base64.b64encode(canonical(statement).encode()).decode()
    return canonical(outer).encode()


def outside(envelope: bytes, random: Random) -> bytes:
    """An envelope with an edit of its own fields."""
    outer = json.loads(envelope)
    edit(outer, random)
    return canonical(outer).encode()


def letter(data: bytes, random: Random) -> bytes:
    """Bytes of which one was changed, dropped or doubled."""
    at = random.randrange(len(data))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :],
        lambda: data[:at] + data[at + 1 :],
        lambda: data[:at] + data[at : at + 1] + data[at:],
        lambda: data[:at],
    )
    return random.choice(ways)()
