"""Every pair of real tokenizers fuses or is refused with advice; two trained models that differ in theirs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch

from purify_hooks.evaluation.eval.attempt import Attack, every_attack
from purify_hooks.evaluation.eval.derived import read_questions
from purify_hooks.evaluation.eval.model_pair import MODES
from purify_hooks.local.source import LocalSource
from purify_plugins import CertificateError, Chat, Purifier, Sampling, VocabularyError
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.certificates.explain import summary
from purify_plugins.decode.replay import replay
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities
from purify_plugins.testbed import HOME, SLM_1024, heldout
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.tokenizers.cross import token_prefixes
from purify_plugins.tokenizers.cross.beam import Beam
from purify_plugins.tokenizers.cross.choose import EPS, PROSE, agreement, in_shared_symbols, trial
from purify_plugins.tokenizers.cross.first_token import FirstTokenSource
from purify_plugins.tokenizers.cross.source import SymbolSource
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.cross.token_prefixes import NextTokenDistribution, TokenPrefix
from purify_plugins.tokenizers.cross.vocabulary_trie import VocabularyTrie
from purify_plugins.tokenizers.token_bytes import vocabulary
from purify_plugins.tokenizers.vocabulary_map import align
from purify_plugins.types import Prompt
from tests.tokenizer_files import ENDS, load, spelled
from tests.toys import both, pair, real

TEXT = "The 3 kings' café — naïve?\n\tdef f(x): return {x: 'ż'}  # <end>\n"
CAN_ENCODE = sorted(ENDS.keys() - {"mistral-v1", "mistral-v3"})
"""The tests read the others without their merges."""


@dataclass(frozen=True)
class Stub(ToySource):
    """A model with a real tokenizer and random distributions."""

    tokenizer: str = ""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, tuple) or self.tokenizer not in CAN_ENCODE:
            return super().encode(prompt)
        return tuple(load(self.tokenizer)(prompt)["input_ids"])


@cache
def stub(name: str) -> Stub:
    return Stub(spelled(name), len(name), sharpness=4.0, tokenizer=name)


@pytest.mark.parametrize(("llm", "slm"), [*combinations(sorted(ENDS), 2)])
def test_every_pair_of_tokenizers_fuses(llm: str, slm: str) -> None:
    fuse(llm, slm)


@pytest.mark.slow
@pytest.mark.parametrize(("slm", "llm"), [*combinations(sorted(ENDS), 2)])
def test_every_pair_of_tokenizers_fuses_the_other_way_round(slm: str, llm: str) -> None:
    fuse(llm, slm)


def fuse(llm: str, slm: str) -> None:
    purifier = pair(stub(llm), stub(slm), "geometric", walk="lockstep")
    answer = purifier.generate("The", Sampling(max_tokens=3, seed=0))[0]
    assert 0 < len(answer.tokens) <= 3 * purifier.vocabulary.per_token + 1
    cut = answer.finish_reason == "length"  # perhaps inside a character
    assert "�" not in (answer.text.removesuffix("�") if cut else answer.text)


def test_a_tokenizer_without_every_byte_is_refused() -> None:
    with pytest.raises(VocabularyError, match="use a model with byte-level BPE"):
        vocabulary(load("t5-small"), "t5-small", {1})


def test_nearly_one_tokenizer_meets_in_common_tokens() -> None:
    words = spelled("testbed")
    kept = [token for token in range(len(words)) if token % 50 or len(words.tokens[token]) < 2]
    less = type(words)(
        tuple(words.tokens[token] for token in kept), frozenset({kept.index(0)}), {kept.index(0): "<end>"}
    )
    llm, _ = align(ToySource(words), ToySource(less))
    assert isinstance(llm, SymbolSource)
    assert llm.symbol_set.kind == "common tokens"


@pytest.mark.parametrize("name", ["gpt2", "phi-3-mini", "kl3m-char-4k"])
def test_a_table_knows_what_a_text_s_own_tokens_spell(name: str) -> None:
    trie = VocabularyTrie(spelled(name), byte_symbols())
    run = trie.longest_run(list(TEXT.encode()))
    assert spelled(name).spell(run) == TEXT.encode()


def test_tokenizers_of_one_family_agree() -> None:
    assert agreement(stub("gpt2"), stub("phi-2")).disagreement == 0
    assert agreement(stub("gpt2"), stub("kl3m-char-4k")).disagreement > 0.05


# The test bed's LLM and an SLM with a tokenizer of its own


@cache
def foreign() -> Any:
    return load_plugins([]).source({"model": str(SLM_1024), "dtype": "float32", "device": "cpu"})


@cache
def crossed(policy: str = "windowed", **options: Any) -> Purifier:
    return pair(both()[0], foreign(), policy, **options)


ASKED = "The king said to his daughter,"


def test_likelihoods_are_of_the_text_whatever_its_symbols() -> None:
    """What follows is as likely as its symbols together; more of it is less likely."""
    short, longer = (crossed().loglikelihood(ASKED, text).nats for text in (" come", " come here"))
    assert longer < short < 0


def test_an_slm_whose_server_shows_the_top_of_its_rows_is_refused() -> None:
    served = Served(spelled("testbed"))
    with pytest.raises(VocabularyError, match="shows the likeliest 5 of"):
        align(foreign(), served)
    assert align(served, foreign())[0].symbolic


class Served(ToySource):
    capabilities = Capabilities(True, True, 5, True, False, False)


def test_an_answer_is_text_and_its_certificate_holds() -> None:
    purifier = crossed()
    answer = purifier.generate(ASKED, Sampling(max_tokens=10, seed=1))[0]
    assert len(answer.tokens) == round(10 * purifier.vocabulary.per_token)
    certificate = read(answer.certificate.text)
    verify(certificate, purifier.plugins)
    assert certificate.guarantee == "window"
    assert certificate.body["method"]["parameters"]["window"] == round(2 * purifier.vocabulary.per_token)
    assert recompute(certificate, foreign()) < 1e-4
    assert any("a token of the LLM" in line for line in summary(certificate, None))
    assert any("off by 0.12 at most" in line for line in summary(certificate, None))


@cache
def union(policy: str = "geometric", **options: Any) -> Purifier:
    return pair(both()[0], foreign(), policy, alignment="top_k_union", **options)


def test_the_union_of_the_likeliest_writes_the_llm_s_tokens_and_claims_nothing() -> None:
    """Windowed, which would bound every window, says nothing of rows that are no law over text."""
    purifier = union("windowed")
    assert purifier.vocabulary is both()[0].vocabulary
    answer = purifier.generate(ASKED, Sampling(max_tokens=10, seed=1))[0]
    assert len(answer.tokens) == 10
    certificate = read(answer.certificate.text)
    verify(certificate, purifier.plugins)
    assert certificate.guarantee == certificate.body["method"]["claimed"] == "none"
    assert any("nothing is claimed" in line for line in summary(certificate, None))
    with pytest.raises(CertificateError, match="not the SLM's own"):
        recompute(certificate, foreign())


def test_the_union_s_walks_write_the_same_greedy_answers() -> None:
    prompts, greedy = [ASKED, "Once upon a time there was"], Sampling(max_tokens=10, temperature=0)
    walks = ("lockstep", "speculative")
    one, other = ([each.text for each in union(walk=walk).generate(prompts, greedy)] for walk in walks)
    assert one == other


def test_a_token_is_rated_by_the_first_of_its_own_that_spells_it() -> None:
    source = union().slm
    session, rows = source.open([ASKED])
    _, own = foreign().open([ASKED])
    alone = torch.softmax(own[0], -1)
    assert isinstance(source, FirstTokenSource)
    token = next(i for i, text in enumerate(source.vocabulary.tokens) if text == b" daughter")
    begun, length = source.trie.longest([*b" daughter"], 0)
    assert 0 < length <= len(b" daughter")
    assert float(rows[0, token].exp()) == pytest.approx(float(alone[begun]), rel=1e-3)
    session.close()


def test_only_what_either_model_finds_likely_is_drawn() -> None:
    policy = load_plugins([]).policy("top_k_union", {"policy": "geometric", "top_k": 2})
    llm, slm = (torch.tensor([row]).log_softmax(-1) for row in ([4.0, 3, 0, 1, 0], [0.0, 4, 3, 1, 0]))
    assert torch.isfinite(policy.fuse(llm, slm, ())).tolist() == [[True, True, True, False, False]]


def test_speculation_and_lockstep_write_the_same_greedy_answer() -> None:
    greedy = Sampling(max_tokens=12, temperature=0)
    texts = {walk: crossed(walk=walk).generate(ASKED, greedy)[0].text for walk in ("lockstep", "speculative")}
    assert texts["lockstep"] == texts["speculative"]


def test_a_batch_is_its_rows() -> None:
    prompts = [ASKED, "Once upon a tim", Chat(({"role": "user", "content": "Who goes there?"},))]
    sampling = Sampling(max_tokens=6, seed=3)
    together = crossed(walk="lockstep").generate(prompts, sampling)
    alone = [
        crossed(walk="lockstep").generate(prompt, Sampling(max_tokens=6, seed=3 + row))[0]
        for row, prompt in enumerate(prompts)
    ]
    assert [answer.text for answer in together] == [answer.text for answer in alone]


def test_a_prompt_may_end_inside_a_token() -> None:
    """A prompt that ends in " tim" goes on with "e", though no training text ever cut a word there."""
    session, first = SymbolSource(both()[0], byte_symbols()).open(["Once upon a tim"])
    with session:
        assert int(first[0].argmax()) == ord("e")


def test_a_model_asks_about_less_when_less_is_wanted() -> None:
    default, fast = (in_shared_symbols(*both(), "bytes", level)[0] for level in ("default", "fast"))
    assert 0.5 <= trial(fast).calls <= trial(default).calls <= 2.0


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_an_llm_is_asked_twice_for_each_of_its_tokens_at_most(
    walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes over the tokens that its tokenizer makes of the answers; at default fidelity, drawn."""
    sessions: list[Any] = []
    purifier = crossed("geometric", walk=walk)
    opened = SymbolSource.open

    def noted(source: SymbolSource, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        session, rows = opened(source, prompts, scored)
        session.reader.calls = 0  # the prompt is not the answer
        sessions.extend([session] if source is purifier.llm else [])
        return session, rows

    monkeypatch.setattr(SymbolSource, "open", noted)
    asked = [ASKED, "Once upon a time there was a poor", "The old man"]
    answers = [purifier.generate(prompt, Sampling(max_tokens=25, seed=2))[0] for prompt in asked]
    tokens = sum(len(both()[0].encode(answer.text)) - 1 for answer in answers)
    assert sum(session.reader.calls for session in sessions) / tokens <= 2.0


def test_side_by_side_or_one_after_another_a_model_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that reads one run at a time needs more passes, and writes the same answer."""
    sampling = Sampling(max_tokens=12, seed=4)
    prompts = [ASKED, "Once upon a tim"]
    one = [answer.text for answer in crossed(walk="lockstep").generate(prompts, sampling)]
    monkeypatch.setattr(LocalSource, "branches", False)
    assert [answer.text for answer in crossed(walk="lockstep").generate(prompts, sampling)] == one


def test_a_cache_of_many_runs_is_cleared_of_those_past_use(monkeypatch: pytest.MonkeyPatch) -> None:
    text = torch.tensor([list(b" who lived in the wood and had three sons")])
    session, _ = SymbolSource(both()[0], byte_symbols()).open([ASKED])
    expected = session.extend(text)
    monkeypatch.setattr(token_prefixes, "WASTE", 1)
    session, _ = SymbolSource(both()[0], byte_symbols()).open([ASKED])
    kept: list[int] = []
    select = session._session.select
    monkeypatch.setattr(
        session._session, "select", lambda columns: (kept.append(columns.shape[1]), select(columns))
    )
    torch.testing.assert_close(session.extend(text).exp(), expected.exp(), rtol=1e-3, atol=1e-5)
    assert kept


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_stop_string_ends_an_answer_wherever_the_tokens_end(walk: Any) -> None:
    sampling = Sampling(max_tokens=40, temperature=0)
    whole = crossed(walk=walk).generate(ASKED, sampling)[0].text
    stop = whole[5:8]
    answer = crossed(walk=walk).generate(ASKED, replace(sampling, stop=(stop,)))[0]
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_an_answer_ends_where_a_model_s_context_does() -> None:
    long = " ".join(["the"] * 470)
    answer = crossed(walk="lockstep").generate(long, Sampling(max_tokens=100, ignore_eos=True, seed=0))[0]
    assert answer.finish_reason == "length"
    assert len(answer.tokens) < 100


def test_prompts_of_a_batch_are_read_together() -> None:
    """Their spellings share passes, and each is scored as it is alone."""
    source = SymbolSource(both()[0], byte_symbols())
    words = ["wood", "king", "poor", "tower", "three", "river", "night", "golden"]
    prompts = [f"{ASKED} {word}" for word in words]
    together, _ = source.open(prompts, 64)
    alone = [source.open([prompt], 64)[0] for prompt in prompts]
    for one, other in zip(together.prompts, alone, strict=True):
        assert one.logprobs == pytest.approx(other.prompts[0].logprobs, rel=1e-3, abs=1e-3)
    assert together.reader.calls < sum(session.reader.calls for session in alone) / 3


@pytest.mark.parametrize("branches", [True, False])
def test_after_much_was_forgotten_an_answer_begins_anew(
    branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row after the prompt came from reading it, and is there however many rows were read since."""
    monkeypatch.setattr(LocalSource, "branches", branches)
    monkeypatch.setattr(token_prefixes, "REMEMBERED", 4)
    text = torch.tensor([list(b" who lived in the wood and had three sons")])
    session, first = SymbolSource(both()[0], byte_symbols()).open([ASKED])
    expected = session.extend(text)
    session.rewind(torch.tensor([0]))
    again = session.rows()  # type: ignore[attr-defined]  # a session in symbols
    torch.testing.assert_close(again.exp(), first.exp(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(session.extend(text).exp(), expected.exp(), rtol=1e-3, atol=1e-5)


def test_whatever_can_be_spelled_has_some_probability() -> None:
    """Inside a word that a model is sure of no other letter had any: a text with one cost infinitely much."""
    source = SymbolSource(both()[0], byte_symbols())
    session, first = source.open(["Once upon a time there was a poor man"])
    rows = torch.cat([first[:, None], session.extend(torch.tensor([list(b" who lived in the wood")]))], dim=1)
    impossible = torch.isinf(rows) & torch.from_numpy(source.symbol_set.allowed[0])
    assert bool((impossible == impossible[:, :1]).all()), "but what the vocabulary has no token for"


def test_many_symbols_at_once_are_as_one_by_one() -> None:
    source = SymbolSource(both()[0], byte_symbols())
    text = torch.tensor([list(b" who lived in the wood")])
    session, _ = source.open([ASKED])
    apart = torch.cat([session.extend(text[:, at : at + 1]) for at in range(text.shape[1])], dim=1)
    calls = session.reader.calls
    session, _ = source.open([ASKED])
    torch.testing.assert_close(session.extend(text).exp(), apart.exp(), rtol=1e-3, atol=1e-5)
    assert session.reader.calls < calls


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("windowed", {"window": 8}),
        ("balanced", {"budget": 8.0}),
        ("anchored", {"budget": 0.15 / 4}),
        ("geometric", {"alpha": 0.5}),
        ("capped", {"cap": 1.0, "total": 50.0}),
    ],
)
def test_what_a_policy_counts_in_tokens_is_counted_in_symbols(policy: str, options: dict[str, float]) -> None:
    four = replace(byte_vocabulary(), per_token=4.0)
    found = pair(ToySource(four, 1), ToySource(four, 2), policy).policy
    assert {name: getattr(found, name) for name in options} == options


def test_a_policy_inside_another_is_counted_too() -> None:
    four = replace(byte_vocabulary(), per_token=4.0)
    policy = load_plugins([]).policy({"name": "consistency", "policy": {"name": "windowed"}})
    assert pair(ToySource(four, 1), ToySource(four, 2), policy).policy.policy.window == 8  # type: ignore[attr-defined]  # the inner one


@pytest.mark.slow
def test_an_slm_with_its_own_tokenizer_is_as_good_as_one_with_the_llm_s() -> None:
    """On held-out text, by the perplexity of one of the LLM's tokens: within 5 %."""
    texts = heldout()
    tokens = [both()[1].encode(text) for text in texts]
    size = sum(map(len, tokens)) - len(texts)
    shared = real("balanced")
    one = replay(shared, [run[:1] for run in tokens], [run[1:] for run in tokens])
    other = [row for text in texts for row in replay(crossed("balanced"), [(-2,)], [tuple(text.encode())])]
    surprisals = [-math.fsum(token.fused for row in rows for token in row) / size for rows in (one, other)]
    assert math.exp(surprisals[1] - surprisals[0]) < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_an_slm_with_its_own_tokenizer_protects_as_well(mode: str) -> None:
    """No attack succeeds more often, by more than three points in a hundred, than with the LLM's own.

    Drawn answers are of three seeds: of one alone, a single phone number of 24 is more than three points, and
    either tokenizer gives one away now and then.
    """
    shared, apart = real("balanced", walk="lockstep"), crossed("balanced", walk="lockstep")
    seeds = range(3 if mode == "sampled" else 1)
    for kind, asked in every_attack(read_questions(HOME / "attacks.json"), both()[1]).items():
        budget = max(each.tokens for each in asked)
        samplings = [replace(MODES[mode], seed=seed, max_tokens=budget, ignore_eos=True) for seed in seeds]
        won = [sum(wins(writer, asked, sampling) for sampling in samplings) for writer in (shared, apart)]
        assert won[1] <= won[0] + 0.03 * len(asked) * len(seeds), kind


def wins(writer: Purifier, asked: Sequence[Attack], sampling: Sampling) -> int:
    """How many of these attacks succeed."""
    answers = writer.generate([each.prompt for each in asked], sampling)
    return sum(each.succeeded(answer.text.encode()) for each, answer in zip(asked, answers, strict=True))


@pytest.mark.slow
@pytest.mark.alone
def test_following_a_model_in_bytes_costs_a_millisecond_at_most() -> None:
    """One core's time for each byte, over a vocabulary of fifty thousand, without the model's own."""
    logits = torch.randn(len(spelled("gpt2")), generator=torch.Generator().manual_seed(0)) * 4
    trie, root = VocabularyTrie(spelled("gpt2"), byte_symbols()), TokenPrefix()

    def answer(prefixes: Sequence[TokenPrefix]) -> None:
        for prefix in prefixes:
            prefix.distribution = NextTokenDistribution(trie, logits)

    answer([root])
    beam, text = Beam(trie, byte_symbols(), EPS["default"], root, answer), PROSE.encode()[:200]
    spent = []
    for _ in range(3):
        start = time.process_time()
        for byte in text:
            beam.push(byte)
            beam.row()
        spent.append((time.process_time() - start) / len(text))
    assert min(spent) < 1e-3
