"""llama.cpp's servers and vLLM's, for real: the same answers as beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.llama_cpp_python import LlamaPythonSource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_hooks.evaluation import testbed
from purify_hooks.local.source import LocalSource
from purify_plugins import Sampling, SourceError
from purify_plugins.certificates import verify
from purify_plugins.decode.partial_rows import complete
from purify_plugins.testbed import LLM, SLM_1024
from purify_plugins.types import Chat
from tests.adapters.gateways import serving
from tests.remote.real_servers import llama_command, llama_python_command, started, vllm_command, write_gguf
from tests.toys import both, pair

pytestmark = pytest.mark.slow

GREEDY = Sampling(max_tokens=24, temperature=0, ignore_eos=True)
KINDS: dict[str, Any] = {
    "llama_cpp": (LlamaCppSource, llama_command, "/health", 60.0),
    "llama_cpp_python": (LlamaPythonSource, llama_python_command, "/v1/models", 60.0),
    "vllm": (VLLMSource, lambda file: vllm_command(LLM), "/health", 300.0),
}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kind of source and the URL of its server."""
    kind, command, *health = KINDS[request.param]
    folder = tmp_path_factory.mktemp("server")
    with started(command(write_gguf(LLM, folder / "llm.gguf")), folder / "log", *health) as url:
        yield kind, url


@pytest.fixture(scope="module")
def source(server: Any) -> Any:
    kind, url = server
    return kind.load(url, tokenizer=LLM, top_n=2048, read=120.0)  # vLLM's first answer takes its time


def prompts() -> list[str]:
    return list(testbed.attacks().clean[:3])


def test_a_row_is_the_model_s_own(source: Any) -> None:
    """What is shown is what the model thinks, as near as float32 is in another order."""
    session, first = source.open([prompts()[0]])
    session.close()
    opened, expected = both()[0].open([prompts()[0]])
    opened.close()
    shown = torch.isfinite(first[0, :-1])
    expected = torch.log_softmax(expected, -1)
    torch.testing.assert_close(first[0, :-1][shown], expected[0][shown], atol=2e-3, rtol=1e-3)
    assert expected[0][shown].exp().sum() > 0.95
    assert shown.all() or source.kind == "llama_cpp_python"


