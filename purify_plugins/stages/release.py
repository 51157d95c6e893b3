"""`Release`: one answer's exit. What of its drawn text may be released, as it is drawn."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from purify_plugins.errors import RefusedError
from purify_plugins.stages.checks import Blocked, failing_closed, refusal_of
from purify_plugins.types import Piece

if TYPE_CHECKING:
    from purify_plugins.stages.checks import Check
    from purify_plugins.stages.vault import Vault
    from purify_plugins.types import Token


class Segment(NamedTuple):
    """A part of a released text, and where it comes from.

    "drawn": characters `start` to `end` of the drawn text. "restored": a true value in place of the surrogate
    that stands there, whose id is `key`. "operator": the operator's text for the refusal `key`.
    """

    kind: Literal["drawn", "restored", "operator"]
    start: int
    end: int
    key: str = ""


@dataclass(frozen=True)
class BlockedSpan:
    """A span that a check blocked: from character `start` of the drawn text on.

    `before` whole tokens stand before it, and `tokens` have been drawn of it so far, the one that it begins
    in included; a token that only begins a character counts to the one that completes it.
    """

    check: Check
    key: str
    start: int
    before: int
    tokens: int


class _Part(NamedTuple):
    """A piece that is not released yet: its token's number, and where its text ends in the drawn text."""

    token: Token | None
    number: int
    end: int


class _Surrogate(NamedTuple):
    start: int
    end: int
    id: str
    value: str


