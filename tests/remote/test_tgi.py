"""A model behind TGI: the same answers as beside it, and no trust in what the server says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from purify_adapters.sources.tgi import TGI
from purify_adapters.sources.tgi.source import TGISource
from purify_hooks.evaluation import testbed
from purify_hooks.policies import POLICIES
from purify_plugins import Chat, ConfigError, PromptError, Purifier, Sampling, SourceError, VocabularyError
from purify_plugins.decode.loop import lockstep
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.conformance import TextConformance
from tests.toys import both, pair

PAIRED = sorted(set(POLICIES) - {"offset", "consistency"})
"""Policies that fuse an LLM with an SLM and need no other part."""
WHOLE = 2048
GREEDY = Sampling(max_tokens=8, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTGI]:
    with fake_tgi(both()[0], top_n=WHOLE) as server:
        yield server


@pytest.fixture(scope="module")
def source(server: FakeTGI) -> TGISource:
    return TGISource.load(str(server), tokenizer=LLM, top_n=WHOLE)


@pytest.fixture(autouse=True)
def _neutral(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves its faults behind."""
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        server.tamper = server.respond = None


@cache
def prompts() -> tuple[str, ...]:
    return testbed.attacks().clean[:4]


def tokens(purifier: Purifier, prompts: Any, sampling: Sampling) -> list[tuple[int, ...]]:
    return [answer.tokens for answer in purifier.generate(prompts, sampling)]


# The same law


@pytest.mark.parametrize("policy", PAIRED)
def test_greedy_answers_are_the_local_purifier_s_token_for_token(source: TGISource, policy: str) -> None:
    llm, slm = both()
    remote, local = pair(source, slm, policy), pair(llm, slm, policy)
    assert (remote.walk, local.walk) == ("readahead", "speculative")
    assert tokens(remote, prompts()[:2], GREEDY) == tokens(local, prompts()[:2], GREEDY)


def test_drawn_answers_are_lockstep_s_from_the_same_seed(source: TGISource) -> None:
    """Every token takes one number from its row's dice, in either walk: the law is one, draw by draw."""
    llm, slm = both()
    remote, local = pair(source, slm, "windowed"), pair(llm, slm, "windowed", walk="lockstep")
    sampling = Sampling(max_tokens=8, seed=1, temperature=0.7, top_p=0.95)
    assert tokens(remote, prompts()[:2], sampling) == tokens(local, prompts()[:2], sampling)


@pytest.mark.parametrize("alignment", ["bytes", "common_tokens"])
def test_a_server_that_shows_whole_rows_meets_another_tokenizer(source: TGISource, alignment: Any) -> None:
    """A short prompt was cut before its first word, and the server told that it was empty."""
    slm = load_plugins([]).source({"model": str(SLM_1024), "device": "cpu", "dtype": "float32"})
    remote, local = (pair(llm, slm, "geometric", alignment=alignment) for llm in (source, both()[0]))
    asked = 'The king said to his youngest daughter, "Come here and tell me'
    sampling = Sampling(max_tokens=3, temperature=0)
    assert remote.generate(asked, sampling)[0].text == local.generate(asked, sampling)[0].text
    assert remote.generate("The", sampling)[0].text


def test_one_request_for_each_token_gives_the_same(source: TGISource, server: FakeTGI) -> None:
    slm = both()[1]
    alone = TGISource.load(str(server), tokenizer=LLM, top_n=WHOLE, ahead=0)
    before, purifier = server.asked(), pair(alone, slm, "geometric")
    assert purifier.walk == "lockstep"  # a draft of the SLM's would be paid for token by token
    answer = purifier.generate(prompts()[0], GREEDY)[0]
    assert server.asked() - before == len(answer.tokens)
    assert [answer.tokens] == tokens(pair(source, slm, "geometric"), prompts()[0], GREEDY)


