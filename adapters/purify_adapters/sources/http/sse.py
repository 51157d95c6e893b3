"""Server-sent events, byte by byte: https://html.spec.whatwg.org/multipage/server-sent-events.html

Lines end in LF, CR or CRLF and nowhere else (a JSON text may hold U+2028). Chunks may be cut at any
byte. Lines and events without end are errors.
"""

from __future__ import annotations

import re

from purify_plugins.errors import SourceError

LINE, EVENT = 256 * 1024, 1024 * 1024
"""The most bytes of one line, and of one event's data."""
END = re.compile(rb"\r\n|\r|\n")
BOM = b"\xef\xbb\xbf"


class Events:
    """An incremental parser: bytes in, whole events out. `line` and `event` are the limits in bytes."""

    def __init__(self, line: int = LINE, event: int = EVENT) -> None:
        self.line, self.event = line, event
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._started = self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes. Raises SourceError past a limit."""
        if self._after_cr and chunk:
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        self._rest += chunk
        if not END.search(chunk):
            self._require(len(self._rest) <= self.line)
            return []
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = END.split(self._rest)
        self._rest = bytearray(rest)
        return [data for line in lines if (data := self._take(bytes(line))) is not None]

    def _take(self, line: bytes) -> bytes | None:
        """Parse one line; the data of the event that it ends, if any."""
        self._require(len(line) <= self.line)
        if not self._started:
            line, self._started = line.removeprefix(BOM), True
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
            self._require(self._size <= self.event)
        return None

    def _require(self, fine: bool) -> None:
        if not fine:
            raise SourceError("the LLM's server sends events without end; see what answers at its url")
