"""An HTTP client of one server: bounded in size, time and number of requests; closed on cancellation."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from purify_adapters.sources.http.circuit_breaker import CircuitBreaker, CircuitOpen, Queued, Unavailable
from purify_adapters.sources.http.counting import RequestCounts, note_request
from purify_adapters.sources.http.options import Timeouts, check_key, check_url
from purify_adapters.sources.http.rows import readable, strict_json
from purify_adapters.sources.http.sse import EVENT, LINE, Events
from purify_plugins.errors import SourceError
from purify_plugins.sources.read_scope import for_fusion

log = logging.getLogger("purify.remote")
logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes whole urls at INFO, and these hold secrets

if TYPE_CHECKING:
    import ssl

    import httpx

T = TypeVar("T")
ENTRY, ANSWER = 256, 64 * 1024 * 1024
"""Byte limits: of one token of a row (long rows raise the limits of lines by it), and of an answer."""
LATE = "the LLM's server did not answer in time; see its log, or raise read"
BUSY = (429, 502, 503, 504)
ADVICE: Mapping[int, str] = {
    401: "refused the API key; name the variable that holds it in api_key_env",
    403: "refused the API key; name the variable that holds it in api_key_env",
    404: "has no such route; its url or its kind is wrong",
    429: "is overloaded; try again later",
    503: "is not ready; try again later",
}


class RequestRefused(SourceError):
    """The server calls the request invalid; `content` is its answer, which is not shown to users."""

    def __init__(self, message: str, content: bytes) -> None:
        super().__init__(message)
        self.content = content


class NoRoute(SourceError):
    """The server has no such route."""


@dataclass(eq=False)
class HttpClient:
    """The client of one server.

    `entries` is how many tokens a row may show, `connections` the most that are open at once. A retry costs
    one of `_retry_budget`, which every request fills by a tenth.
    """

    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 2
    connections: int = 100
    entries: int = 0
    counts: RequestCounts = field(default_factory=RequestCounts)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    slots: int | None = None
    _retry_budget: float = 10.0
    _permits: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Check the URL and the key; a trailing /v1, as OpenAI's clients have it, is dropped."""
        check_url(self.url)
        check_key(self.api_key)
        self.url = self.url.rstrip("/").removesuffix("/v1")
        self._permits = asyncio.Semaphore(self.connections)
        _CLIENTS.add(self)

    def forked(self) -> None:
        """Begin anew in a forked process: connections, permits and probes under way are its parent's."""
        self._permits = asyncio.Semaphore(min(self.connections, self.slots or self.connections))
        self.breaker = CircuitBreaker(self.breaker.clock)
        if (client := vars(self).pop("_client", None)) is not None:
            _PARENTS.append(client)  # closing it here would end the parent's connections

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        import httpx

        client = httpx.AsyncClient(
            base_url=self.url,
            headers={"accept-encoding": "identity", **self._key()},
            timeout=httpx.Timeout(**vars(self.timeouts)),
            limits=httpx.Limits(max_connections=self.connections),
            follow_redirects=False,
            trust_env=False,
            verify=_tls(),
        )
        weakref.finalize(self, _close, client, os.getpid()).atexit = False
        return client

    def _key(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    async def get(self, path: str) -> Any:
        """GET a path; the JSON of its answer. Raises SourceError."""
        async with self._answer("GET", path, None) as response:
            return strict_json(await self._whole(response))

    async def reach(self, *paths: str) -> None:
        """GET the first of these paths that the server has; its answer is not read. Raises SourceError.

        A server that rests is not asked: CircuitOpen. Neither slots nor the circuit breaker take part, since
        this is asked while all slots are taken, and says nothing of how a model's requests fare.
        """
        if self.breaker.resting:
            raise CircuitOpen(0.0)
        *others, last = paths
        for path in others:
            with suppress(NoRoute):
                async with self._response("GET", path, None):
                    return
        async with self._response("GET", last, None):
            pass

    async def post(
        self, path: str, body: Any, rows: int = 1, shape: Any = Any
    ) -> tuple[Any, Mapping[str, str]]:
        """POST a body; the JSON of the answer (of `rows` rows), and its headers. Raises SourceError."""
        async with self._answer("POST", path, body) as response:
            return strict_json(await self._whole(response, rows), shape), response.headers

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Around the parsing of an answer: an error is logged as well as raised."""
        try:
            with readable():
                yield
        except SourceError as error:
            log.warning("%s answered what is refused: %s: %s", path, type(error).__name__, error)
            raise

    def rows_at_once(self, entries: int) -> int:
        """How many rows of `entries` tokens fit into one answer."""
        return max(ANSWER // (ENTRY * max(entries, 1)), 1)

    async def events(self, path: str, body: Any, rows: int = 1) -> AsyncIterator[bytes]:
        """POST a body; the data of every server-sent event of the answer, of `rows` rows at most.

        Closing the iterator closes the connection. Each whole event must arrive within `read` seconds.
        """
        longest = ENTRY * self.entries * rows
        caps = max(LINE, longest), max(EVENT, longest)
        async with self._answer("POST", path, body) as response:
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise SourceError("the LLM's server answers a stream with something else; its url is wrong")
            parser, chunks = Events(*caps), response.aiter_raw()
            while (found := await self._in_time(_until(parser, chunks))) is not None:
                for data in found:
                    yield data

    async def with_retries(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call `ask`; on `Unavailable` again, up to `retries` times and within the retry budget."""
        for attempt in range(self.retries + 1):
            try:
                return await ask()
            except Unavailable as error:
                if attempt == self.retries or self._retry_budget < 1:
                    raise
                log.warning("attempt %d of %d failed and is made again", attempt + 1, self.retries + 1)
                self._retry_budget -= 1
                self.counts.retries += 1
                await asyncio.sleep(min(max(error.after, 0.1 * 2**attempt), 2.0))
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        """A response of status 200. Raises CircuitOpen, Queued, Unavailable, SourceError.

        Requests beyond the server's `slots` wait here, where no time-out runs: a request that waits
        in the server is indistinguishable from one to a server that is down.
        """
        async with self._turn():
            begun = time.monotonic()
            with self.breaker.asking() as answered:
                self._count()
                try:
                    async with self._response(method, path, body) as response:
                        answered()
                        yield response
                except SourceError as error:
                    _note(method, path, begun, error)
                    raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold a permit for one request. Raises Queued after `pool` seconds; slots are waited for."""
        try:
            async with asyncio.timeout(None if self.slots else self.timeouts.pool):
                await self._permits.acquire()
        except TimeoutError as error:
            raise Queued(
                f"{self.connections} requests to the LLM's server are under way, and one more waited for "
                f"{self.timeouts.pool:g} s; raise connections or pool, or ask less at once"
            ) from error
        try:
            yield
        finally:
            self._permits.release()

    def limit(self, slots: int) -> None:
        """Send at most `slots` requests at once: the server processes no more."""
        self.slots = slots
        self.share(1)

    def share(self, processes: int) -> None:
        """Divide the server's slots among so many processes, at least one each."""
        if self.slots is not None:
            self._permits = asyncio.Semaphore(min(max(self.slots // processes, 1), self.connections))

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        import httpx

        try:
            request = self._client.build_request(method, path, json=body)
            with for_fusion():  # activation would refuse a request that has text written
                response = await self._in_time(self._client.send(request, stream=True))
            try:
                if response.status_code != 200:
                    raise await self._fault(response, path)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise SourceError("the LLM's server compresses its answers; forbid it to")
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise Unavailable(LATE) from error
        except httpx.RequestError as error:
            kind = type(error).__name__
            raise Unavailable(
                f"the connection to the LLM's server at {self.address} failed ({kind}); is it running?"
            ) from error

    @property
    def address(self) -> str:
        """The server's scheme, host and port; the rest of its URL may be secret."""
        import httpx

        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode()}"

    def _count(self) -> None:
        """Count a request, and fill the retry budget by a tenth."""
        self.counts.requests += 1
        note_request()
        self._retry_budget = min(self._retry_budget + 0.1, 10.0)

    async def _in_time(self, coroutine: Any) -> Any:
        try:
            async with asyncio.timeout(self.timeouts.read):
                return await coroutine
        except TimeoutError as error:
            raise Unavailable(LATE) from error

    async def _whole(self, response: httpx.Response, rows: int = 1) -> bytes:
        """The whole body. Raises SourceError for one longer than `rows` rows need."""
        most = max(ANSWER, ENTRY * self.entries * rows)
        return bytes(await self._in_time(_collect(response, most)))

    async def _fault(self, response: httpx.Response, path: str) -> SourceError:
        status = response.status_code
        advice = ADVICE.get(status, "refused the request" if status < 500 else "failed; see its log")
        if 300 <= status < 400:
            advice = "redirects elsewhere, which is never followed; give its final url"
        answered = f"the LLM's server at {self.address} answered {status} to {path}"
        message = f"{answered}: it {advice}"
        if status in BUSY:
            return Unavailable(message, _seconds(response.headers.get("retry-after", "")))
        if status == 404:
            return NoRoute(message)
        if status in (400, 422):
            return RequestRefused(message, await self._whole(response))
        return SourceError(message)


def _seconds(header: str) -> float:
    return float(header) if header.isdigit() and len(header) < 6 else 0.0


async def _collect(response: httpx.Response, most: int) -> bytearray:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > most:
            raise SourceError(
                f"the LLM's server sent more than {most} bytes in one answer, which what was asked for "
                "does not need; see what answers at its url, or lower top_n"
            )
    return body


def _note(method: str, path: str, begun: float, error: SourceError) -> None:
    """Log a failed request: method, path, milliseconds and error; never the content of an answer."""
    milliseconds = round(1000 * (time.monotonic() - begun))
    log.warning("%s %s failed after %d ms: %s: %s", method, path, milliseconds, type(error).__name__, error)


async def _until(parser: Events, chunks: AsyncIterator[bytes]) -> list[bytes] | None:
    """The data of the next events; None at the end of the stream."""
    async for chunk in chunks:
        if found := parser.feed(chunk):
            return found
    return None


@cache
def _tls() -> ssl.SSLContext:
    """The TLS certificates, read once: reading them takes as long as a token's row."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


def _close(client: httpx.AsyncClient, process: int) -> None:
    from purify_adapters.sources.http.event_loop import begun

    if (loop := begun()) is not None and process == os.getpid():  # without one, it never had a connection
        asyncio.run_coroutine_threadsafe(client.aclose(), loop)


_CLIENTS: weakref.WeakSet[HttpClient] = weakref.WeakSet()
_PARENTS: list[httpx.AsyncClient] = []


def _forked() -> None:
    for each in list(_CLIENTS):
        each.forked()


if os.name == "posix":  # Windows has no fork
    os.register_at_fork(after_in_child=_forked)
