"""LangChain's PIIMiddleware, one for each kind, on a chat model of langchain-openai."""

from __future__ import annotations

import re
import time
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware
from langchain_openai import ChatOpenAI
from talk import Heard, serve, settings

GIVEN = settings()
MODEL = ChatOpenAI(model="fake", base_url=GIVEN.host, api_key="none", max_retries=0)
EVERYWHERE: dict[str, Any] = {
    "apply_to_input": True,
    "apply_to_output": True,
    "apply_to_tool_results": True,
}
FORBIDDEN = "(?i)" + "|".join(re.escape(text) for text in GIVEN.forbidden)


def guards(fault: str) -> list[PIIMiddleware]:
    kinds = [PIIMiddleware(kind, strategy="redact", **EVERYWHERE) for kind in ("email", "credit_card", "ip")]
    own = PIIMiddleware("customer", detector=GIVEN.own, strategy="redact", **EVERYWHERE)
    forbidden = PIIMiddleware("forbidden", detector=FORBIDDEN, strategy="block", apply_to_output=True)
    return [*kinds, own, forbidden, *failing(fault)]


def failing(fault: str) -> list[PIIMiddleware]:
    def detect(text: str) -> list[Any]:
        if fault.endswith("raises"):
            raise OSError("the classifier is down")
        time.sleep(60)
        return []

    where = {"apply_to_input": fault.startswith("in"), "apply_to_output": fault.startswith("out")}
    return [PIIMiddleware("classifier", detector=detect, strategy="redact", **where)] if fault else []


def answer(request: dict[str, Any], heard: Heard) -> None:
    agent = create_agent(MODEL, tools=request["tools"], middleware=guards(request["fault"]))
    state = {"messages": request["messages"]}
    if not request["stream"]:
        message = agent.invoke(state)["messages"][-1]
        heard.add(message.text)
        heard.arguments = "".join(str(call["args"].get("to", "")) for call in message.tool_calls)
    elif GIVEN.how == "events":
        run = agent.stream_events(state, version="v3")
        for message in run.messages:
            for piece in message.text:
                heard.add(piece)
        last = run.output["messages"][-1]
        heard.arguments = "".join(str(call["args"].get("to", "")) for call in last.tool_calls)
    else:
        for chunk, _ in agent.stream(state, stream_mode="messages"):
            heard.add(chunk.text)
            heard.arguments += "".join(call["args"] or "" for call in chunk.tool_call_chunks)


serve(["langchain", "langchain-openai"], answer)
