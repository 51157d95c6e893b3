"""What an adapter costs above the core: processor time, medians of turns taken alternately."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins import Purifier
from purify_plugins.types import Chunk

if TYPE_CHECKING:
    import pytest

MOST = 1e-4
"""Seconds a token."""
ROUNDS = 9


def replaying(purifier: Purifier, chunks: Sequence[Chunk], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a purifier give an answer it has written before."""

    def again(*_: Any) -> Any:
        yield from chunks

    async def agenerate(*_: Any, **__: Any) -> Any:
        return [chunks[-1].completion]

    monkeypatch.setitem(vars(purifier), "stream", again)
    monkeypatch.setitem(vars(purifier), "generate", lambda *_, **__: [chunks[-1].completion])
    monkeypatch.setitem(vars(purifier), "agenerate", agenerate)


def overhead(purifier: Purifier, use: Callable[[], Any], tokens: int) -> float:
    """Seconds of processor time a token that `use` takes longer than the core's own stream."""
    use()
    turns = [(_seconds(use), _seconds(lambda: list(purifier.stream("")))) for _ in range(ROUNDS)]
    return statistics.median(adapter - core for adapter, core in turns) / tokens


def _seconds(use: Callable[[], Any]) -> float:
    start = time.process_time()
    use()
    return time.process_time() - start
