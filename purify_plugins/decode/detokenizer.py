"""From bytes to text: half characters wait, stop strings end the answer."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purify_plugins.types import Vocabulary


def names_an_end(vocabulary: Vocabulary, token: int, stop: Sequence[str]) -> bool:
    """Whether a token is a control token whose name is a stop string: in the text it is not spelled."""
    name = vocabulary.control.get(token)
    return name is not None and any(name == each.strip() for each in stop)


class Writer:
    """One row's text, released as early as it is certain.

    A character is held until its last byte is there; text that may be the beginning of a stop
    string is held until it is not. The stop string itself is never released.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = tuple(stop)
        self.stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def write(self, piece: bytes) -> str:
        """Take a token's bytes; return the text that is now certain."""
        return self._release(self._decoder.decode(piece))

    def close(self) -> str:
        """End the text; return what was held. A half character becomes U+FFFD."""
        rest = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return rest + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        if found := [(at + len(stop), at) for stop in self.stop if (at := text.find(stop)) >= 0]:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]  # the stop string that is whole first, however the text was cut
        keep = len(text) - self._uncertain(text)
        self._held = text[keep:]
        return text[:keep]

    def _uncertain(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self.stop)), 0)
