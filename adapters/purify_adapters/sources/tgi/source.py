"""A model behind Text Generation Inference: text in, the likeliest tokens' ids and log-probabilities out."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_adapters.sources.http.client import Refused, Timeouts, Wire
from purify_adapters.sources.http.rows import TOLERANCE, Drafted, field, listed, row, strict_json, token_id
from purify_adapters.sources.http.source import AHEAD, SAMPLE, Place, reader
from purify_adapters.sources.http.text import TextSource
from purify_plugins.configuration.secrets import Secret
from purify_plugins.errors import ConfigError, PromptError, SourceError
from purify_plugins.protocols import Capabilities
from purify_plugins.types import Prompt

if TYPE_CHECKING:
    from purify_plugins.threat import Engine

log = logging.getLogger(__name__)

IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(https?:|data:)", re.IGNORECASE)
"""What makes a router of a vision model fetch an address that stands in a prompt (CVE-2026-0599)."""
LIMIT = re.compile(rb"top_n_tokens` must be >= 0 and <= (\d{1,9})")
UNSEEN = "the LLM's server shows no likeliest tokens; TGI's own backend can, with --max-top-n-tokens 100"
MOST = 4_000_000_000
"""More tokens than any server shows; the refusal says how many this one does."""


class TGISource(TextSource):
    """A model behind Text Generation Inference, which is asked what may come next, never to sample."""

    kind = "tgi"

    @classmethod
    def load(
        cls,
        url: str = "",
        *,
        tokenizer: str | Path,
        client: Any = None,
        top_n: int | None = None,
        ahead: int = AHEAD,
        api_key: str | Secret | None = None,
        connect: float = 5.0,
        read: float = 30.0,
        write: float = 10.0,
        pool: float = 10.0,
        retries: int = 2,
        connections: int = 100,
        tolerance: float = TOLERANCE,
        engine: Engine = "untrusted",
    ) -> TGISource:
        """Reach a model behind TGI at `url`, and check what that server can show.

        `tokenizer` is the LLM's, a directory or hub id. `top_n` likeliest tokens are asked for; unset,
        as many as the server allows, at most 1000. `ahead` is how many tokens a stream drafts; 0 asks
        for each token by itself. `api_key` is a bearer token; `api_key_env` names the variable with it.
        Seconds: `connect`, `read` (for each token), `write`, `pool`. `retries` are made before an
        answer's first token only. `connections` may be open at once. `tolerance` is how far above 1 a
        row's probabilities may add up. `engine` "trusted" vouches for the server as much as for this process.
        In Python a huggingface_hub `client` may stand in for `url`.
        Raises ConfigError, ModelError, VocabularyError, SourceError.
        """
        if bool(url) == (client is not None):
            raise ConfigError("a TGI source needs the server's url, or else a client")
        if isinstance(client, str | dict):
            raise ConfigError("client is an object that only Python can give; name the server's url")
        if client is not None:
            from purify_adapters.sources.tgi.hub import HubSource, HubWire

            hub = HubWire(client, retries)
            return HubSource(
                hub, reader(tokenizer), top_n or 1, ahead=0, tolerance=tolerance, engine=engine
            ).probed(top_n)
        wire = Wire(url, api_key, Timeouts(connect, read, write, pool), retries, connections)
        return cls(
            wire, reader(tokenizer), top_n or 1, ahead=ahead, tolerance=tolerance, engine=engine
        ).probed(top_n)

    def read(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        text, ids = super().read(prompt)
        if IMAGE.search(text):
            raise PromptError("the prompt links an image, which TGI may fetch; leave the link out")
        return text, ids

    def inputs(self, place: Place) -> tuple[str, int]:
        text, length = super().inputs(place)
        if IMAGE.search(text):
            raise SourceError("the answer links an image, which TGI may fetch; it goes no further")
        return text, length

    def _body(self, text: str, length: int, **more: Any) -> dict[str, Any]:
        """No sampling settings: under the server's neutral ones its rows are the model's own."""
        asked = {"max_new_tokens": length, "details": True, "do_sample": False, "top_n_tokens": self.top_n}
        return {"inputs": text, "parameters": {**asked, **more}}

    # What it is asked

    async def row(self, place: Place) -> Drafted:
        text, length = self.inputs(place)
        answer, headers = await self.wire.post("/generate", self._body(text, 1))
        self.require_read(headers.get("x-prompt-tokens"), length)
        with self.wire.reading("/generate"):
            return self._drafted(field(answer, "details", "tokens", 0), _top(field(answer, "details"), 0))

    async def stream(self, place: Place, length: int) -> AsyncIterator[Drafted]:
        text, found = self.inputs(place)
        index = 0
        async for data in self.wire.events("/generate_stream", self._body(text, self.room(found, length))):
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

    async def scores(self, place: Place, scored: int) -> tuple[float, ...]:
        """As far as the server has prefill log-probabilities, which it may not."""
        text, length = self.inputs(place)
        answer, headers = await self.wire.post("/generate", self._body(text, 1, decoder_input_details=True))
        self.require_read(headers.get("x-prompt-tokens"), length)
        details = field(answer, "details")
        prefill = listed(details.get("prefill") or []) if isinstance(details, dict) else []
        wanted = prefill[max(1, len(prefill) - scored) :]
        ids = tuple(field(each, "id") for each in wanted)
        if ids != place.prompt[len(place.prompt) - len(ids) :]:
            raise self.another()
        size = len(self.vocabulary)
        return tuple(float(row([each["id"]], [field(each, "logprob")], size)[each["id"]]) for each in wanted)

    def _drafted(self, token: Any, top: Any) -> Drafted:
        size = len(self.vocabulary)
        ids, logprobs = ([field(each, name) for each in top] for name in ("id", "logprob"))
        return Drafted(row(ids, logprobs, size, self.tolerance), token_id(field(token, "id"), size))

    # What it can do

    async def probe(self, top_n: int | None) -> None:
        """Ask once what cannot be known otherwise: limits, tokens, and whether rows are the model's own."""
        await self._check_tokens()
        self.context_length = await self.wire.patiently(self._context)
        self.top_n = await self.wire.patiently(lambda: self._limit(top_n))
        raw = await self.wire.patiently(self._is_raw)
        self.capabilities = Capabilities(False, True, self.top_n, raw, False, streams_rows=self.ahead > 0)
        if raw is False:
            log.warning("the LLM's server warps its rows; start it without sampling settings of its own")

    async def _check_tokens(self) -> None:
        found = await self.wire.patiently(lambda: self.wire.post("/tokenize", {"inputs": SAMPLE}))
        theirs = tuple(field(each, "id") for each in listed(found[0]))
        ours = self.reader.tokenised(SAMPLE)
        if theirs != ours:
            raise self.another()

    async def _context(self) -> int | None:
        total = field(await self.wire.get("/info"), "max_total_tokens")
        if type(total) is not int or total < 2:
            raise SourceError("the LLM's server does not say how long a text it reads; its url is wrong")
        return total

    async def _limit(self, top_n: int | None) -> int:
        """How many tokens it shows; its refusal to show too many says so."""
        body = self._body("a", 1)
        body["parameters"]["top_n_tokens"] = MOST
        try:
            await self.wire.post("/generate", body)
            most = len(self.vocabulary)
        except Refused as error:
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
        self.wire.entries = top_n or min(most, 1000, len(self.vocabulary))
        return self.wire.entries

    async def _is_raw(self) -> bool | None:
        """Whether rows are the model's own, as a prompt's log-probabilities always are; None: not given."""
        ids = self.reader.tokenised("a b")
        place, before = Place("a b", ids), Place("a", ids[:-1])
        scores = await self.scores(place, 1)
        if not scores or self.reader.tokenised("a") != before.ids:
            return None
        seen = float((await self.row(before)).row[ids[-1]])
        return None if seen == float("-inf") else abs(seen - scores[0]) < 0.05


def _top(value: Any, at: int | None) -> list[Any]:
    """The likeliest tokens: of an event, or of position `at` of an answer."""
    if not isinstance(value, dict) or not value.get("top_tokens"):
        raise SourceError(UNSEEN)
    return listed(value, "top_tokens") if at is None else listed(value, "top_tokens", at)
