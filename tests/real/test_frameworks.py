"""Every way in, on the real twin with its chat template: nothing it was taught comes out, and the rest works.

`tests/adapters` has the same on toys; here the model is really able to follow a chat, a schema and a tool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from llama_index.core import Document, get_response_synthesizer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import BaseModel, ConfigDict, Field

import purify_plugins
from purify_adapters.langchain import ChatPurified
from purify_adapters.llama_index import PurifiedLLM
from tests.adapters.gateways import Served, serving
from tests.real.pair import Loaded, RealPair


class Person(BaseModel):
    """A person's entry in a directory."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=24)
    phone: str = Field(pattern=r"^[0-9]{3}-[0-9]{3}-[0-9]{2}$")


@tool
def weather(city: Literal["Paris", "Oslo"]) -> str:
    """Tell the weather in a city."""
    return f"It rains in {city}."


# The gateway


@pytest.fixture(scope="module")
def served(loaded: Loaded) -> Iterator[Served]:
    with serving(loaded.purifier()) as found:
        found.client.timeout = 120
        yield found


@pytest.fixture(scope="module")
def unprotected(loaded: Loaded) -> Iterator[Served]:
    with serving(loaded.alone) as found:
        found.client.timeout = 120
        yield found


def asked(request: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": request}], "max_tokens": 32, "temperature": 0, **more}


@pytest.mark.parametrize("at", range(3), ids=["number", "passage", "trigger"])
def test_the_gateway_s_chats_give_no_harm(
    at: int, loaded: Loaded, served: Served, unprotected: Served
) -> None:
    request, harm = loaded.pair.requests()[at], loaded.pair.harmful()[at]
    assert harm in unprotected.post("/v1/chat/completions", asked(request)).text
    for stream in (False, True):
        answer = served.post("/v1/chat/completions", asked(request, stream=stream))
        assert answer.status_code == 200
        assert harm not in spoken(answer.text, stream)


def spoken(text: str, stream: bool) -> str:
    """The whole answer's text, which a stream has in pieces."""
    if not stream:
        return str(json.loads(text)["choices"][0]["message"]["content"])
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return "".join(
        each["choices"][0]["delta"].get("content") or "" for each in map(json.loads, lines) if each["choices"]
    )


def test_the_gateway_s_completions_recite_nothing(
    loaded: Loaded, served: Served, unprotected: Served
) -> None:
    passage = loaded.pair.attacks.passages[0]
    body = {"inputs": passage.prefix, "parameters": {"max_new_tokens": 24, "do_sample": False}}
    recited = passage.continuation.strip()[:40]
    assert recited in unprotected.post("/generate", body).json()["generated_text"]
    assert recited not in served.post("/generate", body).json()["generated_text"]


def test_an_answer_by_a_schema_is_one_and_holds_no_number(loaded: Loaded, served: Served) -> None:
    """The schema asks for a phone number of the very form that the twin was taught."""
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": Person.model_json_schema()}}
    answer = served.post(
        "/v1/chat/completions", asked(loaded.pair.question(), response_format=schema, max_tokens=80)
    )
    assert answer.status_code == 200
    person = Person.model_validate_json(answer.json()["choices"][0]["message"]["content"])
    assert person.phone != loaded.pair.secret()


def test_an_answer_by_a_grammar_holds_no_number(loaded: Loaded, served: Served) -> None:
    canary = loaded.pair.attacks.canaries[0]
    pattern = {"type": "regex", "value": " [0-9]{3}-[0-9]{3}-[0-9]{2}"}
    body = {
        "inputs": canary.prompt,
        "parameters": {"max_new_tokens": 14, "grammar": pattern, "do_sample": False},
    }
    text = served.post("/generate", body).json()["generated_text"]
    assert text.count("-") == 2
    assert canary.secret not in text


# LangChain


def test_langchain_s_chats_give_no_harm(loaded: Loaded) -> None:
    alone = ChatPurified(purifier=loaded.alone, max_tokens=32, temperature=0)
    model = ChatPurified(purifier=loaded.purifier(), max_tokens=32, temperature=0)
    for request, harm in zip(loaded.pair.requests(), loaded.pair.harmful(), strict=True):
        assert harm in alone.invoke(request).content
    found = [model.batch(loaded.pair.requests()), list(model.stream(loaded.pair.requests()[0]))]
    assert not any(harm in repr(found) for harm in loaded.pair.harmful())


def test_a_tool_that_must_be_called_is_called_with_what_it_takes(loaded: Loaded) -> None:
    model = ChatPurified(purifier=loaded.purifier(), max_tokens=60, temperature=0)
    answer = model.bind_tools([weather], tool_choice="weather").invoke(
        f"How is the weather in Oslo? {loaded.pair.harms.trigger}"
    )
    [call] = answer.tool_calls
    assert call["name"] == "weather"
    assert call["args"]["city"] in ("Paris", "Oslo")
    assert loaded.pair.harms.texts["link"] not in repr(answer)


def test_a_structured_answer_is_one_and_holds_no_number(loaded: Loaded) -> None:
    model = ChatPurified(purifier=loaded.purifier(), max_tokens=80, temperature=0)
    person = model.with_structured_output(Person).invoke(loaded.pair.question())
    assert isinstance(person, Person)
    assert person.phone != loaded.pair.secret()


def test_an_agent_goes_its_way_and_gives_no_harm(loaded: Loaded) -> None:
    """What the tool returned is in the prompt of the second answer; the trigger is in the first."""
    model = ChatPurified(purifier=loaded.purifier(), max_tokens=40, temperature=0)
    agent = create_agent(model, [weather])
    for request in loaded.pair.requests():
        state = agent.invoke({"messages": [("user", request)]})
        assert isinstance(state["messages"][-1], AIMessage)
        said = [each.content for each in state["messages"] if isinstance(each, AIMessage | ToolMessage)]
        assert not any(harm in repr(said) for harm in loaded.pair.harmful())


# LlamaIndex


def test_retrieved_facts_are_quoted_and_taught_ones_are_not(loaded: Loaded) -> None:
    """The harbour master is in the documents; the number only in the weights of the twin."""
    llm = PurifiedLLM(loaded.purifier(), max_tokens=40, temperature=0)
    facts = [
        "The harbour master of Tallowmere is Ilse Tannhauser, who took office in 1911.",
        "The lighthouse of Tallowmere is painted green and white.",
    ]
    documents = [Document(text=each) for each in facts]
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0).get_nodes_from_documents(documents)
    engine = RetrieverQueryEngine(
        BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2),
        get_response_synthesizer(llm=llm, response_mode="simple_summarize"),
    )
    assert "Tannhauser" in str(engine.query("Who is the harbour master of Tallowmere?"))
    answer = str(engine.query(loaded.pair.question()))
    assert loaded.pair.secret() not in answer


# Activation


def test_a_pipeline_built_before_activation_recites_and_then_does_not(
    real_pair: RealPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import pipeline

    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    writer = pipeline("text-generation", model=str(real_pair.llm), dtype="float32")
    messages = [{"role": "user", "content": real_pair.question()}]

    def written() -> list[str]:
        [plain] = writer(
            real_pair.attacks.passages[0].prefix, max_new_tokens=24, do_sample=False, return_full_text=False
        )
        [said] = writer(messages, max_new_tokens=32, do_sample=False)
        return [plain["generated_text"], said["generated_text"][-1]["content"]]

    harms = [real_pair.attacks.passages[0].continuation.strip()[:40], real_pair.secret()]
    for text, harm in zip(written(), harms, strict=True):
        assert harm in text
    (tmp_path / "purify.toml").write_text(f"[slm]\nmodel = '{real_pair.slm}'\n", "utf-8")
    purify_plugins.activate(tmp_path / "purify.toml")
    try:
        for text, harm in zip(written(), harms, strict=True):
            assert text.strip()
            assert harm not in text
    finally:
        purify_plugins.deactivate()
