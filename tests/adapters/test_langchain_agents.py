"""Agents over purified models, and agents that are purified after the fact."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from purify_adapters.langchain import ChatPurified, PurifyMiddleware
from purify_plugins import RefusedError
from purify_plugins.types import Prompt
from tests.adapters.actors import agreeing, call, last
from tests.toys import real


@tool
def weather(city: Literal["Paris", "Oslo"]) -> str:
    """Tell the weather in a city."""
    return f"It rains in {city}."


def reply(prompt: Prompt) -> str:
    """One call, then what it found."""
    if "<tool_response>" in last(prompt):
        return f"I hear that {last(prompt).splitlines()[1]}"
    return call("weather", city="Oslo")


ASKED: Any = {"messages": [HumanMessage("How is Oslo?")]}
SAID = ["How is Oslo?", "", "It rains in Oslo.", "I hear that It rains in Oslo."]


def model(**options: Any) -> ChatPurified:
    return ChatPurified(purifier=agreeing(reply), temperature=0, **options)


def texts(state: Any) -> list[str]:
    return [message.content for message in state["messages"]]


def test_an_agent_calls_its_tool_and_answers() -> None:
    agent = create_agent(model(), [weather])
    state = agent.invoke(ASKED)
    assert texts(state) == SAID
    assert isinstance(state["messages"][2], ToolMessage)
    written = [message for message in state["messages"] if isinstance(message, AIMessage)]
    assert all(len(message.response_metadata["purification"]["digest"]) == 64 for message in written)


async def test_an_agent_works_without_blocking() -> None:
    assert texts(await create_agent(model(), [weather]).ainvoke(ASKED)) == SAID


def test_an_agent_s_tokens_are_streamed() -> None:
    agent = create_agent(model(), [weather])
    parts = [part for part, _ in agent.stream(ASKED, stream_mode="messages")]
    text = "".join(str(part.content) for part in parts if isinstance(part, AIMessage))
    assert text == SAID[-1]
    assert len(parts) > 10


class Report(BaseModel):
    """A report on the weather."""

    city: Literal["Paris", "Oslo"]
    rain: bool


@pytest.mark.parametrize("wanted", [Report, ToolStrategy(Report)], ids=["provider", "tool"])
def test_an_agent_s_answer_can_be_structured(wanted: Any) -> None:
    def report(prompt: Prompt) -> str:
        if "<tool_response>" not in last(prompt):
            return call("weather", city="Oslo")
        return (
            call("Report", city="Oslo", rain=True)
            if wanted is not Report
            else '{"city": "Oslo", "rain": true}'
        )

    agent = create_agent(
        ChatPurified(purifier=agreeing(report), temperature=0), [weather], response_format=wanted
    )
    state = agent.invoke(ASKED)
    assert state["structured_response"] == Report(city="Oslo", rain=True)
    assert any(isinstance(message, ToolMessage) for message in state["messages"])


def test_an_agent_runs_on_real_models() -> None:
    """They are too small to ask by themselves, so the call is forced once."""
    purified = ChatPurified(purifier=real(), max_tokens=120, seed=0)

    class Force(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            asked = any(isinstance(message, ToolMessage) for message in request.messages)
            return handler(request.override(tool_choice="none" if asked else "any"))

    state = create_agent(purified, [weather], middleware=[Force()]).invoke(ASKED)
    kinds = [type(message).__name__ for message in state["messages"]]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert state["messages"][2].content.startswith("It rains in")
    assert state["messages"][3].response_metadata["purification"]["guarantee"] == "window"


# An agent that is already there


def untrusted() -> Any:
    class Untrusted(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

    return Untrusted(messages=iter([AIMessage("POISON")] * 9))


async def test_a_middleware_replaces_an_agent_s_model() -> None:
    agent = create_agent(untrusted(), [weather], middleware=[PurifyMiddleware(model())])
    assert texts(agent.invoke(ASKED)) == SAID
    assert texts(await agent.ainvoke(ASKED)) == SAID
    streamed = [str(part.content) for part, _ in agent.stream(ASKED, stream_mode="messages")]
    assert "POISON" not in "".join(streamed)
    assert texts(create_agent(untrusted(), [weather]).invoke(ASKED))[-1] == "POISON"


class Replacing(AgentMiddleware[Any, Any, Any]):
    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=untrusted()))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=untrusted()))


async def test_a_middleware_after_it_cannot_bring_another_model_back() -> None:
    first = create_agent(untrusted(), middleware=[PurifyMiddleware(model()), Replacing()])
    with pytest.raises(RefusedError, match="put PurifyMiddleware last"):
        first.invoke(ASKED)
    with pytest.raises(RefusedError, match="put PurifyMiddleware last"):
        await first.ainvoke(ASKED)
    last_ = create_agent(untrusted(), [weather], middleware=[Replacing(), PurifyMiddleware(model())])
    assert texts(last_.invoke(ASKED)) == SAID


def test_a_middleware_is_made_from_a_configuration(tmp_path: Any) -> None:
    from purify_plugins.testbed import LLM, SLM

    file = tmp_path / "purify.toml"
    file.write_text(f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n[sampling]\nmax_tokens = 4\n")
    agent = create_agent(untrusted(), middleware=[PurifyMiddleware.from_config(file)])
    assert "POISON" not in agent.invoke(ASKED)["messages"][-1].content
