"""A model behind llama.cpp's `llama-server`: token ids in and out, a draft scored by an array of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_adapters.remote.rows import TOLERANCE, Drafted, field, row, token_id
from purify_adapters.remote.source import SAMPLE, Place, RemoteSource, reader
from purify_adapters.remote.wire import Timeouts, Wire
from purify_plugins.errors import SourceError
from purify_plugins.secret import Secret
from purify_plugins.types import Capabilities

if TYPE_CHECKING:
    from purify_plugins.threat import Engine

ABSENT = -1e30
"""Below this, llama.cpp means a probability of zero: it writes the most negative float."""


class LlamaCppSource(RemoteSource):
    """A model behind `llama-server`'s own `/completion`.

    Its streams hold tokens back inside a character, rows and all, so that positions would be lost;
    they are not read. The prefix cache makes many short questions cheap.
    """

    kind = "llama_cpp"

    @classmethod
    def load(
        cls,
        url: str,
        *,
        tokenizer: str | Path,
        top_n: int = 100,
        api_key: str | Secret | None = None,
        connect: float = 5.0,
        read: float = 30.0,
        write: float = 10.0,
        pool: float = 10.0,
        retries: int = 2,
        connections: int = 100,
        tolerance: float = TOLERANCE,
        engine: Engine = "untrusted",
    ) -> LlamaCppSource:
        """Reach a model behind llama.cpp's `llama-server` at `url`.

        `top_n` likeliest tokens are asked for, up to the whole vocabulary. `tokenizer`, `api_key`, `connect`,
        `read`, `write`, `pool`, `retries`, `connections`, `tolerance` and `engine` are those of `tgi`. Raises
        ConfigError, ModelError, VocabularyError, SourceError.
        """
        wire = Wire(url, api_key, Timeouts(connect, read, write, pool), retries, connections, top_n)
        return cls(wire, reader(tokenizer), top_n, ahead=0, tolerance=tolerance, engine=engine).probed(top_n)

    async def probe(self, top_n: int | None) -> None:
        props = await self.wire.patiently(lambda: self.wire.get("/props"))
        context = field(props, "default_generation_settings", "n_ctx")
        self.context_length = context if type(context) is int else None
        slots = props.get("total_slots")
        if type(slots) is int and slots > 0:
            self.wire.limit(slots)
        tokens, _ = await self.wire.post("/tokenize", {"content": SAMPLE, "add_special": True})
        if tuple(field(tokens, "tokens")) != self.reader.tokenised(SAMPLE):
            raise self.another()
        self.capabilities = Capabilities(True, True, self.top_n, True, True, streams_rows=False)

    async def row(self, place: Place) -> Drafted:
        return (await self._ask([place.ids]))[0]

    async def several(self, places: Sequence[Place]) -> list[Drafted]:
        """One request, or as few as hold so many rows; the server's cache knows most of each prompt."""
        size = self.wire.rows_at_once
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        return [drafted for part in parts for drafted in await self._ask([place.ids for place in part])]

    async def _ask(self, prompts: Sequence[Sequence[int]]) -> list[Drafted]:
        body = {
            "prompt": [list(prompt) for prompt in prompts],
            "n_predict": 1,
            "n_probs": self.top_n,
            "temperature": 0,
            "logit_bias": [[self.ascii, 1000]],
            "cache_prompt": True,
        }
        answers, _ = await self.wire.post("/completion", body, rows=len(prompts))
        answers = answers if isinstance(answers, list) else [answers]
        if len(answers) != len(prompts):
            raise SourceError("the LLM's server answered another number of prompts; see its version")
        ordered = sorted(enumerate(answers), key=lambda each: _index(each[1], each[0]))
        return [self._drafted(answer) for _, answer in ordered]

    @cached_property
    def ascii(self) -> int:
        """A token that the server is made to choose: it shows no row of half a character, or of an end.

        The rows are raw: what is chosen does not touch them.
        """
        whole = (token for token, piece in enumerate(self.vocabulary.tokens) if piece and piece.isascii())
        return next(whole, 0)

    def _drafted(self, answer: Any) -> Drafted:
        size = len(self.vocabulary)
        shown = field(answer, "completion_probabilities", 0)
        seen = [pair for pair in _pairs(field(shown, "top_logprobs")) if not _absent(pair[1])]
        return Drafted(row(seen, size, self.tolerance), token_id(field(shown, "id"), size))


def _pairs(entries: Any) -> list[tuple[Any, Any]]:
    """Each shown token's id and log-probability. Raises SourceError."""
    try:
        return [(each["id"], each["logprob"]) for each in entries]
    except (KeyError, TypeError) as error:
        raise SourceError(
            "the LLM's server left out 'id' or 'logprob'; see what answers at its url"
        ) from error


def _absent(logprob: Any) -> bool:
    return isinstance(logprob, float) and -float("inf") < logprob < ABSENT


def _index(answer: Any, otherwise: int) -> int:
    index = answer.get("index") if isinstance(answer, dict) else None
    return index if type(index) is int else otherwise
