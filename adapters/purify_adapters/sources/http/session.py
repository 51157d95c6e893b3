"""An open batch on a server: each row reads from a stream of the server's own greedy draft.

A stream has, for every position, the row and the server's token. While the tokens read equal the
server's, the next row comes from the stream; at the first difference it is closed, and a new one is
opened after that token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING

from purify_adapters.sources.http.event_loop import finish, together, wait
from purify_adapters.sources.http.rows import ServerToken, readable, unrevealed_row
from purify_plugins.errors import SourceError
from purify_plugins.protocols import Session
from purify_plugins.types import ScoredPrompt

if TYPE_CHECKING:
    from torch import Tensor

    from purify_adapters.sources.http.protocol import Position, RowProvider


class DraftStream:
    """A draft that is being received; it starts after the answer's first `base` tokens."""

    def __init__(self, drafts: AsyncIterator[ServerToken], base: int) -> None:
        self.base = base
        self.drafted: list[ServerToken] = []
        self._error: Exception | None = None
        self._over = False
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._receive(drafts))

    async def _receive(self, drafts: AsyncIterator[ServerToken]) -> None:
        try:
            with readable():
                async for each in drafts:
                    self.drafted.append(each)
                    self._news.set()
        except Exception as error:  # raised by `get` for a position that never came
            self._error = error
        finally:
            self._over = True
            self._news.set()

    async def get(self, at: int) -> ServerToken | None:
        """Position `at` of the draft, awaited; None if the draft ended before it. Raises SourceError."""
        while len(self.drafted) <= at and not self._over:
            self._news.clear()
            await self._news.wait()
        if len(self.drafted) > at:
            return self.drafted[at]
        if self._error:
            raise self._error
        return None

    async def close(self) -> None:
        """Cancel the stream and close its connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class RemoteRow:
    """One row of the batch: its answer so far, and the stream of the server's draft, if any."""

    def __init__(self, source: RowProvider, position: Position) -> None:
        self.source, self.position = source, position
        self.answer: list[int] = []
        self.stream: DraftStream | None = None
        self.ended = False

    async def read(self, tokens: Sequence[int]) -> list[Tensor]:
        """Append tokens; the rows (V + 1,) after each. No request is sent after an end token."""
        vocabulary, start = self.source.vocabulary, len(self.answer)
        self.answer += tokens
        end = next((at for at, token in enumerate(self.answer) if token in vocabulary.eos), len(self.answer))
        rows = await self._rows(range(start + 1, (0 if self.ended else end) + 1))
        return rows + [unrevealed_row(len(vocabulary))] * (len(tokens) - len(rows))

    async def _rows(self, lengths: range) -> list[Tensor]:
        """The row after each length of the answer: from the stream while its tokens agree, else requested."""
        self.source.http.counts.tokens += len(lengths)
        rows: list[Tensor] = []
        for length in lengths:
            if (row := await self.streamed(length)) is None:
                return rows + await self._asked(range(length, lengths.stop))
            rows.append(row)
        return rows

    async def streamed(self, length: int) -> Tensor | None:
        """The row after `length` tokens, if the stream has these tokens; else None."""
        if self.stream is None or length < self.stream.base:
            return None
        for at, token in enumerate(self.answer[self.stream.base : length]):
            drafted = await self.stream.get(at)
            if drafted is None or drafted.token != token:
                return None
        drafted = await self.stream.get(length - self.stream.base)
        return None if drafted is None else drafted.row

    async def _asked(self, lengths: Sequence[int]) -> list[Tensor]:
        """Request the row after each length: by a new stream for one length, by one call for several."""
        await self.close()
        if len(lengths) == 1 and self.source.ahead and self.source.capabilities.streams_rows:
            return [await self.begin(lengths[0])]
        return await self.source.rows(self._at(lengths[-1]), list(lengths))

    async def begin(self, length: int) -> Tensor:
        """Open a stream after `length` tokens; its first row. Raises SourceError."""
        position = self._at(length)
        if self.source.mid_character(position):
            return unrevealed_row(len(self.source.vocabulary))
        self.stream = DraftStream(self.source.stream(position, self.source.ahead), length)
        first = await self.stream.get(0)
        if first is None:
            raise SourceError("the LLM's server ended its answer before the first token; see its log")
        return first.row

    def _at(self, length: int) -> Position:
        return self.position._replace(answer=tuple(self.answer[:length]))

    def ahead(self, limit: int) -> list[int]:
        """The next tokens of the server's draft, as far as the row after each has arrived."""
        if self.stream is None or len(self.answer) < self.stream.base:
            return []
        at = len(self.answer) - self.stream.base
        known = self.stream.drafted
        if [each.token for each in known[:at]] != self.answer[self.stream.base :]:
            return []
        return [each.token for each in known[at : max(len(known) - 1, at)]][:limit]

    def forget(self, length: int) -> bool:
        """Cut the answer to `length` tokens; whether the stream began after a removed one."""
        del self.answer[length:]
        return self.stream is not None and self.stream.base > length

    async def close(self) -> None:
        if self.stream is not None:
            stream, self.stream = self.stream, None
            await stream.close()


