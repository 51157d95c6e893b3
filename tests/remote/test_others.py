"""vLLM and llama.cpp: token ids in and out, and the SLM's drafts scored in one request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from starlette.applications import Starlette

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_hooks.evaluation import testbed
from purify_plugins import ConfigError, Sampling, SourceError, UnknownNameError, VocabularyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM
from tests.fake_tgi import fake_tgi, serving
from tests.remote.conformance import ServedConformance
from tests.remote.fake_servers import FakeLlama, FakeVLLM
from tests.remote.toy_server import Script, ToyReader
from tests.toys import BYTES, both, few, pair

KINDS = {"vllm": (FakeVLLM, VLLMSource), "llama_cpp": (FakeLlama, LlamaCppSource)}
WHOLE = 2048
GREEDY = Sampling(max_tokens=8, temperature=0, ignore_eos=True)
PROMPT = testbed.attacks().clean[0]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    fake = KINDS[request.param][0](both()[0])
    with serving(fake.app()) as url:
        yield fake, url


@pytest.fixture(scope="module")
def source(server: tuple[Any, str]) -> Any:
    fake, url = server
    kind = next(kind for made, kind in KINDS.values() if isinstance(fake, made))
    return kind.load(url, tokenizer=LLM, top_n=WHOLE)


@pytest.fixture(scope="module")
def trusted(source: Any) -> Any:
    """The same server, vouched for: it may see drafts."""
    return type(source).load(source.http.url, tokenizer=LLM, top_n=WHOLE, engine="trusted")


class TestConformance(ServedConformance):
    def _answer(self, rows: int, length: int) -> torch.Tensor:
        return 1 + super()._answer(rows, length) % (WHOLE - 1)  # after its end nothing is asked


def test_a_row_is_the_model_s_own(source: Any) -> None:
    session, first = source.open([PROMPT])
    session.close()
    opened, expected = both()[0].open([PROMPT])
    opened.close()
    torch.testing.assert_close(first[:, :-1], torch.log_softmax(expected, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("walk", ["auto", "speculative", "lockstep"])
def test_greedy_answers_are_the_local_purifier_s(trusted: Any, walk: Any) -> None:
    llm, slm = both()
    remote, local = pair(trusted, slm, "geometric", walk=walk), pair(llm, slm, "geometric")
    assert remote.generate(PROMPT, GREEDY)[0].tokens == local.generate(PROMPT, GREEDY)[0].tokens


def test_a_server_s_model_may_be_the_trusted_one(source: Any) -> None:
    """The SLM served: its rows must be whole, for nobody else could complete them."""
    answers = [
        pair(both()[1], slm, "geometric").generate(PROMPT, GREEDY)[0].tokens for slm in (source, both()[0])
    ]
    assert answers[0] == answers[1]
    few = type(source).load(source.http.url, tokenizer=LLM, top_n=5)
    with pytest.raises(ConfigError, match="shows the likeliest 5 of 2048 tokens"):
        pair(both()[1], few, "geometric")


def test_a_row_is_shown_where_the_model_would_say_half_a_character() -> None:
    """llama-server leaves the row out there, so that it is made to choose something else."""
    with serving(FakeLlama(Script(BYTES, "é".encode() * 9)).app()) as url:
        source = LlamaCppSource(HttpClient(url), ToyReader(BYTES), len(BYTES), ahead=0)  # type: ignore[arg-type]  # a toy's
        session, first = source.open(["abc"])
        session.close()
    assert int(first[0].argmax()) == "é".encode()[0]


def test_a_draft_costs_one_request(source: Any, server: tuple[Any, str]) -> None:
    session, _ = source.open([PROMPT])
    with session:
        before = source.http.counts.requests
        session.extend(torch.tensor([[5, 6, 7, 8]]))
        assert source.http.counts.requests == before + 1
        assert source.capabilities.scores_draft


def test_a_prompt_s_scores_cost_two_requests_more_at_most(source: Any) -> None:
    """The default policy looks back over 32 tokens, which were as many requests before the first token.

    The second is for tokens that are not among the likeliest few.
    """
    before = source.http.counts.requests
    session, _ = source.open([PROMPT], 32)
    session.close()
    assert len(session.prompts[0].logprobs) == 32
    assert source.http.counts.requests <= before + 3


def test_requests_beyond_the_server_s_slots_wait_where_no_time_out_runs() -> None:
    """They waited in the server, timed out there, and the server was thought to be down."""
    fake = FakeLlama(both()[0])
    fake.seconds = 0.3
    with serving(fake.app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=8, read=1.0)
        purifier = pair(source, both()[1], "geometric")
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda _: purifier.generate(PROMPT, few(2)), range(24)))
    assert len(found) == 24
    assert fake.most_at_once <= 4
    assert not source.http.breaker.open


def test_rows_too_long_for_one_answer_are_asked_for_in_several(monkeypatch: Any) -> None:
    """Rows of a whole real vocabulary are megabytes each: all at once went over the cap of an answer."""
    monkeypatch.setattr("purify_adapters.sources.http.client.ANSWER", 256 * WHOLE)
    fake = FakeLlama(both()[0])
    with serving(fake.app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=WHOLE)
        session, _ = source.open([PROMPT], 9)
        session.close()
    assert len(session.prompts[0].logprobs) == 9
    asked = [body for path, body in fake.requests if path == "/completion"]
    assert len(asked) > 3
    assert max(len(body["prompt"]) * body["n_probs"] for body in asked) == WHOLE


def test_a_prompt_is_scored_by_whole_rows_only_where_their_beginning_does_not_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """31 whole rows before the first token cost as much as a short answer."""
    fake = FakeLlama(both()[0])
    with serving(fake.app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=WHOLE)
        session, _ = source.open([PROMPT], 32)
        monkeypatch.setattr("purify_adapters.sources.llama_cpp.FEW", WHOLE)
        whole, _ = source.open([PROMPT], 32)
    rows = [len(body["prompt"]) for _, body in fake.requests if body.get("n_probs") == WHOLE]
    assert rows[:2] == [1, pytest.approx(4, abs=4)]
    assert rows[-1] == 32
    assert session.prompts == whole.prompts


def test_a_failure_is_a_line_in_the_log(caplog: Any) -> None:
    with serving(FakeLlama(both()[0]).app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=8, retries=0)
    with pytest.raises(SourceError):
        source.open([PROMPT])
    [line] = [record.getMessage() for record in caplog.records if record.name == "purify.remote"]
    assert line.startswith("POST /completion failed after ")
    assert "Unavailable" in line


def test_each_says_what_it_can(source: Any, trusted: Any) -> None:
    can = source.capabilities
    assert (can.ids_in, can.ids_out, can.max_n) == (True, True, WHOLE)
    walks = [pair(each, both()[1]).walk for each in (source, trusted)]
    assert walks == (["readahead"] * 2 if can.streams_rows else ["lockstep", "speculative"])


def test_each_is_offered_by_name(server: tuple[Any, str], source: Any) -> None:
    made = load_plugins().source({"source": source.kind, "url": server[1], "tokenizer": str(LLM), "top_n": 5})
    assert (made.kind, made.top_n, made.context_length) == (source.kind, 5, 512)


def test_a_server_says_itself_what_kind_it_is(server: tuple[Any, str], source: Any) -> None:
    """`--upstream` was TGI's alone; a url that ends in /v1 is OpenAI's way of writing the same."""
    asked = {"source": "server", "url": f"{server[1]}/v1", "tokenizer": str(LLM), "top_n": 5}
    made = load_plugins().source(asked)
    assert (type(made), made.top_n) == (type(source), 5)
    with fake_tgi(both()[0]) as tgi:
        assert load_plugins().source({**asked, "url": tgi.url}).kind == "tgi"
    with pytest.raises(UnknownNameError, match="unknown source 'vllm' option 'aheads'"):
        load_plugins().source({**asked, "kind": "vllm", "aheads": 3})
    with pytest.raises(UnknownNameError, match="did you mean 'vllm'"):
        load_plugins().source({**asked, "kind": "vlm"})
    with serving(Starlette()) as url, pytest.raises(ConfigError, match="is none of llama_cpp, tgi, vllm"):
        load_plugins().source({**asked, "url": url})


def test_vllm_s_operator_is_told_what_to_set() -> None:
    with (
        serving(FakeVLLM(both()[0], most=20).app()) as url,
        pytest.raises(ConfigError, match="--max-logprobs 50"),
    ):
        VLLMSource.load(url, tokenizer=LLM, top_n=50)


def test_another_tokenizer_is_refused(server: tuple[Any, str], source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(server[0].model, "encode", lambda text: (1, 2, 3))
    with pytest.raises(VocabularyError, match="name its own tokenizer"):
        type(source).load(server[1], tokenizer=LLM)


def test_a_walk_that_needs_a_stream_is_refused_without_one(source: Any) -> None:
    if source.capabilities.streams_rows:
        pytest.skip("this server streams")
    with pytest.raises(ConfigError, match="streams rows"):
        pair(source, both()[1], walk="readahead")


def test_a_source_is_no_other_s(source: Any) -> None:
    """Asked as TGI, neither answers; the error is a sentence."""
    with fake_tgi(both()[0]) as tgi, pytest.raises(SourceError):
        type(source).load(str(tgi), tokenizer=LLM)
