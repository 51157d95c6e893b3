"""Rows of a real-sized vocabulary, and a server that fails one answer of many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.llama_cpp_python import LlamaPythonSource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_plugins import SourceError
from purify_plugins.testbed import LLM
from purify_plugins.types import Vocabulary
from tests.fake_tgi import serving
from tests.remote.fake_servers import FakeLlama, FakeLlamaPython, FakeVLLM
from tests.remote.toy_server import ToyReader
from tests.toys import both, few, pair

REAL = 151_936
"""How many tokens Qwen has."""
WHOLE = 2048


def whole_row(bytes_: int = 6) -> bytes:
    """What llama-server answers to one prompt, every token shown, about 14 MB."""
    entry = '{"id":%d,"token":"%s","bytes":[%s],"logprob":-11.931240081787109}'
    spelled = "x" * bytes_, ",".join(["120"] * bytes_)
    top = ",".join(entry % (token, *spelled) for token in range(REAL))
    return f'{{"completion_probabilities":[{{"id":7,"top_logprobs":[{top}]}}]}}'.encode()


def test_rows_of_a_real_sized_vocabulary_are_read() -> None:
    """Asked for all at once they were an answer without end; the server was blamed for that."""
    row, asked = whole_row(), []

    async def answer(request: Any) -> Response:
        body = await request.json()
        asked.append(len(body["prompt"]))
        found = row if len(body["prompt"]) == 1 else b"[%b]" % b",".join([row] * len(body["prompt"]))
        return Response(found, media_type="application/json")

    app = Starlette(routes=[Route("/completion", answer, methods=["POST"])])
    vocabulary = Vocabulary(tuple(str(token).encode() for token in range(REAL)), frozenset({0}))
    with serving(app) as url:
        wire = HttpClient(url, entries=REAL)
        source = LlamaCppSource(wire, ToyReader(vocabulary), REAL, ahead=0)  # type: ignore[arg-type]  # a toy's
        found = wait(source.several([Position("", (1,) * length) for length in (1, 2, 3)]))
    assert len(row) > 12_000_000
    assert sum(asked) == 3
    assert [float(each.row[7]) for each in found] == pytest.approx([-11.93124] * 3)


@pytest.mark.parametrize("kind", [VLLMSource, LlamaPythonSource])
def test_a_draft_whose_rows_are_too_many_for_one_answer_is_asked_for_row_by_row(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM and llama-cpp-python show a row for every token of the prompt too, wanted or not."""
    fake = (FakeVLLM if kind is VLLMSource else FakeLlamaPython)(both()[0])
    with serving(fake.app()) as url:
        source = kind.load(url, tokenizer=LLM, top_n=WHOLE, engine="trusted")
        place = source.start("the old king went to the sea")
        draft = place._replace(answer=source.reader.tokenised(" and said")[1:])
        lengths = list(range(1, len(draft.answer) + 1))
        at_once = wait(source.rows(draft, lengths))
        before = len(fake.requests)
        monkeypatch.setattr("purify_adapters.sources.http.client.ANSWER", 4 * 256 * WHOLE)
        each = wait(source.rows(draft, lengths))
    assert len(fake.requests) - before == len(lengths)
    for one, other in zip(at_once, each, strict=True):
        assert one.exp().tolist() == pytest.approx(other.exp().tolist(), abs=1e-5)


def test_a_prompt_s_scores_ask_llama_cpp_python_for_no_row() -> None:
    """Whole rows for each token of the prompt went over the cap of an answer."""
    fake = FakeLlamaPython(both()[0])
    with serving(fake.app()) as url:
        source = LlamaPythonSource.load(url, tokenizer=LLM, top_n=WHOLE)
        before = len(fake.requests)
        assert len(wait(source.scores(source.start("the old king went to the sea"), 5))) == 5
    assert [body["logprobs"] for _, body in fake.requests[before:]] == [1]


class Poisoned(FakeLlama):
    """Answers to prompts with a certain token are spoilt."""

    mark = 0
    spoil: Any = None

    def _answer(self, index: int, ids: Sequence[int], body: Any) -> Any:
        answer = super()._answer(index, ids, body)
        return self.spoil(answer) if self.mark in ids else answer


def _nan(answer: Any) -> Any:
    answer["completion_probabilities"][0]["top_logprobs"][0]["logprob"] = None
    return answer


def _twice(answer: Any) -> Any:
    top = answer["completion_probabilities"][0]["top_logprobs"]
    top[1] = top[0]
    return answer


def _beyond(answer: Any) -> Any:
    answer["completion_probabilities"][0]["top_logprobs"][0]["id"] = WHOLE
    return answer


SPOILT = {"NaN": _nan, "twice": _twice, "beyond": _beyond, "no rows": lambda answer: {"index": 0}}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_bad_row_for_one_stream_ends_no_other_s_answer(
    spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is the server then left alone; the log says once for each what was refused."""
    fake = Poisoned(both()[0])
    with serving(fake.app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=8, retries=0)
        fake.mark, fake.spoil = source.reader.tokenised(" sea")[-1], spoil
        purifier = pair(source, both()[1], "geometric")

        def written(text: str) -> str:
            try:
                return purifier.generate(text, few(3))[0].text
            except SourceError:
                return "failed"

        texts = ["the king", "the sea"] * 8
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(written, texts))
    assert [text == "failed" for text in found] == [False, True] * 8
    assert not source.http.breaker.open
    told = [record for record in caplog.records if record.name == "purify.remote"]
    assert len(told) == 8


def test_json_is_not_shown_in_the_message_of_an_answer_that_is_refused() -> None:
    """What a server writes is the untrusted model's; only our own names of fields are said."""
    from purify_adapters.sources.http.rows import strict_json
    from purify_adapters.sources.http.shapes import LlamaCompletions

    bad = {"completion_probabilities": [{"id": "QZXJ", "QZXJ": 1, "top_logprobs": "QZXJ"}]}
    with pytest.raises(SourceError) as refused:
        strict_json(json.dumps(bad).encode(), LlamaCompletions)
    assert "QZXJ" not in str(refused.value)
