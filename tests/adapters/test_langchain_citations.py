"""LangChain's documents are cited where a prompt quotes them: in chains, agents, streams and batches."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import create_retriever_tool

from purify_adapters.langchain import ChatPurified, PurifiedLLM, retrievals
from purify_adapters.langchain.retrievals import RETRIEVED, RetrievedDocuments, named
from purify_adapters.quoting import merged, remembered
from purify_hooks.stages.grounded import Grounded
from purify_plugins.stages import RequestOptions
from purify_plugins.types import Prompt
from tests.adapters.actors import agreeing, call, last

NILE = Document("The Nile is 6,650 kilometres long and flows through Egypt to the sea.", id="nile")
ORU = Document(
    "Lake Oru is the deepest lake of Tarn; it is fed by nine rivers.", metadata={"source": "oru.txt"}
)
SPARE = Document("Bexley Thorne never moved his queen before the thirtieth turn.", id="spare")
SAID = "The Nile flows through Egypt."
PROMPT = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")


class Shelf(BaseRetriever):
    """Finds the documents about what the query names, and one that chains leave out."""

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        about = {"Nile": NILE, "Oru": ORU}
        return [*(found for name, found in about.items() if name in query), SPARE]


def joined(documents: list[Document]) -> str:
    return "\n\n".join(each.page_content for each in documents if each is not SPARE)


def says(prompt: Prompt) -> str:
    return SAID


def chat(reply: Any = says, **stage: Any) -> ChatPurified:
    said = RequestOptions(
        on_refusal="text", refusals={"default": "I cannot say.", "ungrounded": "No source."}
    )
    purifier = agreeing(reply).replace(stages=[Grounded(**stage)], request=said)
    return ChatPurified(purifier=purifier, temperature=0, certificate=True)


def body_of(about: Any) -> Any:
    return json.loads(about["purification"]["certificate"])


def cited(message: Any) -> list[str]:
    body = body_of(message.response_metadata)
    return [each["id"] for each in body["drafts"][0]["certificate"]["context"]]


def chain(model: Any) -> Any:
    found = RunnableParallel(
        context=itemgetter("question") | Shelf() | joined, question=itemgetter("question")
    )
    return found | PROMPT | model


ASKED = {"question": "How long is the Nile ?"}


def test_a_chain_s_retrieved_documents_are_cited_where_the_prompt_quotes_them() -> None:
    """The parallel step retrieves in another thread and context than the one that the model is called in."""
    answer = chain(chat()).invoke(ASKED)
    assert cited(answer) == ["nile"]
    scores = body_of(answer.response_metadata)["scores"]["grounded"]
    assert scores["sentences"] == [1.0]


async def test_streams_and_asyncio_cite_alike() -> None:
    model = chat()
    assert cited(await chain(model).ainvoke(ASKED)) == ["nile"]
    whole = None
    for chunk in chain(model).stream(ASKED):
        whole = chunk if whole is None else whole + chunk
    assert cited(whole) == ["nile"]
    parts = [chunk async for chunk in chain(model).astream(ASKED)]
    assert any("purification" in part.response_metadata and cited(part) == ["nile"] for part in parts)


def test_each_answer_of_a_batch_cites_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answers = chain(chat()).batch([ASKED, {"question": "Where is Lake Oru ?"}, {"question": "Why?"}])
    assert [cited(answer) for answer in answers] == [["nile"], ["oru.txt"], []]
    assert "one by one" in caplog.text


async def test_conversations_that_run_at_once_do_not_cite_each_other_s_documents() -> None:
    asked = [ASKED, {"question": "Where is Lake Oru ?"}]
    answers = await asyncio.gather(*(chain(chat()).ainvoke(each) for each in asked * 3))
    assert [cited(answer) for answer in answers] == [["nile"], ["oru.txt"]] * 3
    assert not RETRIEVED.runs


def test_documents_that_a_chain_is_given_are_cited() -> None:
    listed = RunnablePassthrough.assign(context=lambda given: joined(given["context"]))
    answer = (listed | PROMPT | chat()).invoke({"context": [NILE, ORU], "question": "How long?"})
    assert cited(answer) == ["nile", "oru.txt"]


def test_the_documents_of_langchain_s_stuff_chain_are_cited() -> None:
    combine = pytest.importorskip(
        "langchain_classic.chains.combine_documents", reason="LangChain's own chains are a package apart"
    )
    raw: list[Any] = []
    keeping = chat() | RunnableLambda(lambda message: raw.append(message) or message)
    made = combine.create_stuff_documents_chain(keeping, PROMPT)
    assert made.invoke({"context": [NILE], "question": "How long?"}) == SAID
    assert cited(raw[0]) == ["nile"]


def test_what_was_retrieved_before_the_model_is_called_by_hand_is_cited() -> None:
    documents = Shelf().invoke("the Nile")
    assert cited(chat().invoke(f"{joined(documents)}\n\nHow long?")) == ["nile"]
    assert cited(chat().invoke("How long is the Nile?")) == []


def searching(prompt: Prompt) -> str:
    if "Question" in last(prompt):
        return call("shelf", query="the Nile")
    return SAID


def test_an_agent_s_retriever_tool_is_cited_and_so_are_its_results_in_later_turns() -> None:
    tool = create_retriever_tool(Shelf(), "shelf", "Finds texts.", response_format="content_and_artifact")
    agent = create_agent(chat(searching), [tool])
    state = agent.invoke({"messages": [HumanMessage("Question: how long is the Nile?")]})
    assert cited(state["messages"][-1]) == ["nile", "spare"]  # the tool's result has both
    later = chat().invoke([*state["messages"], HumanMessage("And then?")])
    assert cited(later) == ["nile", "spare"]


def test_a_blocking_stage_refuses_what_no_document_says() -> None:
    blocking = chat(block=True)
    assert chain(blocking).invoke(ASKED).content == SAID
    assert chain(blocking).invoke({"question": "Why?"}).content == "No source."
    wrong = chat(lambda prompt: "The Rhine flows through Basel.", block=True)
    assert chain(wrong).invoke(ASKED).content == "No source."


def test_a_completion_model_cites_the_documents_of_its_prompt() -> None:
    purifier = agreeing(says).replace(stages=[Grounded()])
    model = PurifiedLLM(purifier=purifier, temperature=0, certificate=True)
    found = {"context": itemgetter("question") | Shelf() | joined, "question": itemgetter("question")}
    generated: list[Any] = []
    template = PromptTemplate.from_template("{context}\n\n{question}")

    def keep(value: Any) -> Any:
        generated.append(model.generate_prompt([value]).generations[0][0])
        return value

    (RunnableParallel(found) | template | RunnableLambda(keep)).invoke(ASKED)
    body = body_of(generated[0].generation_info)
    assert [each["id"] for each in body["drafts"][0]["certificate"]["context"]] == ["nile"]


def test_documents_without_an_id_are_named_by_their_source_or_digest() -> None:
    pages = [Document("one", metadata={"source": "a.pdf", "page": page}) for page in (1, 2)]
    other = Document("two", metadata={"source": "a.pdf", "page": 1})
    names = list(named([*pages, other, Document("x")]))
    assert names[:2] == ["a.pdf 1", "a.pdf 2"]
    assert names[2].startswith("a.pdf 1 ")
    assert len(names[3]) == 16


def test_two_retrievals_that_name_parts_of_one_file_alike_lose_neither() -> None:
    """A splitter gives parts their file's name and no more; a later one once took an earlier one's place."""
    parts = [Document(text, metadata={"source": "a.pdf"}) for text in ("first", "second")]
    run = uuid4()
    found = RetrievedDocuments()
    found.on_chain_start(None, {}, run_id=run)
    for part in (*parts, *parts):
        child = uuid4()
        found.on_retriever_start(None, "?", run_id=child, parent_run_id=run)
        found.on_retriever_end([part], run_id=child, parent_run_id=run)
    known = found.runs[run]
    assert sorted(known.values()) == ["first", "second"]
    assert known["a.pdf"] == "second"  # who edits a document finds it under its own name
    for both in (parts, parts[::-1]):
        assert sorted(merged(known, named(both)).values()) == ["first", "second"]


def test_steps_that_retrieve_at_once_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
        kept = remembered(before, new)
        time.sleep(0.02)
        return kept

    monkeypatch.setattr(retrievals, "remembered", slowly)
    run, found = uuid4(), RetrievedDocuments()
    found.on_chain_start(None, {}, run_id=run)

    def retrieve(name: str) -> None:
        child = uuid4()
        found.on_retriever_start(None, "?", run_id=child, parent_run_id=run)
        found.on_retriever_end([Document(name, id=name)], run_id=child, parent_run_id=run)

    with ThreadPoolExecutor() as pool:
        list(pool.map(retrieve, "abcd"))
    assert sorted(found.runs[run]) == [*"abcd"]