class RemoteSession(Session):
    """The rows of a batch, each with its own stream."""

    def __init__(self, source: RowProvider, positions: Sequence[Position]) -> None:
        self.source = source
        self.rows = [RemoteRow(source, position) for position in positions]
        self.prompts: Sequence[ScoredPrompt] = [ScoredPrompt(position.prompt) for position in positions]

    def begin(self, scored: int) -> Tensor:
        """The first token's rows (rows, V + 1). Raises SourceError."""
        import torch

        found = wait(self._begin(scored))
        self.prompts = [
            prompt._replace(logprobs=scores) for prompt, (_, scores) in zip(self.prompts, found, strict=True)
        ]
        return torch.stack([row for row, _ in found])

    async def _begin(self, scored: int) -> list[tuple[Tensor, tuple[float, ...]]]:
        try:
            with readable():
                return await together([self._first(row, scored) for row in self.rows])
        except BaseException:  # CancelledError too: the caller has no session to close yet
            await self._close()
            raise

    async def _first(self, row: RemoteRow, scored: int) -> tuple[Tensor, tuple[float, ...]]:
        """A row's first token and prompt scores; retried, since no token of the answer is out yet."""
        http = self.source.http
        http.counts.tokens += 1
        rows = await http.with_retries(lambda: row._asked([0]))
        scores = await http.with_retries(lambda: self.source.scores(row.position, scored)) if scored else ()
        return rows[0], scores

    def extend(self, tokens: Tensor) -> Tensor:
        """Append (rows, n) token ids; (rows, n, V + 1) log-probabilities after each. Raises SourceError."""
        import torch

        rows = wait(self._extend(tokens.tolist()))
        return torch.stack([torch.stack(row) for row in rows])

    async def _extend(self, tokens: Sequence[Sequence[int]]) -> list[list[Tensor]]:
        with readable():
            return await together([row.read(new) for row, new in zip(self.rows, tokens, strict=True)])

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        """The server's draft after each live row, equally many tokens for each.

        The rows after these tokens have arrived: `extend` will not wait. Streams of rows not in `live`
        are closed.
        """
        wait(self._end(set(range(len(self.rows))) - set(live)))
        drafts = [self.rows[row].ahead(limit) for row in sorted(live)]
        length = min(map(len, drafts))
        found = iter(drafts)
        return [next(found)[:length] if row in live else [0] * length for row in range(len(self.rows))]

    async def _end(self, rows: Collection[int]) -> None:
        for row in rows:
            self.rows[row].ended = True
            await self.rows[row].close()

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only; the others' streams are closed."""
        wait(self._end(set(range(len(self.rows))) - set(rows)))
        self.rows = [self.rows[row] for row in rows]
        self.prompts = [self.prompts[row] for row in rows]

    def rewind(self, lengths: Tensor) -> None:
        """Cut each row's answer to its length, and close the streams that began after a removed token."""
        stale = [row for row, length in zip(self.rows, lengths.tolist(), strict=True) if row.forget(length)]
        if stale:
            wait(together([row.close() for row in stale]))

    def close(self) -> None:
        """Close every stream at once."""
        finish(self._close())

    async def _close(self) -> None:
        await self._end(range(len(self.rows)))
