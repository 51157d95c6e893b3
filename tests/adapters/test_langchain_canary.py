"""The canary: an LLM with all its mass on what the SLM forbids gets it out nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_core.tracers.base import BaseTracer
from pydantic import BaseModel, Field

from purify_adapters.langchain import ChatPurified, PurifiedLLM, PurifyMiddleware
from purify_plugins import Purifier
from purify_plugins.plugin.manager import load_plugins
from tests.adapters.actors import WORDS, Actor

CANARY = "XYZZY"
IDS = frozenset({WORDS.tokens.index(CANARY.encode())})
POLICIES = ("balanced", "geometric", "capped")


class Everything(BaseCallbackHandler):
    """Keeps all that any callback is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def _hear(self, *told: Any, **more: Any) -> None:
        self.heard.append(repr((told, more)))

    on_llm_start = on_chat_model_start = on_llm_new_token = on_llm_end = on_llm_error = _hear
    on_chain_start = on_chain_end = on_tool_start = on_tool_end = _hear


class Traces(BaseTracer):
    """Keeps every run's trace."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def _persist_run(self, run: Any) -> None:
        self.kept.append(repr(run.model_dump()))


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    kept = InMemoryCache()
    set_llm_cache(kept)
    yield kept
    set_llm_cache(None)


def poisoned(policy: str, doubt: float) -> Purifier:
    """The LLM says nothing but canaries; the SLM would not say one."""
    plugins = load_plugins(())
    llm = Actor(lambda _: CANARY * 40, "poisoned", doubt)
    slm = Actor(lambda _: "Good morning.", "benign", 0.3, forbidden=IDS)
    return Purifier(llm, slm, plugins.policy(policy), plugins=plugins)


def test_the_llm_alone_would_say_nothing_else() -> None:
    """Otherwise the tests below would prove nothing."""
    llm = Actor(lambda _: CANARY * 40, "poisoned")
    trusted = Purifier(llm, llm, load_plugins(()).policy("geometric"))
    assert CANARY in ChatPurified(purifier=trusted, max_tokens=9, temperature=0).invoke("hello").content


async def everything(model: Any, config: Any) -> list[Any]:
    """What every entry point returns."""
    found = [
        model.invoke("two", config),
        await model.ainvoke("three", config),
        list(model.stream("four", config)),
        [chunk async for chunk in model.astream("five", config)],
        [event async for event in model.astream_events("one", config, version="v2")],
        model.batch(["six", "seven"], config),
        await model.abatch(["eight", "nine"], config),
        list(model.batch_as_completed(["ten", "eleven"], config)),
        [each async for each in model.abatch_as_completed(["twelve", "thirteen"], config)],
        list(model.transform(iter(["fourteen"]), config)),
        (model | str).invoke("fifteen", config),
        model.invoke("two", config),  # from the cache
        list(model.stream("three", config)),
    ]
    asked = [[HumanMessage("sixteen")]] if isinstance(model, ChatPurified) else ["sixteen"]
    found += [model.generate(asked, **config), await model.agenerate(asked, **config)]
    if isinstance(model, ChatPurified):
        found += [list(model.stream_events("seventeen", config, version="v3"))]
        stream = await model.astream_events("eighteen", config, version="v3")
        found += [[event async for event in stream], await stream.output]
    return found


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")  # v3 events
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
@pytest.mark.parametrize(("doubt", "temperature"), [(1e-3, 0.0), (1e-30, 1.0)])
async def test_no_canary_gets_out(
    kind: Any, policy: str, doubt: float, temperature: float, cache: InMemoryCache
) -> None:
    heard, traces = Everything(), Traces()
    model = kind(purifier=poisoned(policy, doubt), max_tokens=8, temperature=temperature)
    found = await everything(model, {"callbacks": [heard, traces]})
    assert all(found)
    assert heard.heard
    assert traces.kept
    assert cache._cache
    for place in (found, heard.heard, traces.kept, cache._cache):
        assert CANARY not in repr(place)


async def test_no_canary_gets_out_of_logprobs_or_certificates() -> None:
    model = ChatPurified(purifier=poisoned("balanced", 1e-3), max_tokens=8)
    answer = model.invoke("hello", logprobs=True, certificate=True)
    assert CANARY not in repr(answer)
    assert len(answer.response_metadata["logprobs"]["content"]) > 1


class Hero(BaseModel):
    """A hero."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)


async def test_no_canary_gets_out_of_structures_or_forced_calls(cache: InMemoryCache) -> None:
    heard, model = Everything(), ChatPurified(purifier=poisoned("balanced", 1e-3), max_tokens=200)
    config: Any = {"callbacks": [heard]}
    found: list[Any] = []
    for method in ("json_schema", "function_calling"):
        chain = model.with_structured_output(Hero, method=method, include_raw=True)
        found += [chain.invoke("a", config), await chain.ainvoke("b", config), *chain.stream("c", config)]
        found += chain.batch(["d", "e"], config)
    calling = model.bind_tools([Hero], tool_choice="any")
    found += [calling.invoke("f", config), *calling.stream("g", config)]
    assert isinstance(found[0]["parsed"], Hero)
    assert CANARY not in repr((found, heard.heard, cache._cache))


async def test_no_canary_gets_out_of_an_agent() -> None:
    heard = Everything()
    purified = ChatPurified(purifier=poisoned("balanced", 1e-3), max_tokens=8)
    config: Any = {"callbacks": [heard]}
    asked: Any = {"messages": [HumanMessage("hello")]}
    for agent in (create_agent(purified), create_agent(purified, middleware=[PurifyMiddleware(purified)])):
        found = [agent.invoke(asked, config), await agent.ainvoke(asked, config)]
        found += list(agent.stream(asked, config, stream_mode="messages"))
        found += [event async for event in agent.astream_events(asked, config, version="v2")]
        assert CANARY not in repr((found, heard.heard))
