"""llama-cpp-python's server: text in, tokens by what they spell; what cannot be named was not shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from purify_adapters.sources.llama_cpp_python import LlamaPythonSource
from purify_hooks.evaluation import testbed
from purify_plugins import ConfigError, Sampling, SourceError, VocabularyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM
from tests.fake_tgi import serving
from tests.remote.conformance import TextConformance
from tests.remote.fake_servers import FakeLlamaPython
from tests.toys import both, pair

WHOLE = 2048
GREEDY = Sampling(max_tokens=8, temperature=0, ignore_eos=True)
PROMPT = testbed.attacks().clean[0]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeLlamaPython, str]]:
    fake = FakeLlamaPython(both()[0])
    with serving(fake.app()) as url:
        yield fake, url


@pytest.fixture(scope="module")
def source(server: tuple[FakeLlamaPython, str]) -> LlamaPythonSource:
    return LlamaPythonSource.load(server[1], tokenizer=LLM, top_n=WHOLE)


class TestConformance(TextConformance):
    """Text in, and tokens named by what they spell."""


@pytest.mark.parametrize("walk", ["auto", "lockstep"])
def test_greedy_answers_are_the_local_purifier_s(source: LlamaPythonSource, walk: Any) -> None:
    llm, slm = both()
    remote, local = pair(source, slm, "geometric", walk=walk), pair(llm, slm, "geometric")
    assert remote.generate(PROMPT, GREEDY)[0].tokens == local.generate(PROMPT, GREEDY)[0].tokens


def test_tokens_that_are_spelled_alike_are_not_shown(source: LlamaPythonSource) -> None:
    """Their mass is, all together: nothing is given to one of them for the others."""
    session, first = source.open([PROMPT])
    session.close()
    opened, expected = both()[0].open([PROMPT])
    opened.close()
    own = torch.log_softmax(expected, -1)[0]
    named = torch.zeros(WHOLE, dtype=torch.bool).index_fill(0, torch.tensor(list(source.ids.values())), True)
    assert 0 < (~named).sum() < 140
    assert torch.isneginf(first[0, :-1][~named]).all()
    torch.testing.assert_close(first[0, :-1][named], own[named], atol=1e-4, rtol=1e-4)
    assert first[0, -1].exp() == pytest.approx(float(own[~named].exp().sum()), abs=1e-4)


def test_a_draft_that_text_keeps_is_one_request_and_another_as_many_as_tokens(
    source: LlamaPythonSource,
) -> None:
    ids = {piece: index for index, piece in enumerate(source.vocabulary.tokens)}
    whole = source.reader.tokenised(" the old king")[1:]
    torn = [ids[b"t"], ids[b"h"], ids[b"e"]]
    for draft, requests in ((whole, 1), (torn, 3), ([ids[b"\xc3"], ids[b"\xa9"], whole[0]], 2)):
        session, _ = source.open([PROMPT])
        with session:
            before = source.http.counts.requests
            assert session.extend(torch.tensor([draft])).shape[1] == len(draft)
            assert source.http.counts.requests == before + requests


def test_it_says_what_it_can_and_is_no_trusted_model(source: LlamaPythonSource) -> None:
    can = source.capabilities
    assert (can.ids_in, can.ids_out, can.scores_draft, can.streams_rows) == (False, False, True, False)
    with pytest.raises(ConfigError, match="of 2048 tokens"):
        pair(both()[1], source, "geometric")


def test_it_is_offered_by_name(server: tuple[FakeLlamaPython, str]) -> None:
    made = load_plugins().source(
        {"source": "llama_cpp_python", "url": server[1], "tokenizer": str(LLM), "top_n": 5}
    )
    assert (made.kind, made.top_n) == ("llama_cpp_python", 5)


def test_tokens_cut_or_spelled_otherwise_are_another_s(
    server: tuple[FakeLlamaPython, str], monkeypatch: Any
) -> None:
    with monkeypatch.context() as other:
        other.setattr(FakeLlamaPython, "_spelled", lambda self, token: f" {token}")
        with pytest.raises(VocabularyError, match="name its own tokenizer"):
            LlamaPythonSource.load(server[1], tokenizer=LLM)
    monkeypatch.setattr(server[0].model, "encode", lambda text: (1, 2, 3))
    with pytest.raises(VocabularyError, match="name its own tokenizer"):
        LlamaPythonSource.load(server[1], tokenizer=LLM)


def test_a_server_that_shows_too_little_is_refused(source: LlamaPythonSource, monkeypatch: Any) -> None:
    monkeypatch.setattr(FakeLlamaPython, "_named", lambda *_: None)
    with pytest.raises(SourceError):
        source.open([PROMPT])
