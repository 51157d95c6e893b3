"""Serving the gateway with uvicorn: time limits for slow clients, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from math import ceil
from time import strftime
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from purify_adapters.gateway.service import Service
    from purify_adapters.gateway.settings import Settings

log = logging.getLogger("purify.gateway")
GRACE = 5.0
"""Seconds between the error events that end a drain and the end of the connections."""


class HeaderTimeout(H11Protocol):
    """HTTP/1.1 that closes the connection where a request line and its headers do not arrive in time."""

    patience = 15.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.patience, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GatewayServer(uvicorn.Server):
    """Stop the executor before the connections, so that every running answer ends with an error event."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        executor, drain = self.service.executor, self.service.settings.drain
        log.info("stopping: %d answers have %g s to end", executor.running + executor.waiting, drain)
        executor.stop(drain)
        await super().shutdown(sockets)
        await hang_up(self)
        log.info("stopped")


async def hang_up(server: uvicorn.Server) -> None:
    """Close the connections of clients that do not read the end of their answer."""
    while server.server_state.connections:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


def config(app: ASGIApp, settings: Settings, **options: Any) -> uvicorn.Config:
    """uvicorn's settings: the strict parser, and limits before it parses."""
    protocol = type("HeaderTimeout", (HeaderTimeout,), {"patience": settings.patience})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_keep_alive=ceil(settings.patience),  # longer than clients keep it: closing first is an error
        timeout_graceful_shutdown=round(settings.drain + GRACE),
        h11_max_incomplete_event_size=settings.max_header,
        backlog=2048,
        **options,
    )


def serve(app: ASGIApp, service: Service, listener: socket.socket | None, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. The access log goes to standard error, a line a request."""
    whose = "%(process)d " if service.settings.workers > 1 else ""
    zone = strftime("%z")  # times of several machines are compared
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s{zone} {whose}%(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the command prints the start itself
    given = None if listener is None else [listener]
    server = GatewayServer(config(app, service.settings, host=host, port=port), service)
    # From now on, not only once uvicorn has taken it over; it raises it again at its end: an exit code of 0.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(given)
