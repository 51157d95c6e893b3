"""Which token wrote which characters, and how far it was moved: what --explain and the demo colour."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Sequence

from purify_plugins.types import Chunk, Token, Vocabulary


def pieces(vocabulary: Vocabulary, steps: Sequence[Token]) -> Iterator[tuple[str, Token]]:
    """Each token with the text that became certain with it; half a character waits for its other half."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for at, step in enumerate(steps, 1):
        yield decoder.decode(vocabulary.tokens[step.id], final=at == len(steps)), step


class Attribution:
    """Tells which token wrote each piece of a streamed answer.

    Text can be released later than its token was drawn (half characters, possible stop strings).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: deque[tuple[int, Token]] = deque()
        self._last: Token | None = None

    def split(self, chunk: Chunk) -> Iterator[tuple[str, Token | None]]:
        """The chunk's text, a piece per token."""
        for step in chunk.steps:
            self._waiting.append((len(self._decoder.decode(self.vocabulary.tokens[step.id])), step))
            self._last = step
        text = chunk.text
        while text and self._waiting:
            length, step = self._waiting.popleft()
            if length > len(text):
                self._waiting.appendleft((length - len(text), step))
            if length:
                yield text[:length], step
            text = text[length:]
        if text:  # the half character that an answer ends with
            yield text, self._last
