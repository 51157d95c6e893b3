"""Readiness: each model's server is asked whether it is up, at most once every FRESH seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from purify_adapters.sources.http.circuit_breaker import CircuitOpen, Unavailable
from purify_adapters.sources.http.event_loop import loop, together
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

log = logging.getLogger("purify.gateway")
FRESH = 2.0
"""Seconds for which a finding is repeated: anybody may ask, and a server is not to be flooded through us."""
BOUND = 2.0
"""Seconds that a server has to answer."""
WELL = ("loaded", "reachable")


class Readiness:
    """What each of a purifier's two models is at the moment: one of `WELL`, or why it cannot be asked.

    "loaded": it runs in this process. "reachable": its server answered. "unavailable": it did not, or said
    that it is not ready. "resting": it has failed so often that it gets no requests for a while. "refuses":
    it answered with an error.
    """

    def __init__(self, purifier: Purifier) -> None:
        self.alone = purifier.on_llm_failure == "slm"
        self._servers = {"llm": servers_of(purifier.llm), "slm": servers_of(purifier.slm)}
        self._asked: asyncio.Task[Mapping[str, str]] | None = None
        self._until = 0.0
        self._last: Mapping[str, str] | None = None

    async def states(self) -> Mapping[str, str]:
        """The state of "llm" and of "slm", at most FRESH seconds old; concurrent callers share one check."""
        now = asyncio.get_running_loop().time()
        if self._asked is None or (self._asked.done() and now >= self._until):
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    def ready(self, states: Mapping[str, str]) -> bool:
        """Whether requests can be answered, by both models or, where that is allowed, by the SLM alone."""
        return states["slm"] in WELL and (states["llm"] in WELL or self.alone)

    async def _ask(self) -> Mapping[str, str]:
        found = await asyncio.gather(*map(_state, self._servers.values()))
        states = dict(zip(self._servers, found, strict=True))
        if states != self._last and (self._last or not self.ready(states)):
            log.warning("readiness: the LLM is %s, the SLM is %s", states["llm"], states["slm"])
        self._last, self._until = states, asyncio.get_running_loop().time() + FRESH
        return states


async def _state(servers: Sequence[RemoteSource]) -> str:
    """A model's state, from the servers that it needs, asked on the loop that owns their connections."""
    if not servers:
        return "loaded"
    try:
        asking = asyncio.run_coroutine_threadsafe(together([each.reach() for each in servers]), loop())
        async with asyncio.timeout(BOUND):
            await asyncio.wrap_future(asking)
    except CircuitOpen:
        return "resting"
    except (Unavailable, TimeoutError):
        return "unavailable"
    except SourceError:
        return "refuses"
    return "reachable"


def servers_of(source: LogitSource) -> list[RemoteSource]:
    """The servers that a source asks, those of the sources inside it included."""
    found: list[RemoteSource] = []

    def visit(each: LogitSource) -> LogitSource:
        if isinstance(each, RemoteSource):
            found.append(each)
        return each.over(visit)

    visit(source)
    return found
