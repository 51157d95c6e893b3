"""The gateway: TGI's HTTP interface around a purifier."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from purify_adapters.gateway import routes
from purify_adapters.gateway.answers import slm_only
from purify_adapters.gateway.asking import Ask, Asking
from purify_adapters.gateway.metrics import Metrics
from purify_adapters.gateway.openai import Face
from purify_adapters.gateway.openapi import document
from purify_adapters.gateway.rejections import Rejected, because, cut_short
from purify_adapters.gateway.settings import Settings
from purify_adapters.gateway.sse import Emit, EventStream, encoded, event, leaving
from purify_adapters.gateway.timing import Timing
from purify_adapters.gateway.together import Together
from purify_adapters.gateway.watching import Watch, note_failure
from purify_adapters.gateway.work import Place, Work
from purify_adapters.sources.http.counting import counting
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins._version import __version__
from purify_plugins.errors import PurifyError
from purify_plugins.sources.batching import batching

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from purify_adapters.gateway.routes import Plan, Shape
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Completion

T = TypeVar("T")


class Gateway:
    """An ASGI application that answers as a TGI server would, with purified text.

    It keeps no conversation and no user: any number of them may stand behind a load balancer.
    """

    def __init__(self, purifier: Purifier, settings: Settings | None = None) -> None:
        self.purifier, self.settings = purifier, settings or Settings()
        self.asking = Asking(purifier, self.settings)
        self.work = Work(
            _sharing(purifier), self.settings.max_concurrent, self.settings.queue, self.settings.deadline
        )
        self.metrics = Metrics()
        self.together = Together(self.metrics, self.settings.shared)
        llm = purifier.llm.inner
        self.upstream = llm.http if isinstance(llm, RemoteSource) else None
        if self.upstream is not None:
            self.upstream.share(self.settings.workers)
        self.certificates: OrderedDict[str, str] = OrderedDict()
        name = self.settings.model_id or str(purifier.llm.identity().get("name", "purified"))
        self.face = Face(name, f"purify-plugins-{__version__}")
        self.app = self._app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = _malformed(scope, self.settings.max_header) if scope["type"] == "http" else None
        await (wrong or self.app)(scope, receive, send)

    def serve(
        self, listener: socket.socket | None = None, *, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        """Serve until SIGTERM or SIGINT; running answers have `drain` seconds to end.

        `listener` is a bound socket; without one, `host` and `port` are bound.
        """
        from purify_adapters.gateway.server import serve

        serve(self, listener, host, port)

    def _app(self) -> Starlette:
        open_to_all = {"/info": routes.info, "/v1/models": routes.models, "/metrics": routes.metrics}
        open_to_all |= {"/": routes.health, "/health": routes.health, "/ping": routes.ping}
        open_to_all["/v1/models/{name:path}"] = routes.model
        generative = {
            "/": routes.compat_generate,
            "/generate": routes.generate,
            "/generate_stream": routes.generate_stream,
            "/v1/chat/completions": routes.chat_completions,
            "/v1/completions": routes.completions,
            "/v1/responses": routes.responses,
            "/invocations": routes.invocations,
            "/tokenize": routes.tokenize,
            "/chat_tokenize": routes.chat_tokenize,
        }
        found = [Route(path, endpoint, methods=["GET"]) for path, endpoint in open_to_all.items()]
        found += [Route(path, endpoint, methods=["POST"]) for path, endpoint in generative.items()]
        found.append(Route("/api-doc/openapi.json", self._openapi, methods=["GET"]))
        if self.settings.certificates:
            found.append(Route("/certificates/{digest}", routes.certificate, methods=["GET"]))
        cross = Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
        app = Starlette(
            routes=found,
            middleware=[Middleware(Watch, metrics=self.metrics), cross],
            exception_handlers={
                Rejected: self._refuse,
                PurifyError: self._refuse,
                TimeoutError: self._refuse,
                HTTPException: _no_route,
            },
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        app.state.gateway = self
        return app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        noting = asyncio.create_task(self.together.noting(self.gauges))
        yield
        noting.cancel()
        self.work.close()

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(self.settings))

    async def _refuse(self, request: Request, error: Exception) -> Response:
        why = because(error)
        note_failure(request.scope, self.metrics, why)
        return why.response(request.url.path)

    @property
    def resting(self) -> bool:
        """Whether the LLM's server has failed so often that it is left alone."""
        return self.upstream is not None and self.upstream.breaker.resting

    def gauges(self) -> dict[str, int]:
        """What is now the case, for `/metrics`."""
        found = {"tgi_queue_size": self.work.waiting, "tgi_batch_current_size": self.work.running}
        if self.upstream is not None:
            found["purify_upstream_resting"] = int(self.resting)
        return found

    def info(self) -> dict[str, Any]:
        """What TGI's `/info` says, of this gateway."""
        settings, most = self.settings, self.asking.max_total_tokens
        return {
            "model_id": self.face.model,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": settings.max_concurrent,
            "max_best_of": 1,
            "max_stop_sequences": settings.max_stop_sequences,
            "max_input_tokens": self.asking.max_input_tokens,
            "max_total_tokens": most,
            "validation_workers": 1,
            "max_client_batch_size": settings.max_batch,
            "router": "purify-plugins",
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }

    # Answering

    async def answer(
        self, request: Request, plan: Callable[[], Plan], streaming: bool, characters: int
    ) -> Response:
        """Carry out what a route has planned. Raises Rejected, only before the first byte."""
        self.metrics.count("tgi_request_count")
        request.scope["purify"]["asked"] = True
        timing = Timing(characters)
        try:
            if streaming:
                return await self._streamed(request, plan, timing)
            return await self._whole(request, plan, timing)
        except (
            Exception
        ) as error:  # an answer can fail in any plugin's way; `because` says what a client hears
            raise because(error) from None

    async def compute(self, function: Callable[[], T]) -> T:
        """What a function returns that reads with the models' tokenizers. Raises Rejected."""
        async with self.work.turn() as place:
            try:
                return await place.run(function)
            except Exception as error:  # a chat template can raise anything
                raise because(error) from None

    async def _whole(self, request: Request, plan: Callable[[], Plan], timing: Timing) -> Response:
        task = asyncio.create_task(self._complete(request, plan, timing))
        gone = asyncio.create_task(leaving(request.receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Rejected(499, "The client has left", "cancelled")
        finally:
            gone.cancel()
            task.cancel()

    async def _complete(self, request: Request, plan: Callable[[], Plan], timing: Timing) -> Response:
        async with self.work.turn() as place:
            timing.queued()
            body, headers = await place.run(lambda: self._written(request, place, plan, timing))
        return Response(body, headers=headers, media_type="application/json")

    def _written(
        self, request: Request, place: Place, plan: Callable[[], Plan], timing: Timing
    ) -> tuple[bytes, dict[str, str]]:
        """The whole answer and its headers; one visit to one thread."""
        planned = plan()
        timing.validated()
        with counting() as asked:
            found = [place.whole(ask.prompt, ask.sampling, ask.top) for ask in planned.asks]
        body = planned.whole(found)
        self._finish(request, planned.asks, found, timing, asked.requests)
        told = {
            "x-purify-certificate": ",".join(each.certificate.digest for each in found),
            "x-purify-guarantee": ",".join(each.certificate.guarantee for each in found),
            "x-purify-slm-only": str(sum(map(slm_only, found))),
            "x-purify-upstream-requests": str(asked.requests),
        }
        return encoded(body), {**timing.headers(planned.asks, found), **told}

    async def _streamed(self, request: Request, plan: Callable[[], Plan], timing: Timing) -> Response:
        shapes: list[Shape] = []

        async def write(emit: Emit) -> None:
            async with self.work.turn() as place:
                timing.queued()
                planned = await place.run(plan)
                timing.validated()
                shapes.extend(planned.shapes)
                await self._write(request, place, planned, emit, timing)

        def failure(error: Exception) -> bytes:
            why = because(error)
            note_failure(request.scope, self.metrics, why)
            return event(shapes[0].error(why) if shapes else why.body)

        limit = self.settings.deadline + 1
        stream = EventStream(write, failure, timing.first_headers(), self.settings.keep_alive, limit)
        await stream.begin(request.receive)
        return stream

    async def _write(self, request: Request, place: Place, planned: Plan, emit: Emit, timing: Timing) -> None:
        found: list[Completion] = []
        requests = 0
        for ask, shape in zip(planned.asks, planned.shapes, strict=True):
            with counting() as asked:
                async with aclosing(place.stream(ask.prompt, ask.sampling, ask.top)) as chunks:
                    async for chunk in chunks:
                        if chunk.completion:
                            found.append(chunk.completion)
                            self._keep(chunk.completion)
                        for each in shape.take(chunk):
                            await emit(event(_counted(each, asked.requests)))
            requests += asked.requests
            if len(found) <= planned.shapes.index(shape):
                raise cut_short()
        if done := planned.shapes[0].done:
            await emit(event(done))
        self._finish(request, planned.asks, found, timing, requests)

    def _keep(self, completion: Completion) -> None:
        """Remember a certificate, and forget the oldest."""
        if not self.settings.certificates:
            return
        digest = completion.certificate.digest
        self.certificates[digest] = completion.certificate.text
        self.certificates.move_to_end(digest)
        while len(self.certificates) > self.settings.certificates:
            self.certificates.popitem(last=False)

    def _finish(
        self,
        request: Request,
        asks: Sequence[Ask],
        found: Sequence[Completion],
        timing: Timing,
        requests: int,
    ) -> None:
        """Note an answer that went well, and took so many requests to models' servers."""
        for each in found:
            self._keep(each)
        timing.finished()
        request.scope["purify"].update(timing.facts(asks, found), upstream_requests=requests)
        self.metrics.count("tgi_request_success")
        bare = sum(each.certificate.guarantee == "none" for each in found)
        self.metrics.count("purify_answers_without_guarantee", bare)
        self.metrics.count("purify_slm_only_tokens", sum(map(slm_only, found)))
        self.metrics.count("purify_upstream_requests", requests)
        for name, number in timing.observations(asks, found).items():
            self.metrics.observe(name, number)


def _counted(event: Mapping[str, Any], requests: int) -> Mapping[str, Any]:
    """An event; where it tells of purification, also of the requests that the answer took."""
    told = event.get("purify")
    return event if told is None else {**event, "purify": {**told, "upstream_requests": requests}}


def _malformed(scope: Scope, most: int) -> Response | None:
    """The refusal of a request whose head no proxy and server may read differently, or is too large."""
    if _head(scope) > most:
        return JSONResponse({"error": "The request's headers are too large"}, 431, {"connection": "close"})
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        said = "a request has Content-Length or Transfer-Encoding, not both"
        return JSONResponse({"error": said}, 400, {"connection": "close"})
    return None


def _head(scope: Scope) -> int:
    """How many bytes the request's path and headers have, with what stands between them."""
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return headers + len(scope["raw_path"]) + len(scope["query_string"])


def _sharing(purifier: Purifier) -> Purifier:
    """The same purifier, its local models shared by all the threads that decode."""
    return purifier.replace(llm=batching(purifier.llm), slm=batching(purifier.slm))


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405."""
    assert isinstance(error, HTTPException)
    why = Rejected(
        error.status_code, f"{error.detail}: see /api-doc/openapi.json for what is here", "not_found"
    )
    response = why.response(request.url.path)
    response.headers.update(error.headers or {})
    return response
