"""The access log and the traces: route, status, times and counts of each request; no prompt, no answer."""

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
    """Middleware that logs every request as one line of JSON, and as one span where OpenTelemetry is on.

    A line has the name of the route's function in place of the path, so that it holds no text of a client's.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, facts = time.perf_counter(), {"status": 0}
        scope["purify"] = facts

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
            await send(message)

        with _span() as span:
            try:
                await self.app(scope, receive, send_noting)
            finally:
                self._log(scope, facts, time.perf_counter() - start, span)

    def _log(self, scope: Scope, facts: dict[str, Any], seconds: float, span: Any) -> None:
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
    """An OpenTelemetry span if OpenTelemetry is installed; without its SDK the span does nothing."""
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
    """Count a refusal's kind in the log and the metrics; its message is in neither."""
    kind = why.error_type or "rejected"
    scope["purify"]["error"] = kind
    metrics.fail(kind, scope["purify"].get("tenant", ""))
