"""Streamers that another thread reads: an error must reach the reader, not hang it or end its text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Failure:
    """An error in a streamer's queue, raised in the reader.

    A streamer compares each item of its queue with its stop signal: that raises.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        raise self.error

    __hash__ = None  # type: ignore[assignment]  # comparing raises


@contextmanager
def failing_visibly(streamer: Any) -> Iterator[None]:
    """Put an error into the streamer's queue as well as raising it."""
    try:
        yield
    except BaseException as error:
        queue, loop = getattr(streamer, "text_queue", None), getattr(streamer, "loop", None)
        if queue is not None:
            for item in (Failure(error), streamer.stop_signal):  # then the end, for a reader that goes on
                queue.put(item) if loop is None else loop.call_soon_threadsafe(queue.put_nowait, item)
        raise


def handed_streamer() -> Any:
    """The streamer among the nearest caller's locals, or in one of its local tuples and dicts.

    Only for a call that fails anyway: a foreign decoding loop does not pass its streamer on.
    """
    from transformers.generation.streamers import BaseStreamer

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_locals is not frame.f_globals:  # a module's streamers belong to any of its calls
            for value in _one_deep(frame.f_locals.values()):
                if isinstance(value, BaseStreamer):
                    return value
        frame = frame.f_back
    return None


def _one_deep(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and those in tuples and dicts among them, as `*args` and `**kwargs` are."""
    for value in list(values):
        yield value
        if type(value) in (tuple, dict):
            yield from list(value.values() if type(value) is dict else value)
