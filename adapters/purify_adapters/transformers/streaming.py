"""Streamers that another thread reads: a failure must reach the reader, not hang or end its text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Failure:
    """What stands in a streamer's queue for an error: it is raised when the reader looks at it.

    A streamer compares all it takes from its queue with its stop signal.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        raise self.error

    __hash__ = None  # type: ignore[assignment]  # what cannot be compared has no hash


@contextmanager
def failing_visibly(streamer: Any) -> Iterator[None]:
    """Hand an error to whoever reads the streamer as well as to the caller; nothing marks a success."""
    try:
        yield
    except BaseException as error:
        queue, loop = getattr(streamer, "text_queue", None), getattr(streamer, "loop", None)
        if queue is not None:
            for item in (Failure(error), streamer.stop_signal):  # whoever goes on reading comes to an end
                queue.put(item) if loop is None else loop.call_soon_threadsafe(queue.put_nowait, item)
        raise