def test_an_slm_with_another_tokenizer_purifies_the_top_of_its_rows(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes, with what is hidden taken from the SLM; no row that is asked for is larger than `top_n`."""
    kind, url = server
    if kind is not LlamaCppSource:
        pytest.skip("the route whose requests are read here is llama-server's")
    asked: list[int] = []
    request = LlamaCppSource._request

    async def noted(source: Any, prompts: Any, top_n: int) -> Any:
        asked.append(top_n)
        return await request(source, prompts, top_n)

    monkeypatch.setattr(LlamaCppSource, "_request", noted)
    slm = LocalSource.load(SLM_1024, dtype="float32", device="cpu")
    purifier = pair(kind.load(url, tokenizer=LLM, top_n=100, read=120.0), slm, "balanced")
    chat = Chat(({"role": "user", "content": prompts()[0]},))
    for prompt in (prompts()[0], chat):
        answer = purifier.generate(prompt, GREEDY)[0]
        verify(answer.certificate, purifier.plugins)
        assert len(answer.tokens) == round(GREEDY.max_tokens * purifier.vocabulary.per_token)
        assert any(0 < step.hidden < 1 for step in answer.steps)
    assert set(asked) <= {100}
    whole = pair(both()[0], slm, "balanced")
    (opened, row), (own, slm_row), (beside, expected) = (
        source.open([prompts()[0]]) for source in (purifier.llm, purifier.slm, whole.llm)
    )
    with opened, own, beside:
        mixed, revealed, _ = complete(row, slm_row)
        gap = float((mixed.exp() - expected.exp()).abs().sum()) / 2
        assert gap <= 1 - float(revealed) + 0.05


def test_a_row_is_shown_in_the_middle_of_a_character(source: Any) -> None:
    """By a server that takes ids; where there is only text, none ends there, and the SLM goes on alone."""
    pieces = {piece: token for token, piece in enumerate(source.vocabulary.tokens)}
    session, _ = source.open(["caf"])
    opened, _ = both()[0].open([source.reader.tokenised("caf")])
    with session, opened:
        for at, byte in enumerate("北".encode()):
            token = torch.tensor([[pieces[bytes([byte])]]])
            row, expected = session.extend(token)[0, 0], opened.extend(token)[0]
            shown = torch.isfinite(row[:-1])
            assert shown.any() == (source.capabilities.ids_in or at == 2)
            own = torch.log_softmax(expected, -1)[0]
            torch.testing.assert_close(row[:-1][shown], own[shown], atol=2e-3, rtol=1e-3)


def test_llama_server_shows_no_row_of_half_a_character(server: Any, source: Any) -> None:
    """Hence it is made to choose another; see `LlamaCppSource.ascii`."""
    if source.kind != "llama_cpp":
        pytest.skip("a fact about llama-server")
    half = source.vocabulary.tokens.index(b"\xe5")
    asked = {"prompt": list(source.reader.tokenised("caf")), "n_predict": 1, "n_probs": 2, "temperature": 0}
    told = [
        httpx.post(f"{server[1]}/completion", json={**asked, "logit_bias": [[token, 1000]]}, trust_env=False)
        for token in (half, source.ascii)
    ]
    assert ["completion_probabilities" in each.json() for each in told] == [False, True]


@pytest.mark.parametrize("walk", ["auto", "lockstep"])
@pytest.mark.parametrize("policy", ["geometric", "balanced"])
def test_greedy_answers_are_the_local_purifier_s(source: Any, walk: Any, policy: str) -> None:
    llm, slm = both()
    remote, local = pair(source, slm, policy, walk=walk), pair(llm, slm, policy)
    auto = "readahead" if source.capabilities.streams_rows else "lockstep"
    assert remote.walk == (auto if walk == "auto" else walk)
    ours, theirs = local.generate(prompts(), GREEDY), remote.generate(prompts(), GREEDY)
    assert [answer.tokens for answer in ours] == [answer.tokens for answer in theirs]
    assert not any(step.slm_only for answer in theirs for step in answer.steps)


def test_drawn_answers_are_the_same_from_one_seed(source: Any) -> None:
    """And not the greedy ones."""
    purifier = pair(source, both()[1], "geometric", walk="lockstep")
    sampling = Sampling(max_tokens=12, seed=1, ignore_eos=True)
    one, other = (purifier.generate(prompts()[0], sampling)[0].tokens for _ in range(2))
    assert one == other
    assert len(one) == 12
    assert one != purifier.generate(prompts()[0], GREEDY)[0].tokens[:12]


def test_a_few_of_a_row_are_completed_with_the_slm_s_tail(server: Any) -> None:
    kind, url = server
    few = kind.load(url, tokenizer=LLM, top_n=5)
    answer = pair(few, both()[1], "geometric").generate(prompts()[0], Sampling(max_tokens=8, seed=1))[0]
    assert all(0 < step.revealed < 1 for step in answer.steps)
    assert float(answer.certificate.body["totals"]["most_hidden"]) > 0


def test_a_draft_costs_one_request(source: Any) -> None:
    words = source.reader.tokenised(" the old king went")[1:]
    session, _ = source.open([prompts()[0]])
    with session:
        before = source.http.counts.requests
        rows = session.extend(torch.tensor([words]))
        assert source.http.counts.requests == before + 1
        session.rewind(torch.tensor([0]))
        again = torch.cat([session.extend(torch.tensor([[word]])) for word in words], dim=1)
        shown = torch.isfinite(rows) & torch.isfinite(again)
        torch.testing.assert_close(rows[shown], again[shown], atol=5e-3, rtol=1e-3)


def test_prompts_are_scored_as_the_model_would(source: Any) -> None:
    theirs, ours = (each.open([prompts()[0]], 4)[0] for each in (source, both()[0]))
    with theirs, ours:
        assert theirs.prompts[0].tokens == ours.prompts[0].tokens
        assert theirs.prompts[0].logprobs == pytest.approx(ours.prompts[0].logprobs, abs=2e-3)


def test_a_prompt_beyond_its_context_is_refused_in_a_sentence(server: Any) -> None:
    kind, url = server
    source = kind.load(url, tokenizer=LLM, top_n=5)
    source.context_length = None  # so that the server is who says so
    with pytest.raises(SourceError, match=r"the LLM's server at \S+ answered 400"):
        source.open(["the " * 3000])


def test_a_server_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """It dies in the middle of an answer."""
    with ExitStack() as running:
        command = llama_python_command(write_gguf(LLM, tmp_path / "llm.gguf"))
        url = running.enter_context(started(command, tmp_path / "log", "/v1/models"))
        source = LlamaPythonSource.load(url, tokenizer=LLM, retries=0)
        chunks = pair(source, both()[1], "geometric", walk="lockstep").stream(prompts()[0], GREEDY)
        next(chunks)
        running.close()
        with pytest.raises(SourceError, match="is it running"):
            list(chunks)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


CHATS = 24


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real llama.cpp server with four slots."""
    folder = tmp_path_factory.mktemp("llama")
    command = llama_command(write_gguf(LLM, folder / "llm.gguf"))
    with started(command, folder / "log", "/health") as url:
        yield url


def _chat(url: str, at: int) -> None:
    said = [{"role": "user", "content": f"{prompts()[at % 3]} {at}"}]
    body = {"messages": said, "max_tokens": 24}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text


def _all(url: str) -> float:
    """Seconds that so many chats at once take."""
    begun = time.monotonic()
    with ThreadPoolExecutor(CHATS) as pool:
        list(pool.map(lambda at: _chat(url, at), range(CHATS)))
    return time.monotonic() - begun


@pytest.mark.alone
def test_many_chats_at_once_are_all_answered_and_the_breaker_stays_shut(llama: str) -> None:
    """Under the default policy 11 of 24 were: each asked 34 times before its first token, and timed out in
    the queue that all of them made. Prints how much longer than the same chats sent directly it takes."""
    source = LlamaCppSource.load(llama, tokenizer=LLM)
    before = source.http.counts.requests
    session, _ = source.open([prompts()[0]], 32)
    session.close()
    assert source.http.counts.requests - before <= 3
    direct = _all(llama)
    with serving(pair(source, both()[1], "balanced")) as gateway:
        through = _all(gateway.url)
    assert not source.http.breaker.open
    assert source.http.counts.retries == 0
    print(f"{CHATS} chats: {direct:.1f} s sent directly, {through:.1f} s purified, {through / direct:.2f} x")
