"""A model behind a server as a LogitSource; a subclass knows one kind of server's routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import together, wait
from purify_adapters.sources.http.options import AHEAD, ServerOptions
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import TOLERANCE, ServerToken, readable, unrevealed_row
from purify_adapters.sources.http.session import RemoteSession
from purify_plugins.errors import ConfigError, ModelError, PromptError, TooLongError, VocabularyError
from purify_plugins.protocols import Capabilities, LogitSource
from purify_plugins.tokenizers.loading import find_tokenizer, load_tokenizer
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder
from purify_plugins.types import Prompt, Vocabulary
from purify_plugins.utils.model_files import eos_ids

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.threat import Engine

SAMPLE = "Été, 北京 und 1,234.5 naïve  cafés:\n\tdef f(x): return x"
"""Text that different tokenizers cut differently."""
SCORED = 8
"""Prompt tokens whose rows are requested at once from a server that shows parts of rows."""


class RemoteSource(LogitSource):
    """The common part: the tokenizer that encodes prompts here, and the HTTP client.

    A subclass has `kind`, `sign`, `Options`, and `probe`, which finds out the `capabilities`; it requests
    a `row`, a `stream` and, where the server can, `rows` and `scores`.
    """

    kind = "remote"
    sign: tuple[str, str]
    """A route that this kind of server answers, and a key of the JSON there: how `detect` knows it."""
    health = "/health"
    """The route that says whether the server is up; one without it is asked by `sign`."""
    Options: type[ServerOptions] = ServerOptions
    """The keys of this source."""
    capabilities: Capabilities
    engine: Engine
    vocabulary: Vocabulary
    context_length: int | None = None

    def __init__(
        self,
        http: HttpClient,
        reader: PromptEncoder,
        top_n: int,
        *,
        ahead: int = AHEAD,
        tolerance: float = TOLERANCE,
        engine: Engine = "untrusted",
    ) -> None:
        if ahead < 0 or top_n < 1:
            raise ConfigError("top_n must be at least 1, and ahead 0 (one request for each token) or more")
        if engine not in ("untrusted", "trusted"):
            raise ConfigError(
                f"engine must be 'untrusted', or 'trusted' for a server you vouch for, not {engine!r}"
            )
        self.http, self.reader, self.top_n = http, reader, top_n
        self.ahead, self.tolerance, self.engine = ahead, tolerance, engine
        self.vocabulary = reader.vocabulary

    @classmethod
    def load(cls, url: str = "", **keys: Any) -> Self:
        """Reach the model behind the server at `url`; the other keys are those of `Options`.

        Raises ConfigError, ModelError, VocabularyError, SourceError.
        """
        return cls.reached(cls.Options(url=url, **keys))

    @classmethod
    def reached(cls, options: ServerOptions) -> Self:
        """The source for these options, once the server has said what it can do. Raises as `load`."""
        source = cls(
            cls.client(options),
            reader(options.tokenizer),
            options.top_n or 1,
            ahead=options.ahead,
            tolerance=options.tolerance,
            engine=options.engine,
        )
        wait(source._probed(options.top_n))
        return source

    @staticmethod
    def client(options: ServerOptions) -> HttpClient:
        """The HTTP client of the options' server."""
        return HttpClient(
            options.url,
            options.api_key,
            options.timeouts,
            options.retries,
            options.connections,
            options.top_n or 0,
        )

    @property
    def name(self) -> str:
        return self.reader.name

    async def reach(self) -> None:
        """Ask whether the server is up, which costs it no forward pass of ours. Raises SourceError."""
        await self.http.reach(self.health, self.sign[0])

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[RemoteSession, Tensor]:
        """Request the row after each prompt. Raises PromptError, SourceError."""
        session = RemoteSession(self, [self.start(prompt) for prompt in prompts])
        return session, session.begin(scored)

    def start(self, prompt: Prompt) -> Position:
        """The position after a prompt; chats are rendered here. Raises PromptError."""
        text, ids = self.read(prompt)
        if not ids:
            raise PromptError("the prompt is empty; give at least one token of text")
        if self.context_length is not None and len(ids) >= self.context_length:
            raise TooLongError("the LLM's server", len(ids), self.context_length)
        return Position(text, ids)

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        """The prompt as text and as token ids; no text where the server takes ids."""
        return "", self.reader.tokens(prompt)

    def mid_character(self, position: Position) -> bool:
        """Whether the position is inside a character, so that no text ends there."""
        return False

    async def row(self, position: Position) -> ServerToken:
        """Request the row after a position. Raises SourceError."""
        raise NotImplementedError

    def stream(self, position: Position, length: int) -> AsyncIterator[ServerToken]:
        """The server's greedy draft after a position, with a row for each token. Raises SourceError."""
        raise NotImplementedError

    async def several(self, positions: Sequence[Position]) -> list[ServerToken]:
        """Request the row after each position, concurrently where one request cannot hold them all."""
        return await together([self.row(position) for position in positions])

    async def rows(self, position: Position, lengths: Sequence[int]) -> list[Tensor]:
        """The row after each length of the answer."""
        positions = [position._replace(answer=position.answer[:length]) for length in lengths]
        found = iter(await self.several([each for each in positions if not self.mid_character(each)]))
        size = len(self.vocabulary)
        return [unrevealed_row(size) if self.mid_character(each) else next(found).row for each in positions]

    async def scores(self, position: Position, scored: int) -> tuple[float, ...]:
        """Log-probabilities (nats) of the prompt's last `scored` tokens, or of fewer.

        Of those that a server shows in part, as many at the end as are shown. They are requested from the
        end, SCORED at a time, so that none is requested before one that is not.
        """
        prompt, found = position.prompt, list[float]()
        first = max(1, len(prompt) - scored)
        step = SCORED if self.capabilities.max_n < len(self.vocabulary) else len(prompt)
        for end in range(len(prompt), first, -step):
            places = range(max(end - step, first), end)
            prefixes = [position._replace(prompt=prompt[:at]) for at in places]
            part = await self.likely(prefixes, [prompt[at] for at in places])
            unseen = [at for at, logprob in enumerate(part) if logprob == float("-inf")]
            found = [*part[unseen[-1] + 1 if unseen else 0 :], *found]
            if unseen:
                break
        return tuple(found)

    async def likely(self, positions: Sequence[Position], tokens: Sequence[int]) -> list[float]:
        """The log-probability (nats) of a token after each position; minus infinity where it is not shown."""
        drafts = await self.several(positions)
        return [float(each.row[token]) for each, token in zip(drafts, tokens, strict=True)]

    def room(self, read: int, length: int) -> int:
        """The part of `length` tokens that fits into the context after `read` tokens."""
        return length if self.context_length is None else max(1, min(length, self.context_length - read))

    async def _probed(self, top_n: int | None) -> None:
        with readable():
            await self.probe(top_n)

    async def probe(self, top_n: int | None) -> None:
        """Ask the server for its limits, and check that it has the same tokenizer. Raises PurifyError."""
        raise NotImplementedError

    def another(self) -> VocabularyError:
        """The error for a server that tokenizes differently than the tokenizer here."""
        return VocabularyError(
            f"the LLM's server cuts text into other tokens than {self.name!r} does; name its own tokenizer"
        )

    def identity(self) -> Mapping[str, Any]:
        shown = {"top_n": self.top_n, "raw": self.capabilities.raw}
        return {"kind": self.kind, "name": Path(self.name).name, **shown}


def reader(tokenizer: str | Path) -> PromptEncoder:
    """The prompt encoder for the tokenizer in a directory or of a hub id; no remote code is run.

    Raises ModelError, VocabularyError.
    """
    from purify_plugins.tokenizers.token_bytes import vocabulary

    try:
        folder = find_tokenizer(tokenizer)
        loaded = load_tokenizer(folder)
    except ModelError as error:
        raise ModelError(
            f"the tokenizer {str(tokenizer)!r} does not load ({error}); give a directory or a hub id"
        ) from error
    name = str(tokenizer)
    return PromptEncoder(
        loaded, name, vocabulary(loaded, name, eos_ids(folder) | {loaded.eos_token_id} - {None})
    )
