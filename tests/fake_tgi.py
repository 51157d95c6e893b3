"""A TGI to test against: the wire of `reference/servers.md` section 2, with a real local model behind it.

>>> with fake_tgi(LocalSource.load(LLM), top_n=2048) as server:
...     httpx.post(f"{server}/generate", json={"inputs": "Once upon"})

`server` is a `FakeTGI`: its text is the base URL, `requests` what it was asked, `streams` how many streams
are open now. Options: `top_n` (`--max-top-n-tokens`), `convention` "raw" or "processed" log-probs,
`temperature` (a server that warps rows unasked), `api_key`, `prefill` (`--enable-prefill-logprobs`),
`seconds` (how long a token takes). Faults: `tamper(path, payload)` returns what is sent in place of a JSON
body or an event (bytes are sent as they are, None ends the answer there); `respond(path, body)` may return
a whole starlette response.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request  # noqa: TC002  # starlette reads annotations of endpoints
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from torch import Tensor

from purify_adapters.gateway.server import hang_up

Json = dict[str, Any]


class Refusal(Exception):
    """A request that TGI answers with 422."""


@dataclass
class FakeTGI:
    """The server's state and its switches; see the module."""

    model: Any
    """A LogitSource with `encode`, as LocalSource and ToySource are."""
    top_n: int = 5
    convention: str = "processed"
    temperature: float = 1.0
    api_key: str | None = None
    prefill: bool = True
    seconds: float = 0.0
    max_total_tokens: int = 512
    tamper: Callable[[str, Json], Any] | None = None
    respond: Callable[[str, Json], Response | None] | None = None
    url: str = ""
    requests: list[tuple[str, Json]] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    """What each of the requests said in its `Authorization`."""
    probes: int = 0
    """How often `/health` was asked."""
    streams: int = 0

    def __str__(self) -> str:
        return self.url

    def asked(self, *paths: str) -> int:
        """How many requests came for these paths; without any, for tokens."""
        wanted = paths or ("/generate", "/generate_stream", "/")
        return sum(path in wanted for path, _ in self.requests)

    # What TGI answers

    def info(self) -> Json:
        return {
            "model_id": "fake/model",
            "model_sha": None,
            "model_pipeline_tag": None,
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": self.max_total_tokens - 1,
            "max_total_tokens": self.max_total_tokens,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.6-dev0",
            "sha": None,
            "docker_label": None,
        }

    def tokenize(self, text: str) -> list[Json]:
        ids = self.model.encode(text)
        return [{"id": each, "text": self._text(each), "start": 0, "stop": 0} for each in ids]

    def check(self, body: Json) -> None:
        """TGI's validation, as far as these tests ask for it."""
        parameters = body.get("parameters") or {}
        if not isinstance(body.get("inputs"), str) or not body["inputs"]:
            raise Refusal("`inputs` cannot be empty")
        if (parameters.get("top_n_tokens") or 0) > self.top_n:
            raise Refusal(
                f"`top_n_tokens` must be >= 0 and <= {self.top_n}. Given: {parameters['top_n_tokens']}"
            )
        if parameters.get("temperature") is not None and parameters["temperature"] <= 0:
            raise Refusal("`temperature` must be strictly positive")
        length = len(self.model.encode(body["inputs"])) + (parameters.get("max_new_tokens") or 1)
        if length > self.max_total_tokens:
            raise Refusal(
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_tokens}. Given: {length}"
            )

    def events(self, body: Json) -> Iterator[Json]:
        """The stream's events; the last one has the whole text."""
        parameters = body.get("parameters") or {}
        prompt = self.model.encode(body["inputs"])
        room = self.max_total_tokens - len(prompt)
        length = parameters.get("max_new_tokens") or room
        session, logits = self.model.open([prompt])
        made: list[int] = []
        with session:
            while True:
                token, top = self._choose(logits[0], parameters)
                made.append(token["id"])
                reason = self._reason(made, length)
                yield self._event(made, token, top, reason, len(prompt), parameters)
                if reason:
                    return
                logits = session.extend(torch.tensor([[made[-1]]]))[:, 0]

    def _reason(self, made: Sequence[int], length: int) -> str | None:
        if len(made) >= length:
            return "length"
        return "eos_token" if made[-1] in self.model.vocabulary.eos else None

    def _event(
        self, made: list[int], token: Json, top: list[Json], reason: str | None, read: int, parameters: Json
    ) -> Json:
        event: Json = {"index": len(made), "token": token, "generated_text": None, "details": None}
        if top:
            event["top_tokens"] = top
        if reason:
            event["generated_text"] = self.model.vocabulary.spell(made).decode(errors="replace")
            if parameters.get("details"):
                event["details"] = {
                    "finish_reason": reason,
                    "generated_tokens": len(made),
                    "seed": None,
                    "input_length": read,
                }
        return event

    def _choose(self, logits: Tensor, parameters: Json) -> tuple[Json, list[Json]]:
        raw = torch.log_softmax(logits.float(), -1)
        temperature = (parameters.get("temperature") or 1.0) * self.temperature
        processed = torch.log_softmax(logits.float() / temperature, -1)
        if top_k := parameters.get("top_k"):
            least = processed.topk(top_k).values[-1]
            processed = torch.log_softmax(processed.masked_fill(processed < least, -torch.inf), -1)
        shown = raw if self.convention == "raw" else processed
        chosen = int(processed.argmax())
        return self._token(chosen, processed), self._top(shown, parameters.get("top_n_tokens") or 0)

    def _top(self, row: Tensor, number: int) -> list[Json]:
        """The likeliest tokens, the whole group of those that tie for the last place included."""
        if not number:
            return []
        least = row.topk(min(number, len(row))).values[-1]
        ids = (row >= least).nonzero()[:, 0]
        return [
            self._token(each, row) for each in ids[row[ids].argsort(descending=True, stable=True)].tolist()
        ]

    def _token(self, token: int, row: Tensor) -> Json:
        logprob = float(row[token])
        return {
            "id": token,
            "text": self._text(token),
            "logprob": logprob if math.isfinite(logprob) else None,
            "special": token in self.model.vocabulary.control,
        }

    def _text(self, token: int) -> str:
        vocabulary = self.model.vocabulary
        return vocabulary.control.get(token) or vocabulary.tokens[token].decode(errors="replace")

    def generate(self, body: Json) -> tuple[Json, dict[str, str]]:
        """The object of `/generate` and its headers."""
        parameters = body.get("parameters") or {}
        events = list(self.events(body))
        answer: Json = {"generated_text": events[-1]["generated_text"]}
        read = len(self.model.encode(body["inputs"]))
        if parameters.get("details") or parameters.get("decoder_input_details"):
            answer["details"] = {
                "finish_reason": self._reason([each["token"]["id"] for each in events], len(events)),
                "generated_tokens": len(events),
                "seed": None,
                "prefill": self._prefill(body) if parameters.get("decoder_input_details") else [],
                "tokens": [each["token"] for each in events],
            }
            if top := [each["top_tokens"] for each in events if "top_tokens" in each]:
                answer["details"]["top_tokens"] = top
        return answer, {"x-prompt-tokens": str(read), "x-generated-tokens": str(len(events))}

    def _prefill(self, body: Json) -> list[Json]:
        """The prompt's own log-probs, always raw; the first has none."""
        prompt = self.model.encode(body["inputs"])
        if not self.prefill:
            return []
        session, _ = self.model.open([prompt], len(prompt) - 1)
        with session:
            logprobs = [None, *session.prompts[0].logprobs]
        return [
            {"id": each, "text": self._text(each), "logprob": logprob}
            for each, logprob in zip(prompt, logprobs, strict=True)
        ]

    # How it goes over the wire

    def app(self) -> Starlette:
        post = [("/generate", False), ("/generate_stream", True), ("/", None)]
        return Starlette(
            routes=[
                Route("/info", lambda request: self._json(request, self.info())),
                Route("/health", self._health),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                *(Route(path, self._generating(path, stream), methods=["POST"]) for path, stream in post),
            ]
        )

    def _json(self, request: Request, payload: Any, headers: dict[str, str] | None = None) -> Response:
        payload = self.tamper(request.url.path, payload) if self.tamper else payload
        if isinstance(payload, bytes):
            return Response(payload, media_type="application/json", headers=headers)
        return JSONResponse(payload, headers=headers)

    async def _health(self, request: Request) -> Response:
        self.probes += 1
        return Response()

    async def _read(self, request: Request) -> Json | Response:
        """The request's body, or what is answered in its place."""
        body = await request.json()
        self.requests.append((request.url.path, body))
        self.authorized.append(request.headers.get("authorization", ""))
        if self.respond and (response := self.respond(request.url.path, body)):
            return response
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return Response(status_code=401)
        return body  # type: ignore[no-any-return]  # an object, or the handler fails as TGI's would

    async def _tokenize(self, request: Request) -> Response:
        body = await self._read(request)
        if isinstance(body, Response):
            return body
        return self._json(request, self.tokenize(body["inputs"]))

    def _generating(self, path: str, stream: bool | None) -> Any:
        async def handle(request: Request) -> Response:
            body = await self._read(request)
            if isinstance(body, Response):
                return body
            try:
                self.check(body)
            except Refusal as error:
                return JSONResponse(
                    {"error": f"Input validation error: {error}", "error_type": "validation"}, 422
                )
            except (TypeError, ValueError) as error:
                return PlainTextResponse(str(error), 422)
            if body.get("stream") if stream is None else stream:
                return self._stream(path, body)
            await asyncio.sleep(self.seconds)
            answer, headers = await run_in_threadpool(self.generate, body)
            return self._json(request, [answer] if stream is None else answer, headers)

        return handle

    def _stream(self, path: str, body: Json) -> Response:
        return StreamingResponse(
            self._lines(path, body),
            media_type="text/event-stream",
            headers={"x-compute-type": "cpu", "X-Accel-Buffering": "no"},
        )

    async def _lines(self, path: str, body: Json) -> AsyncIterator[bytes]:
        self.streams += 1
        events = self.events(body)
        try:
            while (event := await run_in_threadpool(next, events, None)) is not None:
                await asyncio.sleep(self.seconds)
                sent = self.tamper(path, event) if self.tamper else event
                if sent is None:
                    return
                yield sent if isinstance(sent, bytes) else b"data:" + json.dumps(sent).encode() + b"\n\n"
        finally:
            self.streams -= 1


class Server(uvicorn.Server):
    """Leaves no connection half closed: a later test would be warned of it."""

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        await super().shutdown(sockets)
        await hang_up(self)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The base URL of an ASGI app, served by uvicorn in a thread."""
    config = uvicorn.Config(
        app, port=0, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=0
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def fake_tgi(model: Any, **switches: Any) -> Iterator[FakeTGI]:
    """A running FakeTGI; `switches` are its fields."""
    server = FakeTGI(model, **switches)
    with serving(server.app()) as server.url:
        yield server
