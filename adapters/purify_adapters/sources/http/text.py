"""Sources whose server takes text alone, not token ids."""

from __future__ import annotations

from typing import Any

from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins.errors import SourceError
from purify_plugins.types import Prompt


class TextSource(RemoteSource):
    """A source that sends text, which the server tokenizes as the tokenizer here does."""

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        text = self.reader.text(prompt)
        return text, self.reader.tokenised(text) if text else ()

    def text(self, position: Position) -> str | None:
        """The text up to a position; None inside a character. Bytes that are not UTF-8 become U+FFFD."""
        control = self.vocabulary.control
        spelled = [
            control[token].encode() if token in control else self.vocabulary.tokens[token]
            for token in position.answer
        ]
        written = b"".join(spelled)
        try:
            return position.text + written.decode()
        except UnicodeDecodeError as error:
            whole = error.reason != "unexpected end of data"
            return position.text + written.decode(errors="replace") if whole else None

    def mid_character(self, position: Position) -> bool:
        inside = self.text(position) is None
        self.http.counts.mid_character += inside
        return inside

    def inputs(self, position: Position) -> tuple[str, int]:
        """The text to send, and how many tokens the server should find in it."""
        text = self.text(position) or ""
        ids = self.reader.tokenised(text)
        self.http.counts.drifted += ids != position.ids
        return text, len(ids)

    def require_read(self, count: Any, expected: int) -> None:
        """Raise SourceError if the server read another number of tokens than expected."""
        if count is not None and str(count) != str(expected):
            raise SourceError(str(self.another()))
