"""`Check`: what judges an answer's text before any of it is released."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.errors import PurifyError, RefusedError

if TYPE_CHECKING:
    from purify_plugins.types import Completion


class Blocked(Exception):
    """What a check raises: text from character `start` on must not be released."""

    def __init__(self, start: int, key: str = "default") -> None:
        super().__init__(start, key)
        self.start, self.key = start, key


class Check(ABC):
    """Judges text and never changes it.

    For every text T, every beginning P of it, and however T is cut: `clear` depends on the text alone;
    nothing of a span that is blocked in T is clear in any P; and at most `window` characters of P are not
    clear. What is clear stays clear, and what is blocked stays blocked, in every longer text. See
    `purify_plugins.testing.CheckConformance`. After a block the SLM alone may write the span again, at most
    `redo` times: the text then goes on from an earlier beginning. After that the answer is refused, with the
    operator's text for the block's `key`.
    """

    name: str = "check"
    window: float
    """The most characters at the end of a text that it holds back; infinity: the whole answer."""
    redo: int = 0

    @abstractmethod
    def clear(self, text: str, last: bool) -> int:
        """How many of the text's characters may be released; all of them where it is the `last` text.

        Raises Blocked.
        """

    def fresh(self) -> Self:
        """A check for one answer, which may remember what it has judged of it."""
        return copy(self)

    def judged(self) -> Mapping[str, Any]:
        """What certificates say of one answer's check: how much was judged, as JSON."""
        return {}

    def scores(self, answer: Completion) -> Mapping[str, Any]:
        """Figures of a whole answer as it was drawn, for its certificate's `scores`, as JSON.

        Not asked of an answer that is refused. They say nothing of whether it may be released.
        """
        return {}

    withholds: bool = False
    """Whether `released` may refuse an answer: its last text is then held until it has been called."""

    def released(self, completion: Completion) -> None:  # noqa: B027  # most checks have nothing to do then
        """See the whole answer with its certificate, before its reader has the last of it.

        Not called of an answer that was refused or closed. Raises RefusedError.
        """


@contextmanager
def failing_closed(what: str, *passing: type[Exception]) -> Iterator[None]:
    """Raise RefusedError in place of any other error, but those `passing`.

    The message has the error's class and place, and not its own message, which may quote the text that is
    judged: blocked text appears in no log.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:
        raise refusal_of(what, error) from None


def unquoted(error: PurifyError) -> PurifyError:
    """The error; a refusal without those that it was raised for, which may quote the text."""
    if isinstance(error, RefusedError):
        error.__cause__ = error.__context__ = None
    return error


def refusal_of(what: str, error: Exception) -> RefusedError:
    """The RefusedError in place of an error; itself where it is one. See `failing_closed`."""
    if isinstance(error, RefusedError):
        unquoted(error)
        return error
    if isinstance(error, PurifyError):
        return RefusedError(f"{what} failed: {error}")
    place = extract_tb(error.__traceback__)[-1]
    return RefusedError(
        f"{what} failed with {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
    )