def test_drafts_of_the_slm_are_scored_by_as_many_requests(server: FakeTGI) -> None:
    llm, slm = both()
    alone = TGISource.load(str(server), tokenizer=LLM, top_n=WHOLE, ahead=0, engine="trusted")
    remote = pair(alone, slm, "geometric", walk="speculative")
    assert tokens(remote, prompts()[0], GREEDY) == tokens(pair(llm, slm, "geometric"), prompts()[0], GREEDY)


def test_reading_ahead_asks_for_a_third_of_the_tokens_at_most(source: TGISource, server: FakeTGI) -> None:
    purifier = pair(source, both()[1], "geometric")
    sampling = Sampling(max_tokens=40, temperature=0, ignore_eos=True)
    before, counted = server.asked(), source.http.counts.requests
    written = sum(map(len, tokens(purifier, prompts()[0], sampling)))
    assert source.http.counts.requests - counted == server.asked() - before
    assert (server.asked() - before) / written <= 0.35


def test_a_server_s_model_may_be_the_trusted_one(source: TGISource, server: FakeTGI) -> None:
    """The SLM served: its rows must be whole, for nobody else could complete them."""
    llm, slm = both()
    served, local = pair(slm, source, "geometric"), pair(slm, llm, "geometric")
    assert tokens(served, prompts()[0], GREEDY) == tokens(local, prompts()[0], GREEDY)
    few = TGISource.load(str(server), tokenizer=LLM, top_n=5)
    with pytest.raises(ConfigError, match="shows the likeliest 5 of 2048 tokens"):
        pair(slm, few, "geometric")


class TestConformance(TextConformance):
    def test_scored_prompts_are_what_reading_them_says(self) -> None:
        local, _ = both()[0].open(self.prompts, 2)
        session, _ = self._made.open(self.prompts, 2)
        for theirs, ours in zip(session.prompts, local.prompts, strict=True):
            assert theirs.tokens == ours.tokens
            torch.testing.assert_close(torch.tensor(theirs.logprobs), torch.tensor(ours.logprobs))
        session.close()


# What it learns of its server


def test_the_probe_finds_the_limit_the_context_and_that_rows_are_raw(server: FakeTGI) -> None:
    source = TGISource.load(str(server), tokenizer=LLM)
    assert source.top_n == 1000
    assert source.context_length == 512
    assert source.capabilities.raw is True
    assert not source.capabilities.ids_in
    assert source.identity()["kind"] == "tgi"


def test_an_operator_who_left_the_limit_at_five_is_told_what_to_set() -> None:
    with fake_tgi(both()[0]) as server:
        assert TGISource.load(str(server), tokenizer=LLM).top_n == 5
        with pytest.raises(ConfigError, match="--max-top-n-tokens 50"):
            TGISource.load(str(server), tokenizer=LLM, top_n=50)


@pytest.mark.parametrize(("convention", "raw"), [("processed", False), ("raw", True)])
def test_a_server_that_warps_its_rows_is_found_out(convention: str, raw: bool, caplog: Any) -> None:
    with fake_tgi(both()[0], top_n=WHOLE, convention=convention, temperature=0.5) as server:
        assert TGISource.load(str(server), tokenizer=LLM).capabilities.raw is raw
    assert ("warps" in caplog.text) is not raw


def test_without_prefill_log_probabilities_nobody_knows() -> None:
    with fake_tgi(both()[0], top_n=WHOLE, prefill=False) as server:
        source = TGISource.load(str(server), tokenizer=LLM)
        assert source.capabilities.raw is None
        session, _ = source.open(["Once upon a time"], 3)
        with session:
            assert session.prompts[0].logprobs == ()


def test_another_tokenizer_is_refused(server: FakeTGI) -> None:
    def other(path: str, payload: Any) -> Any:
        return payload[1:] if path == "/tokenize" else payload

    server.tamper = other
    with pytest.raises(VocabularyError, match="name its own tokenizer"):
        TGISource.load(str(server), tokenizer=LLM)


def test_the_key_is_sent_and_its_absence_explained() -> None:
    with fake_tgi(both()[0], top_n=9, api_key="s3cret") as server:
        with pytest.raises(SourceError, match="api_key_env"):
            TGISource.load(str(server), tokenizer=LLM)
        TGISource.load(str(server), tokenizer=LLM, api_key="s3cret")


