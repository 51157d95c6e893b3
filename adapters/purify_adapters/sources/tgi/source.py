"""A model behind Text Generation Inference: text in, the likeliest tokens' ids and log-probabilities out."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from purify_adapters.sources.http.client import RequestRefused
from purify_adapters.sources.http.options import AHEAD, ServerOptions
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import ServerToken, field, listed, row, strict_json, token_id
from purify_adapters.sources.http.source import SAMPLE
from purify_adapters.sources.http.text import TextSource
from purify_plugins.errors import ConfigError, PromptError, SourceError
from purify_plugins.protocols import Capabilities
from purify_plugins.types import Prompt

log = logging.getLogger(__name__)

IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(https?:|data:)", re.IGNORECASE)
"""Image links, which the router of a vision model fetches from a prompt (CVE-2026-0599)."""
LIMIT = re.compile(rb"top_n_tokens` must be >= 0 and <= (\d{1,9})")
UNSEEN = "the LLM's server shows no likeliest tokens; TGI's own backend can, with --max-top-n-tokens 100"
MOST = 4_000_000_000
"""More tokens than any server shows; its refusal names its limit."""


@dataclass(frozen=True, kw_only=True)
class TGIOptions(ServerOptions):
    """Reach a model behind TGI at `url`, and check what that server can show.

    `top_n` likeliest tokens are asked for; unset, as many as the server allows, at most 1000. `ahead` is
    how many tokens a stream drafts; 0 asks for each token by itself. In Python a huggingface_hub `client`
    may stand in for `url`. Raises ConfigError for both, or neither.
    """

    url: str = ""
    top_n: int | None = None
    ahead: int = AHEAD
    client: Any = None

    def __post_init__(self) -> None:
        if bool(self.url) == (self.client is not None):
            raise ConfigError("a TGI source needs the server's url, or else a client")
        if isinstance(self.client, str | dict):
            raise ConfigError("client is an object that only Python can give; name the server's url")


class TGISource(TextSource):
    """A model behind Text Generation Inference: the likeliest next tokens are read, its samples are not."""

    kind = "tgi"
    sign = ("/info", "model_id")
    Options = TGIOptions

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        text, ids = super().read(prompt)
        if IMAGE.search(text):
            raise PromptError("the prompt links an image, which TGI may fetch; leave the link out")
        return text, ids

    def inputs(self, position: Position) -> tuple[str, int]:
        text, length = super().inputs(position)
        if IMAGE.search(text):
            raise SourceError("the answer links an image, which TGI may fetch; it goes no further")
        return text, length

    def _body(self, text: str, length: int, **more: Any) -> dict[str, Any]:
        """The request, without sampling settings: the server's defaults leave its rows unchanged."""
        asked = {"max_new_tokens": length, "details": True, "do_sample": False, "top_n_tokens": self.top_n}
        return {"inputs": text, "parameters": {**asked, **more}}

    async def row(self, position: Position) -> ServerToken:
        text, length = self.inputs(position)
        answer, headers = await self.http.post("/generate", self._body(text, 1))
        self.require_read(headers.get("x-prompt-tokens"), length)
        with self.http.reading("/generate"):
            return self._drafted(field(answer, "details", "tokens", 0), _top(field(answer, "details"), 0))

    async def stream(self, position: Position, length: int) -> AsyncIterator[ServerToken]:
        text, found = self.inputs(position)
        index = 0
        async for data in self.http.events("/generate_stream", self._body(text, self.room(found, length))):
            event, index = strict_json(data), index + 1
            if not isinstance(event, dict) or "error" in event:
                raise SourceError("the LLM's server failed while it answered; see its log")
            if event.get("index", index) != index:
                raise SourceError("the LLM's server lost or repeated an event; its answer is not trusted")
            if details := event.get("details"):
                self.require_read(field(details, "input_length"), found)
            yield self._drafted(field(event, "token"), _top(event, None))
            if event.get("generated_text") is not None:
                return
        raise SourceError("the LLM's server cut its answer off before the end; see its log")

    async def scores(self, position: Position, scored: int) -> tuple[float, ...]:
        """The prefill's log-probabilities, of as many tokens as the server shows."""
        text, length = self.inputs(position)
        answer, headers = await self.http.post("/generate", self._body(text, 1, decoder_input_details=True))
        self.require_read(headers.get("x-prompt-tokens"), length)
        details = field(answer, "details")
        prefill = listed(details.get("prefill") or []) if isinstance(details, dict) else []
        wanted = prefill[max(1, len(prefill) - scored) :]
        ids = tuple(field(each, "id") for each in wanted)
        if ids != position.prompt[len(position.prompt) - len(ids) :]:
            raise self.another()
        size = len(self.vocabulary)
        return tuple(float(row([each["id"]], [field(each, "logprob")], size)[each["id"]]) for each in wanted)

    def _drafted(self, token: Any, top: Any) -> ServerToken:
        size = len(self.vocabulary)
        ids, logprobs = ([field(each, name) for each in top] for name in ("id", "logprob"))
        return ServerToken(row(ids, logprobs, size, self.tolerance), token_id(field(token, "id"), size))

    async def probe(self, top_n: int | None) -> None:
        """Find out the limits, check the tokenizer, and whether rows are raw: the model's own."""
        await self._check_tokens()
        self.context_length = await self.http.with_retries(self._context)
        self.top_n = await self.http.with_retries(lambda: self._limit(top_n))
        raw = await self.http.with_retries(self._is_raw)
        self.capabilities = Capabilities(False, True, self.top_n, raw, False, streams_rows=self.ahead > 0)
        if raw is False:
            log.warning("the LLM's server warps its rows; start it without sampling settings of its own")

    async def _check_tokens(self) -> None:
        found = await self.http.with_retries(lambda: self.http.post("/tokenize", {"inputs": SAMPLE}))
        found_ids = tuple(field(each, "id") for each in listed(found[0]))
        ids = self.reader.tokenised(SAMPLE)
        if found_ids != ids:
            raise self.another()

    async def _context(self) -> int | None:
        total = field(await self.http.get("/info"), "max_total_tokens")
        if type(total) is not int or total < 2:
            raise SourceError("the LLM's server does not say how long a text it reads; its url is wrong")
        return total

    async def _limit(self, top_n: int | None) -> int:
        """How many tokens the server shows, read from its refusal to show too many."""
        body = self._body("a", 1)
        body["parameters"]["top_n_tokens"] = MOST
        try:
            await self.http.post("/generate", body)
            most = len(self.vocabulary)
        except RequestRefused as error:
            most = int(found[1]) if (found := LIMIT.search(error.content)) else 0
        if not most:
            raise SourceError(
                "the LLM's server shows no likeliest tokens; start TGI with --max-top-n-tokens 100"
            )
        if top_n and top_n > most:
            raise ConfigError(
                f"the LLM's server shows {most} tokens of a row, not {top_n}; start TGI with "
                f"--max-top-n-tokens {top_n}"
            )
        self.http.entries = top_n or min(most, 1000, len(self.vocabulary))
        return self.http.entries

    async def _is_raw(self) -> bool | None:
        """Whether rows are raw, as a prompt's log-probabilities always are; None: these are not shown."""
        ids = self.reader.tokenised("a b")
        position, before = Position("a b", ids), Position("a", ids[:-1])
        scores = await self.scores(position, 1)
        if not scores or self.reader.tokenised("a") != before.ids:
            return None
        seen = float((await self.row(before)).row[ids[-1]])
        return None if seen == float("-inf") else abs(seen - scores[0]) < 0.05


def _top(value: Any, at: int | None) -> list[Any]:
    """The likeliest tokens of an event, or of position `at` of an answer. Raises SourceError."""
    if not isinstance(value, dict) or not value.get("top_tokens"):
        raise SourceError(UNSEEN)
    return listed(value, "top_tokens") if at is None else listed(value, "top_tokens", at)
