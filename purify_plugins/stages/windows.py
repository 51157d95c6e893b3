"""`Windows`: the check that a classifier of whole texts makes, on windows of an answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from threading import Thread
from typing import Any, ClassVar, Protocol

from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.checks import Blocked, Check, failing_closed
from purify_plugins.utils.sequences import leading

Span = tuple[int, int]
"""Where a window begins and ends in a text, in characters."""


class Classifier(Protocol):
    """What scores texts, each alone: 0 harmless, 1 certainly to be blocked."""

    def scores(self, texts: Sequence[str]) -> Sequence[float]:
        """A score from 0 to 1 for each text, whatever the others are."""


class GridCheck(Check, ABC):
    """Judges windows on a fixed grid of the text: `size` characters, one every `stride`.

    A character is clear when every window over it has been judged harmless. The last window ends with the
    text and is as long as the others, where the text is: it judges anew characters that are clear already,
    and blocks only those that are not. A window is judged once, in order, as soon as the text has all of it.
    """

    edges: ClassVar[bool] = False
    """Whether it matters that a window ends where the answer does: it is then judged as the last one too."""

    def __init__(
        self, size: float = 400, stride: float = 200, *, key: str = "default", redo: int = 0, name: str = ""
    ) -> None:
        check_grid(size, stride)
        if type(redo) is not int or redo < 0:
            raise ConfigError(f"redo must be a number of times, 0 or more, not {redo!r}")
        self.name = name or type(self).__name__.lower()
        self.size, self.stride, self.key, self.redo = size, min(size, stride), key, redo
        self.window = math.inf if math.isinf(size) else size - 1
        self.windows = 0
        self._read = ""  # up to the end of the last window that was judged
        self._harmless = 0  # windows from the first

    @abstractmethod
    def bad(self, text: str, spans: Sequence[Span], last: bool) -> int | None:
        """The first of these windows of the text that is to be blocked; None: all are harmless.

        `last`: the window ends where the answer does.
        """

    def clear(self, text: str, last: bool) -> int:
        if not text.startswith(self._read):
            self._back(leading(text, self._read))
        self._judge(text, self._grid(len(text)))
        if not last:
            return self._clear
        if len(text) > self._end(self._harmless - 1) or self.edges:
            start = 0 if math.isinf(self.size) else max(0, len(text) - int(self.size))
            self.windows += 1
            if self.bad(text, [(start, len(text))], last=True) is not None:
                raise Blocked(self._clear, self.key)
        return len(text)

    def judged(self) -> Mapping[str, Any]:
        return {"windows": self.windows}

    @property
    def _clear(self) -> int:
        return self._harmless * int(self.stride) if self._harmless else 0

    def _end(self, number: int) -> int:
        """Where a window ends."""
        return number * int(self.stride) + int(self.size) if number >= 0 else 0

    def _grid(self, length: int) -> list[Span]:
        """The whole windows of a text of this length that have not been judged."""
        if length < self.size:
            return []
        size, stride = int(self.size), int(self.stride)
        count = (length - size) // stride + 1
        return [(at * stride, at * stride + size) for at in range(self._harmless, count)]

    def _judge(self, text: str, spans: Sequence[Span]) -> None:
        if not spans:
            return
        found = self.bad(text, spans, last=False)
        self.windows += len(spans)
        self._harmless += len(spans) if found is None else found
        self._read = text[: self._end(self._harmless - 1)]
        if found is not None:
            raise Blocked(self._clear, self.key)

    def _back(self, length: int) -> None:
        """The text goes on from its first `length` characters: later windows are judged again."""
        while self._harmless and self._end(self._harmless - 1) > length:
            self._harmless -= 1
        self._read = self._read[: self._end(self._harmless - 1)]


class Windows(GridCheck):
    """A classifier's verdict on an answer, window by window: blocked where a score is `above`.

    Where the classifier fails, gives no score from 0 to 1 for each text, or takes longer than `deadline`
    seconds, the answer is refused. `size` infinity judges the whole answer, which is held until then.
    """

    def __init__(
        self,
        classifier: Classifier,
        size: float = 400,
        stride: float = 200,
        above: float = 0.5,
        *,
        deadline: float | None = None,
        key: str = "default",
        redo: int = 0,
        name: str = "",
    ) -> None:
        super().__init__(size, stride, key=key, redo=redo, name=name or type(classifier).__name__.lower())
        check_bound(above)
        self.classifier, self.above, self.deadline = classifier, above, deadline

    def bad(self, text: str, spans: Sequence[Span], last: bool) -> int | None:
        found = scored(self.classifier, [text[a:b] for a, b in spans], self.deadline, self.name)
        return next((at for at, score in enumerate(found) if score > self.above), None)


def check_grid(size: float, stride: float) -> None:
    """Raise ConfigError unless windows can have this size and stride; the size may be infinity."""
    numbers = all(type(each) in (int, float) for each in (size, stride))
    if not (numbers and (size == math.inf or (size == size // 1 and 0 < stride <= size)) and stride % 1 == 0):
        raise ConfigError(
            f"windows of {size!r} characters, one every {stride!r}: give whole numbers, "
            "the stride at least 1 and at most the size"
        )


def check_bound(above: float) -> None:
    """Raise ConfigError unless scores can be above this."""
    if type(above) not in (int, float) or not 0 <= above < 1:
        raise ConfigError(f"above must be a number from 0 to 1, and below 1, not {above!r}")


def scored(
    classifier: Classifier, texts: Sequence[str], deadline: float | None = None, name: str = "classifier"
) -> list[float]:
    """A classifier's scores of texts. Raises RefusedError where it fails, is late, or answers otherwise."""
    what = f"classifier {name!r}"
    with failing_closed(what):
        found = list(_by(deadline, lambda: classifier.scores(texts), what))
    if len(found) != len(texts):
        raise RefusedError(f"{what} gave {len(found)} scores for {len(texts)} texts")
    for each in found:
        if isinstance(each, bool) or not isinstance(each, Real) or not 0 <= each <= 1:
            shown = f"{each!r}" if isinstance(each, Real) else f"a value of type {type(each).__name__}"
            raise RefusedError(f"{what} gave {shown} for a score; it must be a number from 0 to 1")
    return [float(each) for each in found]


def _by(deadline: float | None, score: Callable[[], Sequence[float]], what: str) -> Sequence[float]:
    """What `score` returns within so many seconds. Raises RefusedError if it takes longer."""
    if deadline is None:
        return score()
    found: list[Sequence[float]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(score())
        except BaseException as error:  # raised again by the thread that waits
            errors.append(error)

    thread = Thread(target=run, daemon=True, name="purify classifier")
    thread.start()
    thread.join(deadline)
    if errors:
        raise errors[0]
    if not found:
        raise RefusedError(f"{what} gave no scores in {deadline:g} s")
    return found[0]