def test_no_sampling_settings_ever_leave(source: TGISource, server: FakeTGI) -> None:
    server.requests.clear()
    sampling = Sampling(max_tokens=4, temperature=0.3, top_k=5, top_p=0.5, repetition_penalty=1.5, seed=1)
    pair(source, both()[1], "geometric").generate(prompts()[0], sampling)
    sent = {key for _, body in server.requests for key in body["parameters"]}
    assert sent <= {"max_new_tokens", "details", "do_sample", "top_n_tokens", "decoder_input_details"}
    assert not any(body["parameters"]["do_sample"] for _, body in server.requests)


def test_it_is_named_in_a_configuration(server: FakeTGI) -> None:
    found = load_plugins().source({"source": "tgi", "url": str(server), "tokenizer": str(LLM), "top_n": 7})
    assert (found.kind, found.top_n) == ("tgi", 7)
    purifier = Purifier.load({"source": "tgi", "url": str(server), "tokenizer": str(LLM)}, SLM)
    assert purifier.walk == "readahead"


# Text is all it takes


def test_a_chat_is_rendered_here_and_its_beginning_is_not_doubled(source: TGISource, server: FakeTGI) -> None:
    chat = Chat(({"role": "user", "content": "Who is the king?"},))
    tokenizer = source.reader.tokenizer
    try:
        tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
        server.requests.clear()
        session, _ = source.open([chat])
        session.close()
        assert server.requests[0][1]["inputs"] == "Who is the king?"
        assert session.prompts[0].tokens == tuple(tokenizer("Who is the king?")["input_ids"])
    finally:
        tokenizer.chat_template = None


def test_ids_become_text(source: TGISource) -> None:
    ids = source.reader.tokenised("Once upon a time, é")
    session, _ = source.open([ids])
    session.close()
    assert session.prompts[0].tokens == ids


def test_inside_a_character_the_slm_goes_on_alone(source: TGISource) -> None:
    """There is no text that ends there; the completed row is the SLM's own, and the record says so."""
    ids = {piece: index for index, piece in enumerate(source.vocabulary.tokens)}
    first, second = ids[b"\xc3"], ids[b"\xa9"]
    session, _ = source.open(["caf"])
    with session:
        before = source.http.counts.requests
        row = session.extend(torch.tensor([[first]]))[0, 0]
        assert row[-1] == 0
        assert source.http.counts.requests == before
        assert torch.isneginf(row[:-1]).all()
        whole = session.extend(torch.tensor([[second]]))[0, 0]
        assert torch.isfinite(whole[:-1]).all()


def test_tokens_that_text_cannot_keep_apart_are_counted(source: TGISource, server: FakeTGI) -> None:
    """The server reads the text's own tokens, which it says by their number."""
    ids = {piece: index for index, piece in enumerate(source.vocabulary.tokens)}
    server.requests.clear()
    before = source.http.counts.drifted
    session, _ = source.open(["Once upon a"])
    with session:
        session.extend(torch.tensor([[ids[b"t"], ids[b"h"], ids[b"e"]]]))
    assert source.http.counts.drifted > before
    assert "Once upon athe" in [body["inputs"] for _, body in server.requests]  # three at once, in any order


def test_a_server_that_counts_other_tokens_is_refused(source: TGISource, server: FakeTGI) -> None:
    def truncating(path: str, event: Any) -> Any:
        return {**event, "details": {"input_length": 1}, "generated_text": ""}

    server.tamper = truncating
    with pytest.raises(SourceError, match="name its own tokenizer"):
        source.open(["Once upon a time"])


def test_a_linked_image_never_reaches_the_server(source: TGISource, server: FakeTGI) -> None:
    before = server.asked()
    with pytest.raises(PromptError, match="links an image"):
        source.open(["see ![x](http://169.254.169.254/)"])
    assert server.asked() == before


# Ends