class Release:
    """What may be released of one answer, as its text is drawn; what it released is in `text`.

    The text that is released depends on the drawn text alone, however it was cut. A character is released
    when every check has cleared it, and no surrogate can begin there that is not complete; a surrogate is
    replaced by its true value. Nothing from the `start` of a blocked span on is released. The pieces that are
    released are in the order of their tokens, and join to the released text; a true value belongs to the
    token that completes its surrogate, an operator's text to no token.
    """

    def __init__(self, checks: Sequence[Check] = (), vault: Vault | None = None) -> None:
        self.checks: list[Check] = []
        for check in checks:
            with failing_closed(f"check {check.name!r}"):
                self.checks.append(check.fresh())
        self.vault, self.longest = vault, operator.index(vault.longest) if vault else 0
        self.block: BlockedSpan | None = None
        """The blocked span: nothing is taken until the text goes back before it, or the answer is refused."""
        self.drawn = ""
        self.segments: list[Segment] = []
        self._whole = any(check.redo for check in checks)  # a token that may be drawn again is not cut
        self._ends: list[int] = []  # where the text of each token ends
        self._last: Token | None = None
        self._parts: deque[_Part] = deque()
        self._at = 0  # drawn characters that are released, or replaced
        self._clear_before = 0  # drawn characters that every check cleared when one blocked
        self._searched = 0  # no surrogate begins before here but those in `_found`
        self._found: deque[_Surrogate] = deque()
        self._sent: list[str] = []
        self._due: list[str] = []  # the texts of segments whose pieces are being made

    @property
    def tokens(self) -> int:
        """How many tokens of the answer have been taken."""
        return len(self._ends)

    @property
    def begun(self) -> Token | None:
        """The token that is next: a part of its text may be released, and its id spells the rest."""
        return self._parts[0].token if self._parts else None

    @property
    def text(self) -> str:
        """What has been released."""
        return "".join(self._sent)

    def feed(self, pieces: Sequence[Piece], last: bool = False) -> tuple[Piece, ...]:
        """Take the next pieces, with `last` the answer's last ones; return the pieces that are released.

        Where a check blocks, `block` is set, what is before the span is returned, and the rest is not taken.
        Raises RefusedError where a check or the vault fails: then nothing more may be released.
        """
        found: list[Piece] = []
        for piece in pieces:
            self._take(piece)
            # Judged piece by piece, so that how chunks group them makes no difference.
            if piece.text:
                found += self._judged(last=False)
            if self.block:
                return self._checked(found)
        if last:
            found += self._judged(last=True)
        return self._checked(found)

    def rewind(self, tokens: int) -> None:
        """Go back to the answer's first `tokens` tokens (`BlockedSpan.before`); it is drawn on from there."""
        end = self._ends[tokens - 1] if tokens else 0
        if end < self._at:
            raise RefusedError("a span was to be written again of which a part is released")
        del self._ends[tokens:]
        self.drawn, self.block, self._last = self.drawn[:end], None, None
        while self._parts and self._parts[-1].number >= tokens:
            self._parts.pop()
        self._searched = max(self._at, min(self._searched, end - max(self.longest, 1) + 1))
        while self._found and self._found[-1].start >= self._searched:
            self._found.pop()

    def refuse(self, key: str, text: str) -> tuple[Piece, ...]:
        """End the answer with the operator's text for a refusal; returns the pieces that are released.

        Text before a blocked span that was held only because it might have gone on otherwise is released.
        """
        found = self._release(self._clear_before, last=True) if self.block else []
        self._found.clear()
        self._segment(Segment("operator", self._at, self._at, key), text)
        return self._checked([*found, Piece(None, text)])

    # Taking and judging

    def _take(self, piece: Piece) -> None:
        if self.block:
            raise RefusedError("an answer went on after a check had blocked it")
        self.drawn += piece.text
        if piece.token is self._last and self._ends:
            self._ends[-1] = len(self.drawn)
        else:
            self._ends.append(len(self.drawn))
        self._last = piece.token
        self._parts.append(_Part(piece.token, len(self._ends) - 1, len(self.drawn)))

    def _judged(self, last: bool) -> list[Piece]:
        """What the checks clear now."""
        clear, blocked = len(self.drawn), []
        for check in self.checks:
            try:
                free = self._clear(check, last)
            except Blocked as found:
                free = self._start(check, found)
                blocked.append((free, check, found.key))
            clear = min(clear, free)
        if blocked:
            start, check, key = min(blocked, key=lambda each: each[0])
            self.block, self._clear_before = BlockedSpan(check, key, start, *self._tokens_at(start)), clear
        if self._whole and not (last and not blocked):
            clear = self._token_end(clear)
        return self._release(clear, last and not blocked)

    def _clear(self, check: Check, last: bool) -> int:
        """How much a check clears; raises RefusedError where it fails, or its word cannot be taken."""
        try:  # no context manager, which costs as much as a check
            free = operator.index(check.clear(self.drawn, last))
        except Blocked:
            raise
        except Exception as error:
            raise refusal_of(f"check {check.name!r}", error) from None
        most = len(self.drawn)
        if not 0 <= free <= most:
            raise RefusedError(f"check {check.name!r} cleared {free} of {most} characters")
        if last and free < most:
            raise RefusedError(f"check {check.name!r} held back {most - free} characters of a whole answer")
        return free

    def _start(self, check: Check, blocked: Blocked) -> int:
        with failing_closed(f"check {check.name!r}"):
            start = operator.index(blocked.start)
        if not self._at <= start <= len(self.drawn):
            raise RefusedError(
                f"check {check.name!r} blocked from character {start} on, with {self._at} released "
                f"of {len(self.drawn)}"
            )
        return start

    def _tokens_at(self, start: int) -> tuple[int, int]:
        """The tokens that end before a character, and those that have been drawn since."""
        before = bisect_right(self._ends, start)
        # A token without text before a span may hold the first bytes of its first character.
        while before and self._ends[before - 1] == (self._ends[before - 2] if before > 1 else 0):
            before -= 1
        return before, len(self._ends) - before

    def _token_end(self, limit: int) -> int:
        """Where the last whole token before a character ends; the newest token may go on."""
        whole = bisect_right(self._ends, limit, 0, max(len(self._ends) - 1, 0))
        return self._ends[whole - 1] if whole else 0

    # Releasing

    def _release(self, clear: int, last: bool) -> list[Piece]:
        """The pieces up to `clear`, with true values in place of surrogates."""
        found: list[Piece] = []
        limit = min(clear, self._search(clear, last)) if self.vault else clear
        while self._found and self._found[0].end <= clear:
            surrogate = self._found.popleft()
            found += self._drawn_to(surrogate.start)
            found.append(self._restored(surrogate, found))
        if self._found:
            limit = min(limit, self._found[0].start)
        found += self._drawn_to(limit)
        if last and not self.block:
            found += [Piece(part.token, "") for part in self._parts]
            self._parts.clear()
        return found

    def _search(self, clear: int, last: bool) -> int:
        """Search for surrogates; return the place before which all that begin there have been found."""
        assert self.vault is not None
        # Whether one begins at a place, and which, depends on the `longest` characters from there on; where a
        # span may be written again, on those that are clear: what replaces the others may end it otherwise.
        sure = clear if self._whole else len(self.drawn)
        known = len(self.drawn) if last else sure - max(self.longest, 1) + 1
        while self._searched < known:
            try:
                found = self.vault.find(self.drawn, self._searched)
                surrogate = _Surrogate(*found) if found else None
                if surrogate and not self._sound(surrogate):
                    raise RefusedError(f"the vault found a surrogate at {surrogate.start}:{surrogate.end}")
            except Exception as error:
                raise refusal_of("the vault", error) from None
            if surrogate is None or surrogate.start >= known:
                self._searched = known
                break
            self._found.append(surrogate)
            self._searched = surrogate.end
        return self._searched

    def _sound(self, found: _Surrogate) -> bool:
        inside = self._searched <= found.start < found.end <= len(self.drawn)
        return inside and found.end - found.start <= self.longest

    def _drawn_to(self, stop: int) -> list[Piece]:
        """The pieces of the drawn text up to `stop`; tokens without text stay with the text after them."""
        found = []
        if stop > self._at:
            self._segment(Segment("drawn", self._at, stop), self.drawn[self._at : stop])
        while self._at < stop:
            token, _, end = self._parts[0]
            found.append(Piece(token, self.drawn[self._at : min(end, stop)]))
            if end <= stop:
                self._parts.popleft()
            self._at = max(self._at, min(end, stop))
        return found

    def _restored(self, surrogate: _Surrogate, found: list[Piece]) -> Piece:
        """The piece with the true value; `found` gets those of the tokens that only began the surrogate."""
        self._segment(Segment("restored", surrogate.start, surrogate.end, surrogate.id), surrogate.value)
        while self._parts[0].end < surrogate.end:
            found.append(Piece(self._parts.popleft().token, ""))
        token, _, end = self._parts[0]
        if end == surrogate.end:
            self._parts.popleft()
        self._at = surrogate.end
        return Piece(token, surrogate.value)

    def _segment(self, segment: Segment, text: str) -> None:
        self._due.append(text)
        before = self.segments[-1] if self.segments else None
        if before and before.kind == segment.kind == "drawn" and before.end == segment.start:
            self.segments[-1] = before._replace(end=segment.end)
        else:
            self.segments.append(segment)

    def _checked(self, found: list[Piece]) -> tuple[Piece, ...]:
        """The pieces; raises RefusedError unless they add up to what the segments say is released."""
        text = "".join(piece.text for piece in found)
        if text != "".join(self._due):
            raise RefusedError("an answer's pieces do not add up to its segments; nothing more is released")
        self._due.clear()
        self._sent.append(text)
        return tuple(found)
