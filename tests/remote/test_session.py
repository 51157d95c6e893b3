"""An open batch on a server: its streams, what is forgotten of them, and who closes them."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
import torch

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import PendingRequest, loop
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import ServerToken
from purify_adapters.sources.http.source import RemoteSource
from purify_adapters.sources.tgi.source import _top
from purify_adapters.sources.vllm_server import VLLMSource
from purify_plugins import SourceError
from purify_plugins.protocols import Capabilities
from purify_plugins.testing import ToySource, letters
from tests.remote.toy_server import ToyReader

VOCABULARY = letters("abcd")
TOY = ToySource(VOCABULARY, seed=1)


class Streaming(RemoteSource):
    """A toy in the place of a server, streams and all."""

    capabilities = Capabilities(True, True, len(VOCABULARY), None, True, streams_rows=True)

    def __init__(self) -> None:
        super().__init__(HttpClient("http://a"), ToyReader(VOCABULARY), len(VOCABULARY), ahead=8)  # type: ignore[arg-type]  # a toy's
        self.under_way = 0

    async def row(self, place: Position) -> ServerToken:
        row = torch.log_softmax(TOY.logits(place.ids), -1)
        return ServerToken(torch.cat([row, torch.tensor([-torch.inf])]), int(row.argmax()))

    async def stream(self, place: Position, length: int) -> AsyncIterator[ServerToken]:
        for _ in range(length):
            yield (drafted := await self.row(place))
            place = place._replace(answer=(*place.answer, drafted.token))


class Stuck(Streaming):
    """It never answers; what is asked of it is counted until it is given up."""

    async def _never(self) -> None:
        self.under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way -= 1

    async def row(self, place: Position) -> ServerToken:
        if not place.answer:
            raise SourceError("no")
        await self._never()
        raise AssertionError("unreachable")

    async def stream(self, place: Position, length: int) -> AsyncIterator[ServerToken]:
        await self._never()
        yield ServerToken(torch.zeros(1), 0)


def until(true: Any) -> None:
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


@pytest.mark.parametrize("forgotten", range(4))
@pytest.mark.parametrize("read", range(4))
def test_after_a_rewind_the_row_is_that_after_the_tokens_read_and_not_after_those_forgotten(
    forgotten: int, read: int
) -> None:
    session, _ = Streaming().open(["ab", "ba"])
    with session:
        session.extend(torch.tensor([[forgotten], [forgotten]]))
        session.rewind(torch.tensor([0, 1]))
        found = session.extend(torch.tensor([[read], [read]]))[:, 0, :-1]
    texts = [(*TOY.encode("ab"), read), (*TOY.encode("ba"), forgotten, read)]
    expected = torch.stack([torch.log_softmax(TOY.logits(each), -1) for each in texts])
    torch.testing.assert_close(found, expected)


def test_whoever_leaves_before_the_first_token_leaves_no_stream_open() -> None:
    source, asking = Stuck(), PendingRequest()

    def ask() -> None:
        asking.enter()
        with pytest.raises(CancelledError):
            source.open(["ab", "ba"])

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: source.under_way == 2)
    asking.end()
    thread.join()
    until(lambda: source.under_way == 0)


class Slow(Streaming):
    """Its connections are closed once `may` is set; those that were closed so are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.closing, self.closed, self.may, self.more = 0, 0, asyncio.Event(), asyncio.Event()

    async def stream(self, place: Position, length: int) -> AsyncIterator[ServerToken]:
        try:
            yield await self.row(place)
            await self.more.wait()
        finally:
            self.closing += 1
            await self.may.wait()
            self.closed += 1


def test_whoever_leaves_while_a_batch_is_closed_leaves_no_stream_open() -> None:
    source, asking = Slow(), PendingRequest()
    session, _ = source.open(["ab", "ba"])

    def close() -> None:
        asking.enter()
        session.close()

    thread = threading.Thread(target=close)
    thread.start()
    until(lambda: source.closing == 1)
    asking.end()
    loop().call_soon_threadsafe(source.may.set)
    thread.join(60)
    assert (source.closed, thread.is_alive()) == (2, False)


def abandoned(source: Streaming) -> None:
    """Leave an open batch to the garbage collector."""

    def held() -> Iterator[Any]:
        with source.open(["ab"])[0] as session:
            yield session

    cycle: list[Any] = [held()]
    next(cycle[0])
    cycle.append(cycle)


def test_a_batch_may_be_collected_on_the_loop_s_own_thread() -> None:
    """The loop waited for itself: every server of the process was dead from then on."""
    source = Slow()
    source.may.set()
    gc.collect()
    abandoned(source)

    async def collected() -> int:
        return gc.collect()

    asyncio.run_coroutine_threadsafe(collected(), loop()).result(60)
    until(lambda: source.closed == 1)


def test_a_batch_may_be_collected_while_a_request_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread waited for a lock that it held itself."""
    source, begin = Slow(), asyncio.run_coroutine_threadsafe
    source.may.set()
    gc.collect()
    abandoned(source)

    def collecting(coroutine: Any, at: asyncio.AbstractEventLoop) -> Any:
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", begin)
        gc.collect()
        return begin(coroutine, at)

    def ask() -> None:
        PendingRequest().enter()
        Streaming().open(["ab"])[0].close()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", collecting)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(60)
    assert (thread.is_alive(), source.closed) == (False, 1)


def test_where_one_of_several_questions_fails_the_others_are_given_up() -> None:
    source = Stuck()
    places = [Position("", (1,), (0,) * length) for length in (1, 2, 0)]

    async def ask() -> int:
        with pytest.raises(SourceError, match="no"):
            await source.several(places)
        return source.under_way

    assert asyncio.run(ask()) == 0


class Broken(Streaming):
    """Reading its answer breaks in a way that nobody foresaw."""

    async def row(self, place: Position) -> ServerToken:
        raise OverflowError("secret")


@pytest.mark.parametrize("ahead", [0, 8])
def test_an_answer_whose_reading_breaks_is_the_server_s_fault_and_is_not_shown(ahead: int) -> None:
    source = Broken()
    source.ahead = ahead
    with pytest.raises(SourceError, match="sent what cannot be read") as refused:
        source.open(["ab", "ba"])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "choice", [5, "x", {"logprobs": 5}, {"logprobs": {"tokens": 5}}, {"logprobs": {"tokens": "x"}}]
)
def test_a_vllm_whose_tokens_are_no_list_is_refused(choice: object) -> None:
    source = VLLMSource(HttpClient("http://a"), ToyReader(VOCABULARY), 4)  # type: ignore[arg-type]  # a toy's
    with pytest.raises(SourceError, match="left out"):
        source._first(choice)


@pytest.mark.parametrize("details", [5, "x", [1], {"top_tokens": 5}, {"top_tokens": "x"}])
def test_a_tgi_whose_details_are_no_details_is_refused(details: object) -> None:
    for at in (0, None):
        with pytest.raises(SourceError):
            _top(details, at)
