"""The service behind the routes: a purifier with a queue, deadlines, metrics and kept certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from starlette.responses import Response

from purify_adapters.gateway.access_log import log_failure
from purify_adapters.gateway.executor import DecodeExecutor, Picker, Slot
from purify_adapters.gateway.kept_certificates import KeptCertificates
from purify_adapters.gateway.metrics import Metrics
from purify_adapters.gateway.openai_completions import ServerIdentity
from purify_adapters.gateway.readiness import Readiness
from purify_adapters.gateway.rejections import Rejected, cut_short, to_http_error, unsupported
from purify_adapters.gateway.request_validation import Generation, RequestValidator
from purify_adapters.gateway.sse import Emit, EventStream, encoded, event, leaving
from purify_adapters.gateway.telemetry import record, record_failure
from purify_adapters.gateway.tenants import STRENGTH, Shares, strength_of, tenant_of
from purify_adapters.gateway.tgi_responses import slm_only, staged
from purify_adapters.gateway.timing import Timing
from purify_adapters.sources.http.counting import counting
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins._version import __version__
from purify_plugins.configuration.pair import tightened
from purify_plugins.errors import ConfigError
from purify_plugins.sources.batching import batching

if TYPE_CHECKING:
    from starlette.requests import Request

    from purify_adapters.gateway.settings import Settings
    from purify_adapters.openai_schema import Json
    from purify_plugins.configuration.tenants import Tenant
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Chunk, Completion

T = TypeVar("T")
CHATS = ("/v1/chat/completions", "/v1/responses")
"""The routes whose requests are conversations."""


class EventWriter(Protocol):
    """Turns an answer's chunks into a stream's events; `done` ends a stream that succeeded."""

    done: str | None

    def take(self, chunk: Chunk) -> Iterator[Json]: ...

    def error(self, why: Rejected) -> Json: ...


@dataclass(frozen=True)
class AnswerPlan:
    """A validated request: its generations, the body of a whole answer, and the events of a stream."""

    generations: Sequence[Generation]
    body: Callable[[Sequence[Completion]], Any]
    events: Sequence[EventWriter]


@dataclass(frozen=True)
class Lasting:
    """What one service after another goes on with: slots, counters and kept certificates."""

    executor: DecodeExecutor
    metrics: Metrics
    certificates: KeptCertificates
    shares: Shares

    @classmethod
    def of(cls, settings: Settings) -> Lasting:
        executor = DecodeExecutor(settings.max_concurrent, settings.queue, settings.deadline)
        return cls(executor, Metrics(), KeptCertificates(settings.certificates), Shares())


class Service:
    """Answers requests with a purifier. It keeps no conversation, so several may stand behind one address."""

    def __init__(self, purifier: Purifier, settings: Settings, before: Service | None = None) -> None:
        self.purifier, self.settings = purifier, settings
        self.validator = RequestValidator(purifier, settings)
        self.picker = Picker(purifier.over(batching))
        self.lasting: Lasting = before.lasting if before else Lasting.of(settings)
        self.readiness = Readiness(purifier)
        llm = purifier.llm.inner
        self.upstream = llm.http if isinstance(llm, RemoteSource) else None
        if self.upstream is not None and not (before and before.upstream is self.upstream):
            self.upstream.share(settings.workers)
        name = settings.model_id or str(purifier.llm.identity().get("name", "purified"))
        self.identity = ServerIdentity(name, f"purify-plugins-{__version__}")
        self.tenant: Tenant | None = None
        self.tenants: dict[str, Service] = {each.name: self._of(each) for each in settings.tenants}

    @property
    def executor(self) -> DecodeExecutor:
        return self.lasting.executor

    @property
    def metrics(self) -> Metrics:
        return self.lasting.metrics

    @property
    def certificates(self) -> KeptCertificates:
        return self.lasting.certificates

    def _of(self, tenant: Tenant) -> Service:
        """The service for a tenant: under its policy, with the same slots. Raises ConfigError."""
        purifier = self.picker.purifier
        purifier = purifier if tenant.policy is None else purifier.replace(policy=tenant.policy)
        if purifier.store is not None:
            purifier = purifier.replace(store=purifier.store.of(tenant.name))
        strict = self.settings.require_guarantee or tenant.require_guarantee
        found = copy(self)
        found.tenant, found.settings = tenant, replace(self.settings, require_guarantee=strict)
        return found._with(purifier).tightened(tenant.strength)

    def _with(self, purifier: Purifier) -> Service:
        found = copy(self)
        found.purifier, found.picker = purifier, Picker(purifier.over(batching))
        found.validator = RequestValidator(purifier, self.settings)
        return found

    def tightened(self, strength: float) -> Service:
        """This service with a share of its policy's latitude; itself at 1. Raises ConfigError."""
        if strength == 1:
            return self
        policy = tightened(self.purifier.policy, strength)
        return self._with(self.purifier.for_request(policy=policy))

    def admitting(self, request: Request) -> Service:
        """The service for a request's key, as strict as the request asks for. Raises Rejected: 401, 422."""
        tenant = tenant_of(request, self.settings.api_key, self.settings.tenants)
        found = self if tenant is None else self.tenants[tenant.name]
        if tenant is not None:
            request.scope["purify"]["tenant"] = tenant.name
        try:
            return found.tightened(strength_of(request))
        except ConfigError as error:
            raise unsupported(STRENGTH, str(error)) from error

    def succeeded_by(self, purifier: Purifier, tenants: tuple[Tenant, ...] = ()) -> Service:
        """The service that answers from now on: with another purifier, and this one's slots and counters.

        Requests that have begun here end here.
        """
        return Service(purifier, replace(self.settings, tenants=tenants), self)

    @property
    def owner(self) -> str:
        """The tenant's name; "" for the gateway's own key."""
        return self.tenant.name if self.tenant else ""

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Slot]:
        """A slot for a request of this tenant. Raises Rejected: 429, 503; TimeoutError."""
        with self.lasting.shares.held(self.tenant):
            async with self.executor.slot() as slot:
                yield slot

    @property
    def upstream_down(self) -> bool:
        """Whether the LLM's server has failed so often that it gets no requests at present."""
        return self.upstream is not None and self.upstream.breaker.resting

    def gauges(self) -> dict[str, int]:
        """The present values for `/metrics`."""
        found = {"tgi_queue_size": self.executor.waiting, "tgi_batch_current_size": self.executor.running}
        if self.upstream is not None:
            found["purify_upstream_resting"] = int(self.upstream_down)
        if self.purifier.store is not None:
            found["purify_answers_without_record"] = self.purifier.store.unrecorded
        return found

    async def compute(self, function: Callable[[], T]) -> T:
        """Call a function that reads with the models' tokenizers, on a decoding thread. Raises Rejected."""
        async with self._slot() as slot:
            try:
                return await slot.run(function)
            except Exception as error:  # a chat template can raise anything
                raise to_http_error(error) from None

    async def answer(
        self, request: Request, plan: Callable[[], AnswerPlan], streaming: bool, characters: int
    ) -> Response:
        """Carry out a route's plan. Raises Rejected, only before the first byte."""
        self.metrics.count("tgi_request_count")
        request.scope["purify"]["asked"] = True
        timing = Timing(characters)
        try:
            if streaming:
                return await self._streamed(request, plan, timing)
            return await self._whole(request, plan, timing)
        except Exception as error:  # a plugin can raise anything; the client gets `to_http_error`'s words
            why = to_http_error(error)
            self._failed(request, timing, why)
            raise why from None

    def _failed(self, request: Request, timing: Timing, why: Rejected) -> None:
        """Record that an inference has failed; an answer's text is in no part of it."""
        chat = request.url.path in CHATS
        record_failure(self.identity.model, chat, timing.seconds, why.error_type or "rejected")

    # Whole answers

    async def _whole(self, request: Request, plan: Callable[[], AnswerPlan], timing: Timing) -> Response:
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

    async def _complete(self, request: Request, plan: Callable[[], AnswerPlan], timing: Timing) -> Response:
        async with self._slot() as slot:
            timing.queued()
            body, headers = await slot.run(lambda: self._written(request, slot, plan, timing))
        return Response(body, headers=headers, media_type="application/json")

    def _written(
        self, request: Request, slot: Slot, plan: Callable[[], AnswerPlan], timing: Timing
    ) -> tuple[bytes, dict[str, str]]:
        """The whole answer and its headers; one call on one thread."""
        planned = plan()
        timing.validated()
        with counting() as requests:
            found = [slot.whole(each, self.picker) for each in planned.generations]
        body = planned.body(found)
        for each in found:
            self._keep(each)
        self._record(request, planned, found, timing, requests.requests)
        purification = {
            "x-purify-certificate": ",".join(each.certificate.digest for each in found),
            "x-purify-guarantee": ",".join(each.certificate.guarantee for each in found),
            "x-purify-slm-only": str(sum(map(slm_only, found))),
            "x-purify-upstream-requests": str(requests.requests),
            **_staged_headers(found),
        }
        return encoded(body), {**timing.headers(planned.generations, found), **purification}

    # Streams

    async def _streamed(self, request: Request, plan: Callable[[], AnswerPlan], timing: Timing) -> Response:
        events: list[EventWriter] = []

        async def write(emit: Emit) -> None:
            async with self._slot() as slot:
                timing.queued()
                planned = await slot.run(plan)
                timing.validated()
                events.extend(planned.events)
                await self._write(request, slot, planned, emit, timing)

        def failure(error: Exception) -> bytes:
            why = to_http_error(error)
            self._failed(request, timing, why)
            log_failure(request.scope, self.metrics, why)
            return event(events[0].error(why) if events else why.body)

        limit = self.settings.deadline + 1
        stream = EventStream(write, failure, timing.first_headers(), self.settings.keep_alive, limit)
        await stream.begin(request.receive)
        return stream

    async def _write(
        self, request: Request, slot: Slot, planned: AnswerPlan, emit: Emit, timing: Timing
    ) -> None:
        found: list[Completion] = []
        requests = 0
        for generation, events in zip(planned.generations, planned.events, strict=True):
            completion = None
            with counting() as counts:
                async with aclosing(slot.stream(generation, self.picker)) as chunks:
                    async for chunk in chunks:
                        if completion := chunk.completion:
                            self._keep(completion)  # before the event that names its digest
                        for each in events.take(chunk):
                            timing.began()
                            await emit(event(_with_requests(each, counts.requests)))
            requests += counts.requests
            if completion is None:
                raise cut_short()
            found.append(completion)
        if done := planned.events[0].done:
            await emit(event(done))
        self._record(request, planned, found, timing, requests)

    # Records

    def _keep(self, completion: Completion) -> None:
        """Keep a certificate for `/certificates`."""
        self.certificates.keep(self.owner, completion.certificate.digest, completion.certificate.issued)

    def _record(
        self,
        request: Request,
        planned: AnswerPlan,
        found: Sequence[Completion],
        timing: Timing,
        requests: int,
    ) -> None:
        """Record an answer that succeeded; `requests` were sent to models' servers for it."""
        timing.finished()
        facts = timing.facts(planned.generations, found)
        request.scope["purify"].update(facts, upstream_requests=requests)
        self.metrics.count("tgi_request_success")
        without = sum(each.certificate.guarantee == "none" for each in found)
        self.metrics.count("purify_answers_without_guarantee", without)
        self.metrics.count("purify_slm_only_tokens", sum(map(slm_only, found)))
        self.metrics.count("purify_upstream_requests", requests)
        self.metrics.answered(self.owner, sum(len(each.tokens) for each in found))
        record(self.identity.model, planned.generations, found, timing.seconds, timing.first)
        for name, value in timing.observations(planned.generations, found).items():
            self.metrics.observe(name, value)


def _staged_headers(found: Sequence[Completion]) -> dict[str, str]:
    """Headers of answers that stages made."""
    if not all(each.certificate.staged for each in found):
        return {}
    facts = [staged(each) for each in found]
    return {
        "x-purify-finish-reason": ",".join(str(each["finish_reason"]) for each in facts),
        "x-purify-drawn-tokens": ",".join(str(each["drawn_tokens"]) for each in facts),
    }


def _with_requests(event: Mapping[str, Any], requests: int) -> Mapping[str, Any]:
    """An event; the last one also says how many requests the answer took."""
    about = event.get("purify")
    return event if about is None else {**event, "purify": {**about, "upstream_requests": requests}}
