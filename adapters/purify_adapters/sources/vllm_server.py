"""A model behind vLLM's OpenAI-compatible server: token ids in and out, drafts scored in one request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_adapters.sources.http.client import RequestRefused
from purify_adapters.sources.http.options import AHEAD, ServerOptions
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import ServerToken, field, listed, row, strict_json, token_id
from purify_adapters.sources.http.source import SAMPLE, RemoteSource
from purify_plugins.errors import ConfigError, SourceError
from purify_plugins.protocols import Capabilities

if TYPE_CHECKING:
    from torch import Tensor


LIMIT = re.compile(rb"max allowed: (\d{1,9})")
ABSENT = -9999.0
"""vLLM's log-probability for a probability of zero."""
TOKEN = re.compile(r"token_id:(\d{1,9})")


@dataclass(frozen=True, kw_only=True)
class VLLMOptions(ServerOptions):
    """Reach a model behind vLLM at `url`, without the `/v1`.

    `top_n` likeliest tokens are asked for; the server allows 20 unless started with `--max-logprobs`.
    `ahead` is how many tokens a stream drafts; with 0 the server drafts nothing, and a trusted one then
    scores the SLM's drafts.
    """

    top_n: int | None = 20
    ahead: int = AHEAD


class VLLMSource(RemoteSource):
    """A model behind vLLM's `/v1/completions`."""

    kind = "vllm"
    sign = ("/version", "version")
    Options = VLLMOptions
    served = ""

    async def probe(self, top_n: int | None) -> None:
        model = field(await self.http.with_retries(lambda: self.http.get("/v1/models")), "data", 0)
        self.served, length = field(model, "id"), model.get("max_model_len")
        self.context_length = length if type(length) is int else None
        tokens, _ = await self.http.post("/tokenize", {"model": self.served, "prompt": SAMPLE})
        if tuple(listed(tokens, "tokens")) != self.reader.tokenised(SAMPLE):
            raise self.another()
        self.capabilities = Capabilities(True, True, self.top_n, None, True, streams_rows=self.ahead > 0)
        try:
            await self.row(self.start("a"))
        except RequestRefused as error:
            allowed = found[1].decode() if (found := LIMIT.search(error.content)) else "fewer"
            raise ConfigError(
                f"the LLM's server shows {allowed} tokens of a row, not {self.top_n}; start vLLM with "
                f"--max-logprobs {self.top_n}"
            ) from error

    def _body(self, ids: Sequence[int], length: int, **more: Any) -> dict[str, Any]:
        """The request, greedy so that the draft is repeatable; rows are raw at any temperature."""
        parameters = {"max_tokens": length, "temperature": 0, "logprobs": self.top_n}
        named = {"model": self.served, "return_tokens_as_token_ids": True}
        return {"prompt": list(ids), **parameters, **named, **more}

    async def row(self, position: Position) -> ServerToken:
        answer, _ = await self.http.post("/v1/completions", self._body(position.ids, 1))
        with self.http.reading("/v1/completions"):
            return self._first(field(answer, "choices", 0))

    async def stream(self, position: Position, length: int) -> AsyncIterator[ServerToken]:
        """The draft; an event may have the tokens of several steps."""
        body = self._body(position.ids, self.room(len(position.ids), length), stream=True)
        async for data in self.http.events("/v1/completions", body, rows=length):
            if data == b"[DONE]":
                return
            choice = field(strict_json(data), "choices", 0)
            for drafted in self._drafts(choice):
                yield drafted
        raise SourceError("the LLM's server cut its answer off before the end; see its log")

    async def rows(self, position: Position, lengths: Sequence[int]) -> list[Tensor]:
        """Score a whole draft in one request, by the prompt's log-probabilities and the row after its end.

        The answer has a row for every token of the prompt; too many are requested one by one.
        """
        position = position._replace(answer=position.answer[: lengths[-1]])
        if len(position.ids) > self.http.rows_at_once(self.top_n):
            return await super().rows(position, lengths)
        body = self._body(position.ids, 1, prompt_logprobs=self.top_n)
        answer, _ = await self.http.post("/v1/completions", body, len(position.ids))
        choice = field(answer, "choices", 0)
        start = len(position.prompt)
        before = [
            self._prompt_row(field(choice, "prompt_logprobs", start + length)) for length in lengths[:-1]
        ]
        return [*before, next(self._drafts(choice)).row]

    async def scores(self, position: Position, scored: int) -> tuple[float, ...]:
        body = self._body(position.prompt, 1, prompt_logprobs=1)
        answer, _ = await self.http.post("/v1/completions", body)
        shown = field(answer, "choices", 0, "prompt_logprobs")
        first = max(1, len(position.prompt) - scored)
        tokens = enumerate(position.prompt[first:], start=first)
        return tuple(
            float(self._row([token], [field(shown, at, str(token), "logprob")])[token])
            for at, token in tokens
        )

    def _first(self, choice: Any) -> ServerToken:
        for drafted in self._drafts(choice):
            return drafted
        raise SourceError("the LLM's server sent no token; see its log")

    def _drafts(self, choice: Any) -> Iterator[ServerToken]:
        """The row and the chosen token of every position of a choice."""
        logprobs = field(choice, "logprobs")
        for at, name in enumerate(listed(logprobs, "tokens")):
            shown = field(logprobs, "top_logprobs", at)
            found = self._row([_id(token) for token in _named(shown)], list(shown.values()))
            yield ServerToken(found, token_id(_id(name), len(self.vocabulary)))

    def _prompt_row(self, shown: Any) -> Tensor:
        ids = [_number(token) for token in _named(shown)]
        return self._row(ids, [field(entry, "logprob") for entry in shown.values()])

    def _row(self, ids: list[Any], logprobs: list[Any]) -> Tensor:
        if ABSENT in logprobs:
            seen = [at for at, logprob in enumerate(logprobs) if logprob != ABSENT]
            ids, logprobs = [ids[at] for at in seen], [logprobs[at] for at in seen]
        return row(ids, logprobs, len(self.vocabulary), self.tolerance)


def _named(shown: Any) -> dict[str, Any]:
    """The likeliest tokens with their log-probabilities. Raises SourceError."""
    if not isinstance(shown, dict):
        raise SourceError("the LLM's server shows no likeliest tokens; it must be one that can")
    return shown


def _id(name: Any) -> int | None:
    """The id in "token_id:300"; None for other texts."""
    found = TOKEN.fullmatch(name) if isinstance(name, str) else None
    return int(found[1]) if found else None


def _number(name: str) -> int | None:
    return int(name) if name.isdecimal() and len(name) < 10 else None
