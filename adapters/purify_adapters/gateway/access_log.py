"""The access log and the traces: what was asked of which route and how it went, never what was said."""

from __future__ import annotations

import json
import logging
import time
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.rejections import Rejected

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from purify_adapters.gateway.metrics import Metrics

log = logging.getLogger("purify.access")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class AccessLog:
    """Notes every request: one line of JSON, whatever is in it, and one span where traces are on.

    The name of a route's function stands for the path, so that nothing a client wrote is in the line.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, facts = time.perf_counter(), {"status": 0}
        scope["purify"] = facts

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
            await send(message)

        with _span() as span:
            try:
                await self.app(scope, receive, noting)
            finally:
                self._note(scope, facts, time.perf_counter() - start, span)

    def _note(self, scope: Scope, facts: dict[str, Any], seconds: float, span: Any) -> None:
        name = getattr(scope.get("endpoint"), "__name__", "unknown")
        method = scope["method"] if scope["method"] in METHODS else "other"
        line = {"method": method, "route": name, "ms": round(1000 * seconds, 1), **facts}
        log.info("%s", json.dumps(line))
        if facts.get("asked"):
            self.metrics.observe("duration", seconds)
        if span is not None:
            span.update_name(f"{method} {name}")
            span.set_attributes({f"purify.{key}": value for key, value in line.items()})


def _span() -> Any:
    """A span of OpenTelemetry's, if it is installed; without its SDK that costs nothing."""
    tracer = _tracer()
    return (
        nullcontext()
        if tracer is None
        else tracer.start_as_current_span("request", record_exception=False, set_status_on_exception=False)
    )


@cache
def _tracer() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("purify.gateway")


def log_failure(scope: Scope, metrics: Metrics, why: Rejected) -> None:
    """Put a refusal's kind into the log and the metrics; not its words."""
    kind = why.error_type or "rejected"
    scope["purify"]["error"] = kind
    metrics.fail(kind)
