"""A server that takes text alone: what there is to send, and where there is nothing."""

from __future__ import annotations

from typing import Any

from purify_adapters.sources.http.source import Place, RemoteSource
from purify_plugins.errors import SourceError
from purify_plugins.types import Prompt


class TextSource(RemoteSource):
    """A source whose places are texts, which the server cuts into tokens as the tokenizer here does."""

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        text = self.reader.text(prompt)
        return text, self.reader.tokenised(text) if text else ()

    def text(self, place: Place) -> str | None:
        """The text up to a place; None inside a character.

        Bytes that are no UTF-8 at all are what a reader sees of them, U+FFFD.
        """
        control = self.vocabulary.control
        spelled = [
            control[token].encode() if token in control else self.vocabulary.tokens[token]
            for token in place.answer
        ]
        written = b"".join(spelled)
        try:
            return place.text + written.decode()
        except UnicodeDecodeError as error:
            whole = error.reason != "unexpected end of data"
            return place.text + written.decode(errors="replace") if whole else None

    def blind(self, place: Place) -> bool:
        inside = self.text(place) is None
        self.wire.counts.blind += inside
        return inside

    def inputs(self, place: Place) -> tuple[str, int]:
        """The text that is sent, and how many tokens the server should find in it."""
        text = self.text(place) or ""
        ids = self.reader.tokenised(text)
        self.wire.counts.drifted += ids != place.ids
        return text, len(ids)

    def require_read(self, count: Any, expected: int) -> None:
        """The free alarm: did the server read the tokens that we think it did? Raises SourceError."""
        if count is not None and str(count) != str(expected):
            raise SourceError(str(self.another()))
