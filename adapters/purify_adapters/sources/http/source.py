"""A model behind a server as a LogitSource; what a kind of server is asked, its subclass knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from purify_adapters.sources.http.client import Wire
from purify_adapters.sources.http.event_loop import together, wait
from purify_adapters.sources.http.rows import TOLERANCE, Drafted, nothing, readable
from purify_adapters.sources.http.session import RemoteSession
from purify_plugins.errors import ConfigError, ModelError, PromptError, TooLongError, VocabularyError
from purify_plugins.protocols import Capabilities, LogitSource
from purify_plugins.tokenizers.loading import find_tokenizer, load_tokenizer
from purify_plugins.tokenizers.prompt_encoder import Reader
from purify_plugins.types import Prompt, Vocabulary
from purify_plugins.utils.model_files import eos_ids

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.threat import Engine

AHEAD = 32
"""How many tokens a stream drafts before it is opened anew."""


SAMPLE = "Été, 北京 und 1,234.5 naïve  cafés:\n\tdef f(x): return x"
"""Text on which tokenizers that differ would differ."""


class Place(NamedTuple):
    """Where in a text the server is asked: after the prompt, as text and as ids, and the answer's tokens."""

    text: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.answer


class RemoteSource(LogitSource):
    """What all kinds share: the tokenizer that reads prompts here, and the lines to the server.

    A subclass says in `kind` and `capabilities` what it is, and how to ask for `row`, `stream` and,
    where the server can, `rows` and `scores`.
    """

    kind = "remote"
    capabilities: Capabilities
    engine: Engine
    vocabulary: Vocabulary
    context_length: int | None = None

    def __init__(
        self,
        wire: Wire,
        reader: Reader,
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
        self.wire, self.reader, self.top_n = wire, reader, top_n
        self.ahead, self.tolerance, self.engine = ahead, tolerance, engine
        self.vocabulary = reader.vocabulary

    @property
    def name(self) -> str:
        return self.reader.name

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[RemoteSession, Tensor]:
        """Ask for the first token of each prompt. Raises PromptError, SourceError."""
        session = RemoteSession(self, [self.place(prompt) for prompt in prompts])
        return session, session.begin(scored)

    def place(self, prompt: Prompt) -> Place:
        """The beginning of an answer to a prompt, a chat rendered here. Raises PromptError."""
        text, ids = self.read(prompt)
        if not ids:
            raise PromptError("the prompt is empty; give at least one token of text")
        if self.context_length is not None and len(ids) >= self.context_length:
            raise TooLongError("the LLM's server", len(ids), self.context_length)
        return Place(text, ids)

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        """The prompt as it is sent; servers that take ids need no text."""
        return "", self.reader.tokens(prompt)

    def blind(self, place: Place) -> bool:
        """Whether the server cannot be asked here."""
        return False

    async def row(self, place: Place) -> Drafted:
        """The row after a place. Raises SourceError."""
        raise NotImplementedError

    def stream(self, place: Place, length: int) -> AsyncIterator[Drafted]:
        """The server's own draft after a place, greedy, with a row for each token. Raises SourceError."""
        raise NotImplementedError

    async def several(self, places: Sequence[Place]) -> list[Drafted]:
        """The row after each place: as many questions at once, where one request cannot hold them all."""
        return await together([self.row(place) for place in places])

    async def rows(self, place: Place, lengths: Sequence[int]) -> list[Tensor]:
        """The rows after the first so many tokens of the answer."""
        places = [place._replace(answer=place.answer[:length]) for length in lengths]
        found = iter(await self.several([each for each in places if not self.blind(each)]))
        size = len(self.vocabulary)
        return [nothing(size) if self.blind(each) else next(found).row for each in places]

    async def scores(self, place: Place, scored: int) -> tuple[float, ...]:
        """Log-probabilities (nats) of the prompt's last `scored` tokens; fewer where the server has none."""
        first = max(1, len(place.prompt) - scored)
        wanted = place.prompt[first:]
        prefixes = [place._replace(prompt=place.prompt[:at]) for at in range(first, len(place.prompt))]
        found = await self.likely(prefixes, wanted)
        unseen = [at for at, logprob in enumerate(found) if logprob == float("-inf")]
        return tuple(found[unseen[-1] + 1 if unseen else 0 :])

    async def likely(self, places: Sequence[Place], tokens: Sequence[int]) -> list[float]:
        """The log-probability (nats) of a token after each place; minus infinity where it is not shown."""
        drafts = await self.several(places)
        return [float(each.row[token]) for each, token in zip(drafts, tokens, strict=True)]

    def room(self, read: int, length: int) -> int:
        """How much of `length` the server has room for after `read` tokens."""
        return length if self.context_length is None else max(1, min(length, self.context_length - read))

    def probed(self, top_n: int | None) -> Self:
        """This source, once it knows its server. Raises as `load`."""
        wait(self._probed(top_n))
        return self

    async def _probed(self, top_n: int | None) -> None:
        with readable():
            await self.probe(top_n)

    async def probe(self, top_n: int | None) -> None:
        """Ask once what cannot be known otherwise. Raises PurifyError."""
        raise NotImplementedError

    def another(self) -> VocabularyError:
        """What to say when the server reads other tokens than we do."""
        return VocabularyError(
            f"the LLM's server cuts text into other tokens than {self.name!r} does; name its own tokenizer"
        )

    def identity(self) -> Mapping[str, Any]:
        shown = {"top_n": self.top_n, "raw": self.capabilities.raw}
        return {"kind": self.kind, "name": Path(self.name).name, **shown}


def reader(tokenizer: str | Path) -> Reader:
    """The tokenizer in a directory or of a hub id, and the ids that end its model's answers.

    Never anyone's code. Raises ModelError, VocabularyError.
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
    return Reader(loaded, name, vocabulary(loaded, name, eos_ids(folder) | {loaded.eos_token_id} - {None}))