def test_the_request_is_closed_with_the_answer(server: FakeTGI, source: TGISource) -> None:
    server.seconds = 0.05
    try:
        stream = pair(source, both()[1], "geometric").stream(prompts()[0])
        next(stream)
        assert server.streams == 1
        stream.close()
        start = time.monotonic()
        while server.streams and time.monotonic() - start < 60:
            time.sleep(0.005)
        assert not server.streams
    finally:
        server.seconds = 0.0


def test_rows_that_have_ended_ask_for_nothing_more(source: TGISource, server: FakeTGI) -> None:
    purifier = pair(source, both()[1], "geometric")
    steps = purifier.plugins.hook.purify_decode(
        purifier=purifier, prompts=list(prompts()[:2]), sampling=Sampling(max_tokens=30, temperature=0)
    )
    next(steps)
    steps.send({0})
    asked = {body["inputs"] for _, body in server.requests}
    for _ in range(6):
        next(steps)
    new = {body["inputs"] for _, body in server.requests} - asked
    assert not any(text.startswith(prompts()[0]) for text in new)
    steps.close()


def test_a_fault_before_the_first_token_is_tried_again_and_after_it_is_not(
    source: TGISource, server: FakeTGI
) -> None:
    from starlette.responses import JSONResponse

    failures = iter([True, True])
    server.respond = lambda *_: JSONResponse({}, 503) if next(failures, False) else None
    purifier = pair(source, both()[1], "geometric")
    assert purifier.generate(prompts()[0], GREEDY)[0].tokens
    seen = []

    def later(path: str, body: Any) -> Any:
        seen.append(path)
        return JSONResponse({}, 503) if len(seen) > 1 else None

    server.respond = later
    with pytest.raises(SourceError, match="503"):
        purifier.generate(prompts()[0], Sampling(max_tokens=200, temperature=0, ignore_eos=True))
    assert len(seen) == 2


def test_the_slm_goes_on_alone_where_that_is_allowed(source: TGISource, server: FakeTGI) -> None:
    server.tamper = lambda path, event: None if event["index"] == 3 else event
    purifier = pair(source, both()[1], "geometric", on_llm_failure="slm")
    answer = purifier.generate(prompts()[0], GREEDY)[0]
    flags = [step.slm_only for step in answer.steps]
    assert flags == sorted(flags)
    assert flags[-1]
    assert not flags[0]


# The hub's client


def test_the_hub_s_own_client_serves_as_well(server: FakeTGI, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the fake is on this machine
    llm, slm = both()
    source = TGI.load(client=InferenceClient(str(server)), tokenizer=LLM, top_n=WHOLE)
    sampling, local = Sampling(max_tokens=5, temperature=0), pair(llm, slm, "geometric")
    assert tokens(pair(source, slm, "geometric"), prompts()[0], sampling) == tokens(
        local, prompts()[0], sampling
    )


def test_url_or_client_but_not_both() -> None:
    with pytest.raises(ConfigError, match="url, or else a client"):
        TGI.load(tokenizer=LLM)


def test_replies_are_lockstep_s_when_walked_in_lockstep(source: TGISource) -> None:
    """A stream serves lockstep too: it is the session that knows what was sent."""
    purifier = pair(source, both()[1], "geometric")
    rows: list[int] = [
        step.tokens[0].id for step in lockstep(purifier, [prompts()[0]], GREEDY) if step.tokens[0] is not None
    ]
    assert tuple(rows) == tokens(purifier, prompts()[0], GREEDY)[0]


def test_a_draft_that_ends_leaves_the_rows_before_its_end_alone(source: TGISource) -> None:
    """Read together with an end token, the tokens before it once lost their rows, and became the SLM's."""
    words = source.reader.tokenised(" the old king")[1:]
    session, _ = source.open(["Once upon a time"])
    with session:
        rows = session.extend(torch.tensor([[*words, min(source.vocabulary.eos), 5]]))[0]
    revealed = [bool(torch.isfinite(row[:-1]).any()) for row in rows]
    assert revealed == [True] * len(words) + [False, False]
