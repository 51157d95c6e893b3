"""The gateway: an ASGI application with TGI's and OpenAI's HTTP interfaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from purify_adapters.gateway import routes
from purify_adapters.gateway.access_log import AccessLog, log_failure
from purify_adapters.gateway.rejections import Rejected, to_http_error
from purify_adapters.gateway.service import Service
from purify_adapters.gateway.settings import Settings
from purify_plugins.errors import PurifyError

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from purify_plugins.configuration.tenants import Tenant
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

GET = {
    "/": routes.health,
    "/health": routes.health,
    "/ping": routes.health,
    "/ready": routes.ready,
    "/info": routes.info,
    "/metrics": routes.metrics,
    "/v1/models": routes.models,
    "/v1/models/{name:path}": routes.model,
    "/api-doc/openapi.json": routes.openapi,
}
POST = {
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
CORS = Middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_methods=["GET", "POST"],
    allow_headers=["*"],
    expose_headers=["*"],
)


class Gateway:
    """An ASGI application that answers as a TGI server would, with purified text."""

    def __init__(self, purifier: Purifier, settings: Settings | None = None) -> None:
        self.service = Service(purifier, settings or Settings())
        self.app = self._app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self.service.settings.max_header
        wrong = _malformed(scope, most) if scope["type"] == "http" else None
        scope["purify.service"] = self.service  # the same one to the end of this request
        await (wrong or self.app)(scope, receive, send)

    @property
    def purifier(self) -> Purifier:
        """The purifier that answers new requests."""
        return self.service.purifier

    @property
    def models(self) -> dict[str, LogitSource]:
        """The models "llm" and "slm" as they are read here, for a purifier that goes on with them."""
        return dict(zip(("llm", "slm"), self.service.picker.purifier.given_models, strict=True))

    def adopt(self, purifier: Purifier, tenants: Sequence[Tenant] = ()) -> None:
        """Answer new requests with another purifier, from one moment to the next; running answers go on.

        May be called from any thread. Raises ConfigError for a tenant whose policy cannot be had.
        """
        self.successor(purifier, tenants)()

    def successor(self, purifier: Purifier, tenants: Sequence[Tenant] = ()) -> Callable[[], None]:
        """What `adopt` calls when all else that can fail has been done."""
        service = self.service.succeeded_by(purifier, tuple(tenants))

        def take() -> None:
            self.service = service

        return take

    def serve(
        self, listener: socket.socket | None = None, *, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        """Serve until SIGTERM or SIGINT; running answers have `drain` seconds to end.

        `listener` is a bound socket; without one, `host` and `port` are bound.
        """
        from purify_adapters.gateway.server import serve

        serve(self, self.service, listener, host, port)

    def _app(self) -> Starlette:
        found = [Route(path, endpoint, methods=["GET"]) for path, endpoint in GET.items()]
        found += [Route(path, endpoint, methods=["POST"]) for path, endpoint in POST.items()]
        if self.service.settings.certificates:
            found.append(Route("/certificates/{digest}", routes.certificate, methods=["GET"]))
        refused = dict.fromkeys((Rejected, PurifyError, TimeoutError), self._refuse)
        app = Starlette(
            routes=found,
            middleware=[Middleware(AccessLog, metrics=self.service.metrics), CORS],
            exception_handlers={**refused, HTTPException: _no_route},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        return app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        writing = asyncio.create_task(self.service.metrics.keep_writing(lambda: self.service.gauges()))
        yield
        writing.cancel()
        self.service.executor.close()
        for each in (self.service.purifier.signer, self.service.purifier.store):
            if each is not None:
                await asyncio.to_thread(each.close)  # the root and the seal of today's certificates

    async def _refuse(self, request: Request, error: Exception) -> Response:
        why = to_http_error(error)
        log_failure(request.scope, self.service.metrics, why)
        return why.response(request.url.path)


def _malformed(scope: Scope, most: int) -> Response | None:
    """The refusal of a request that a proxy could read differently, or whose headers are too large."""
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if headers + len(scope["raw_path"]) + len(scope["query_string"]) > most:
        return JSONResponse({"error": "The request's headers are too large"}, 431, {"connection": "close"})
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        message = "a request has Content-Length or Transfer-Encoding, not both"
        return JSONResponse({"error": message}, 400, {"connection": "close"})
    return None


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405."""
    assert isinstance(error, HTTPException)
    why = Rejected(
        error.status_code, f"{error.detail}: see /api-doc/openapi.json for what is here", "not_found"
    )
    response = why.response(request.url.path)
    response.headers.update(error.headers or {})
    return response
