"""From tokens to text: which token wrote which characters, and where a stop string ends the answer."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from purify_plugins.types import DrawnToken, Piece

if TYPE_CHECKING:
    from purify_plugins.types import FinishReason, Token, Vocabulary


class Detokenizer:
    """Decode one answer's tokens, and release each character as early as it is certain.

    - A character belongs to the token that completes it. The token that began it is released with it, as
      an empty piece. Bytes that are not UTF-8 become U+FFFD; a character that the answer's end leaves
      incomplete becomes U+FFFD too, and belongs to the token that began it.
    - Text that may be the beginning of a stop string is held until it is known not to be. Once released it
      still belongs to the tokens that wrote it. A stop string and what follows it are never released: the
      tokens that wrote them have empty pieces.
    - A token without text, such as a control token, has an empty piece in its place.

    So the pieces come in the order of the tokens, at least one a token, and join to the answer's text. A
    token whose text is released in several parts has several pieces, one directly after another.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self.vocabulary, self.stop = vocabulary, tuple(stop)
        self.ended: FinishReason | None = None
        """What ended the answer: "stop" a stop string or a control token of that name, "eos" an end token."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # decoded, and perhaps the beginning of a stop string
        self._open: deque[DrawnToken] = deque()  # tokens that are not released, or only in part
        self._complete = 0  # how many of them, from the first, leave no character incomplete
        self._stopped = False  # by a stop string in the text

    def feed(self, token: Token) -> tuple[DrawnToken, tuple[Piece, ...]]:
        """Take the next token; return the text it decodes to, and the pieces that are certain now."""
        text = self._decoder.decode(self.vocabulary.tokens[token.id])
        drawn = DrawnToken(token, text)
        self._open.append(drawn)
        if not self._decoder.getstate()[0]:
            self._complete = len(self._open)
        elif text:
            self._complete = len(self._open) - 1
        released = self._released(text)
        if self._stopped or self._names_stop(token.id):
            self.ended = "stop"
        elif token.id in self.vocabulary.eos:
            self.ended = "eos"
        return drawn, self._split(released)

    def settle(self) -> tuple[Piece, ...]:
        """Release the text that is held: what follows it is drawn anew, and begins no stop string in it."""
        released, self._held = self._held, ""
        return self._split(released)

    def close(self) -> tuple[Piece, ...]:
        """End the answer; return the pieces that were held."""
        if rest := self._decoder.decode(b"", final=True):
            begun = self._open[self._complete]
            self._open[self._complete] = begun._replace(text=begun.text + rest)
        released = self._released(rest)
        if self._stopped:
            self.ended = "stop"
        released, self._held, self._complete = released + self._held, "", len(self._open)
        return self._split(released, last=True)

    def _names_stop(self, token: int) -> bool:
        """Whether a token is a control token, which has no text, whose name is a stop string."""
        name = self.vocabulary.control.get(token)
        return name is not None and any(name == each.strip() for each in self.stop)

    def _released(self, text: str) -> str:
        """What is certain once `text` is decoded."""
        if self._stopped:
            return ""
        text = self._held + text
        if found := [(at + len(stop), at) for stop in self.stop if (at := text.find(stop)) >= 0]:
            self._stopped, self._held = True, ""
            return text[: min(found)[1]]  # the stop string that is whole first, however the text was cut
        keep = len(text) - self._uncertain(text)
        self._held = text[keep:]
        return text[:keep]

    def _uncertain(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self.stop)), 0)

    def _split(self, text: str, last: bool = False) -> tuple[Piece, ...]:
        """The pieces of the text that is released; `last`: also of the tokens whose text never is."""
        found = []
        while self._complete and len(self._open[0].text) <= len(text):
            piece = Piece(*self._open.popleft())
            self._complete -= 1
            found.append(piece)
            text = text[len(piece.text) :]
        if text:
            token, rest = self._open[0]
            found.append(Piece(token, text))
            self._open[0] = DrawnToken(token, rest[len(text) :])
        if last:
            found += [Piece(token, "") for token, _ in self._open]
            self._open.clear()
        return tuple(found)


def joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with the parts of each token put together: one a token."""
    found: list[Piece] = []
    for piece in pieces:
        if found and found[-1].token is piece.token:
            found[-1] = piece._replace(text=found[-1].text + piece.text)
        else:
            found.append(piece)
    return tuple(found)
