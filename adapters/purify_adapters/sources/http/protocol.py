"""What a session on a server needs of its source, and where in a text a server is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from purify_adapters.sources.http.client import HttpClient
    from purify_adapters.sources.http.rows import ServerToken
    from purify_plugins.protocols import Capabilities
    from purify_plugins.types import Vocabulary


class Position(NamedTuple):
    """A prompt, as text and as token ids, and the tokens of the answer so far."""

    text: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.answer


class RowProvider(Protocol):
    """A server's rows: (V + 1,) log-probabilities, the last column the log of the mass not shown."""

    http: HttpClient
    vocabulary: Vocabulary
    capabilities: Capabilities
    ahead: int

    def mid_character(self, position: Position) -> bool:
        """Whether the position is inside a character, where a server that takes text cannot be asked."""

    def stream(self, position: Position, length: int) -> AsyncIterator[ServerToken]:
        """The server's own greedy draft after a position, a row with every token. Raises SourceError."""

    async def rows(self, position: Position, lengths: Sequence[int]) -> list[Tensor]:
        """The row after each of the first so many tokens of the answer. Raises SourceError."""

    async def scores(self, position: Position, scored: int) -> tuple[float, ...]:
        """Log-probabilities (nats) of the prompt's last `scored` tokens, or of fewer. Raises SourceError."""
