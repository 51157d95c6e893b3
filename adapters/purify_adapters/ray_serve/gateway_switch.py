"""An ASGI application that passes requests on to one gateway, which can be exchanged while it serves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from purify_adapters.gateway.rejections import Rejected

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from purify_adapters.gateway import Gateway


class ServedGateway:
    """A gateway whose lifespan ends once it is retired and its last request has ended."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._requests = 0
        self._retired = False
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._live())

    @property
    def ended(self) -> bool:
        """Whether its threads have been let go."""
        return self._task.done()

    async def _live(self) -> None:
        app = self.gateway.app
        async with app.router.lifespan_context(app):
            await self._over.wait()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._requests += 1
        try:
            await self.gateway(scope, receive, send)
        finally:
            self._requests -= 1
            self._check()

    def retire(self) -> None:
        """End it with the last request that it has now."""
        self._retired = True
        self._check()

    async def end(self) -> None:
        """Retire it, and wait until it has ended."""
        self.retire()
        await self._task

    def _check(self) -> None:
        if self._retired and not self._requests:
            self._over.set()


class GatewaySwitch:
    """A request stays with the gateway that it began with; the next one gets the newest."""

    def __init__(self) -> None:
        self.current: ServedGateway | None = None

    def change(self, gateway: Gateway) -> None:
        """Serve by another gateway from now on."""
        before, self.current = self.current, ServedGateway(gateway)
        if before is not None:
            before.retire()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.current is None:
            response = Rejected(503, "The models are being loaded", "overloaded", retry_after="5").response()
            await response(scope, receive, send)
        else:
            await self.current.serve(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Answer the server's messages; each gateway's own lifespan is its ServedGateway's."""
        while True:
            message: Message = await receive()
            if message["type"] == "lifespan.shutdown" and self.current is not None:
                await self.current.end()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
