"""The exit of a request with stages: what its reader gets, and the record of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from purify_plugins.decode.detokenizer import joined
from purify_plugins.errors import RefusedError
from purify_plugins.stages.release import Release
from purify_plugins.types import Chunk, DrawnToken, Piece

if TYPE_CHECKING:
    from purify_plugins.stages.calls import Leaf
    from purify_plugins.types import Token


@dataclass(eq=False)
class Exit:
    """What is released of one row: pieces of the answer to `leaf`, or the operator's text without one.

    `failed` is why nothing more of the answer may be released, `said` the operator's text. `given` are the
    tokens that an answer goes on from, whose text has been fed already.
    """

    leaf: Leaf | None = None
    release: Release = field(init=False)
    failed: RefusedError | None = None
    given: tuple[Token, ...] = ()
    said: str = ""
    pieces: list[Piece] = field(default_factory=list)
    drawn: list[DrawnToken] = field(default_factory=list)
    withheld: list[Chunk] = field(default_factory=list)
    untouched: Chunk | None = None
    _open: Piece | None = None
    _fed: tuple[int, int] = (0, 0)
    _untaken: dict[int, int] = field(default_factory=dict)
    _cut: Token | None = None

    def __post_init__(self) -> None:
        request = self.leaf.request if self.leaf else None
        self.release = Release(request.checks, request.vault) if request else Release()

    @property
    def blocked(self) -> bool:
        """Whether what is drawn now is not released."""
        return self.release.block is not None or self.failed is not None

    def feed(self, chunk: Chunk, last: bool = False) -> Iterator[Chunk]:
        """The chunk of what the checks release now, if that is anything."""
        if self.blocked:
            return
        for token, text in chunk.drawn:
            self._untaken[id(token)] = len(text)
        pieces = self._unfed(chunk.pieces)
        for piece in pieces:
            self._untaken[id(piece.token)] = self._untaken.get(id(piece.token), 0) - len(piece.text)
        released: list[Piece] = []
        try:
            for piece in pieces:  # one by one: what is clear before a check fails is kept
                released += self.release.feed([piece])
                if self.blocked:
                    break
            if last and not self.blocked:
                released += self.release.feed((), last)
        except RefusedError as error:
            self.failed = error
        yield from self._chunk(released, last and not self.blocked)

    def show(self, chunk: Chunk) -> Iterator[Chunk]:
        """The chunk as it is: no stage has a part in the answer; the last one is `untouched`."""
        if chunk.completion:
            self.untouched = chunk
        else:
            yield from self._behind(chunk)

    def resume(self, tokens: Sequence[Token]) -> None:
        """Go on after these tokens of the answer; the decoder will decode them again."""
        self.given, self._fed = tuple(tokens), (self.release.tokens, len(self.release.drawn))

    def _unfed(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces without the text of given tokens that has been fed."""
        found, (tokens, characters) = [], self._fed
        places = {id(token): at for at, token in enumerate(self.given)}
        for piece in pieces:
            if places.get(id(piece.token), tokens) < tokens:
                fed = min(characters, len(piece.text))
                characters -= fed
                piece = piece._replace(text=piece.text[fed:])
                if not piece.text:
                    continue
            found.append(piece)
        self._fed = tokens, characters
        return found

    def refuse(self, key: str, text: str) -> Iterator[Chunk]:
        """The operator's text, in place of what is left of the answer."""
        self.said = text
        released = self.release.refuse(key, text)
        latest = next((p.token for p in reversed((*self.pieces, *released)) if p.token), None)
        cut = self._cut = latest if latest and self._partly(latest) else None
        if cut is not None:  # text without a token: its id would spell what is blocked
            released = tuple(p._replace(token=None) if p.token is cut else p for p in released)
            self.pieces = [p._replace(token=None) if p.token is cut else p for p in self.pieces]
        yield from self._chunk(released, last=True)

    def _chunk(self, pieces: Sequence[Piece], last: bool) -> Iterator[Chunk]:
        """A chunk of released pieces; each token is among `drawn` once, when all its text is released."""
        closed: list[DrawnToken] = []
        for piece in pieces:
            if self._open is not None and piece.token is self._open.token:
                self._open = self._open._replace(text=self._open.text + piece.text)
                continue
            closed += self._closed()
            self._open = piece
        closed += self._closed() if last else []
        self.pieces += pieces
        self.drawn += closed
        if pieces or last:
            sent = pieces if last else self._untold(pieces)
            yield from self._behind(Chunk(tuple(sent), tuple(closed), ended=last))

    def _untold(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """The pieces; a token of which only a part is released has no id there: it spells the rest."""
        token = pieces[-1].token
        if token is None or not self._partly(token):
            return pieces
        nameless = token._replace(id=-1, top=())
        return [each._replace(token=nameless) if each.token is token else each for each in pieces]

    def _partly(self, token: Token) -> bool:
        """Whether some of a token's text is not released: it is held, or still to be decoded."""
        return self.release.begun is token or self._untaken.get(id(token), 0) > 0

    def _behind(self, chunk: Chunk) -> Iterator[Chunk]:
        """The chunk; where a check withholds the last text, the chunks before the last one with text."""
        if not any(check.withholds for check in self.release.checks):
            yield chunk
            return
        if chunk.text:
            yield from self.withheld
            self.withheld.clear()
        self.withheld.append(chunk)

    def _closed(self) -> list[DrawnToken]:
        found, self._open = self._open, None
        if not found or not found.token or found.token is self._cut:
            return []
        return [DrawnToken(found.token, found.text)]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that the released text is made of."""
        return tuple(token.id for token, _ in self.drawn)

    @property
    def released(self) -> tuple[Piece, ...]:
        """The released pieces, one a token."""
        return joined(self.pieces)
