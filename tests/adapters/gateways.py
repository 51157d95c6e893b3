"""A gateway on a port of its own, and stub models for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from purify_adapters.gateway import Gateway, gateway
from purify_adapters.gateway.server import GatewayServer, config
from purify_plugins import Purifier
from purify_plugins.testing import ScriptedSource, ToySource
from tests.toys import BYTES, Forbidding, pair

CANARY = "~"
"""A character that stands in no header, no JSON and no page of ours."""
FORBIDDEN = frozenset({ord(CANARY), *range(0x80, 0x100)})
"""What the stub SLM never says: the canary, and bytes that are no text alone."""


@dataclass(frozen=True)
class Poisoned(ScriptedSource):
    """A model that is sure of the canary, whatever it is asked."""

    text: bytes = CANARY.encode() * 4096


def poisoned(**options: Any) -> Purifier:
    """An LLM with all its mass on the canary, and an SLM that rules it out."""
    return pair(Poisoned(BYTES), Forbidding(BYTES, 2, forbidden=FORBIDDEN), **options)


def stubs(llm: Any = None, **options: Any) -> Purifier:
    """Two toys that write ASCII."""
    slm = Forbidding(BYTES, 2, forbidden=FORBIDDEN)
    return pair(llm or ToySource(BYTES, 1), slm, **options)


@dataclass
class Served:
    """A running gateway and a client for it."""

    app: Gateway
    port: int
    client: httpx.Client
    server: GatewayServer = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def events(self, path: str, body: Any) -> list[Any]:
        """A stream's data, parsed; `[DONE]` as it stands."""
        return events(self.post(path, body).text)

    def idle(self, seconds: float = 60.0) -> bool:
        """Whether every place is free again within so many seconds."""
        end = time.monotonic() + seconds
        while self.app.service.executor.running and time.monotonic() < end:
            time.sleep(0.005)
        return self.app.service.executor.running == 0


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data:")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextmanager
def serving(purifier: Purifier, **settings: Any) -> Iterator[Served]:
    """A gateway around the purifier, on a thread, until the block ends."""
    app = gateway(purifier, **{"drain": 0.0, **settings})
    server = GatewayServer(config(app, app.service.settings, port=0), app.service)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.002)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            yield Served(app, port, client, server)
    finally:
        server.should_exit = True
        thread.join(30)
