"""The loop: its law, its rows, its ends, its failures, and that nothing leaves it unfused."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from purify_plugins import (
    Completion,
    ConfigError,
    NumericError,
    PluginError,
    PromptError,
    Purifier,
    RefusedError,
    Sampling,
    SourceError,
    hookimpl,
)
from purify_plugins.certificates import recompute, verify
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.policy import Context, State
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Token, Vocabulary
from tests.toys import AB, BYTES, Failing, Forbidding, Watched, few, pair, real, toys

LAST, ONLY = {"name": "geometric", "alpha": 0.0}, {"name": "geometric", "alpha": 1.0}
FOLLOWING = {"gap": 0.3, "gap_limit": 1.0, "memory": 3.0, "hedge": 0.1, "numbers": 1.0, "opening": 0.8}
STATEFUL: list[dict[str, Any]] = [
    {"name": "windowed", "cap": 2.0, "window": 3, "budget": 2.5},
    {"name": "balanced", "budget": 1.0},
    {
        "name": "balanced",
        "budget": 1.0,
        "gap": 0.3,
        "gap_limit": 1.0,
        "memory": 3.0,
        "hedge": 0.1,
        "numbers": 1.0,
    },
    {"name": "capped", "cap": 1.0, "total": 3.0},
    {"name": "anchored", "budget": 0.3},
    {"name": "cp_fuse"},
    {"name": "safe_decoding"},
    {"name": "consistency", "policy": {"name": "windowed"}},
]


def name(policy: dict[str, Any]) -> str:
    return str(policy["name"])


# The law


def greedily(source: ToySource, prompt: str, length: int) -> tuple[int, ...]:
    read = list(source.encode(prompt))
    for _ in range(length):
        read.append(int(source.logits(read)[:-1].argmax()))  # the last token is the end
    return tuple(read[-length:])


@pytest.mark.parametrize("prompt", ["a", "fish", "née"])
def test_weight_one_is_the_llm_and_weight_zero_the_slm(prompt: str) -> None:
    for policy, seed in ((ONLY, 1), (LAST, 2)):
        answer = toys(policy).generate(prompt, few(temperature=0))[0]
        assert answer.tokens == greedily(ToySource(BYTES, seed), prompt, 8)


def laws(source: ToySource, read: tuple[int, ...], length: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every answer of at most `length` tokens and its probability."""
    row = torch.softmax(source.logits(read).double(), -1).tolist()
    for token, p in enumerate(row):
        if token in source.vocabulary.eos or length == 1:
            yield (token,), p
        else:
            yield from (((token, *rest), p * q) for rest, q in laws(source, (*read, token), length - 1))


@dataclass(frozen=True)
class Pooled(ToySource):
    """Two toys' geometric pool, as one toy."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        rows = [ToySource(self.vocabulary, seed).logits(tokens).log_softmax(-1) for seed in (1, 2)]
        return (rows[0] + rows[1]) / 2


@pytest.mark.parametrize(
    ("policy", "law"),
    [(ONLY, ToySource(AB, 1)), (LAST, ToySource(AB, 2)), ({"name": "geometric"}, Pooled(AB))],
    ids=["llm", "slm", "pool"],
)
def test_sampled_answers_follow_the_law(policy: dict[str, Any], law: ToySource) -> None:
    purifier = toys(policy, AB, batch_size=500)
    counts = Counter(c.tokens for c in purifier.generate(["ab"] * 1500, Sampling(max_tokens=3, seed=7)))
    expected = dict(laws(law, law.encode("ab"), 3))
    assert set(counts) <= set(expected)
    frequent = [answer for answer, p in expected.items() if p > 5 / 1500]
    seen = [counts[answer] for answer in frequent]
    wanted = [1500 * expected[answer] for answer in frequent]
    rest = 1500 - sum(seen), 1500 - sum(wanted)
    assert chisquare([*seen, rest[0]], [*wanted, rest[1]]).pvalue > 1e-3


# Rows


def same(one: Sequence[Token], other: Sequence[Token]) -> None:
    assert [step.id for step in one] == [step.id for step in other]
    torch.testing.assert_close(
        torch.tensor([step[2:6] for step in one]),
        torch.tensor([step[2:6] for step in other]),
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize("policy", [ONLY, {"name": "minimum"}, *STATEFUL], ids=name)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_unequal_prompts_is_its_rows(policy: dict[str, Any], temperature: float) -> None:
    prompts = ["a", "a longer prompt", "né"]
    purifier, sampling = toys(policy), Sampling(max_tokens=8, seed=3, temperature=temperature)
    for row, together in enumerate(purifier.generate(prompts, sampling)):
        alone = purifier.generate(prompts[row], replace(sampling, seed=3 + row))[0]
        same(together.steps, alone.steps)
        assert together.certificate.body["method"] == alone.certificate.body["method"]
        assert (together.text, together.finish_reason) == (alone.text, alone.finish_reason)


@pytest.mark.parametrize("policy", STATEFUL[:3], ids=name)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_unequal_prompts_is_its_rows_with_real_models(
    policy: dict[str, Any], temperature: float
) -> None:
    prompts = ["Once upon a time there was a king who had three", "The", "In the wood, "]
    purifier = real(policy)
    sampling = few(8, seed=5, temperature=temperature, repetition_penalty=1.1, top_p=0.95)
    for row, together in enumerate(purifier.generate(prompts, sampling)):
        same(together.steps, purifier.generate(prompts[row], replace(sampling, seed=5 + row))[0].steps)


def test_rows_that_end_at_different_times_do_not_disturb_each_other() -> None:
    purifier = toys({"name": "windowed"}, AB)
    prompts = ["a", "b", "ab", "ba", "aab"]
    answers = purifier.generate(prompts, Sampling(max_tokens=30, seed=1))
    assert len({len(answer.tokens) for answer in answers}) > 2
    for row, answer in enumerate(answers):
        same(answer.steps, purifier.generate(prompts[row], Sampling(max_tokens=30, seed=1 + row))[0].steps)


# How answers end


def scripted(text: bytes, policy: Any = ONLY, **options: Any) -> Purifier:
    return pair(ScriptedSource(BYTES, text, 1e-6), ToySource(BYTES, 2), policy, **options)


@pytest.mark.parametrize(
    ("sampling", "text", "reason"),
    [
        (Sampling(), "two words", "eos"),
        (Sampling(max_tokens=3), "two", "length"),
        (Sampling(max_tokens=9), "two words", "length"),
        (Sampling(stop=("wo",)), "t", "stop"),
        (Sampling(stop=(" w", "o")), "tw", "stop"),
        (Sampling(stop=("words",)), "two ", "stop"),
        (Sampling(max_tokens=9, stop=("words",)), "two ", "stop"),
        (Sampling(stop=("words and more",)), "two words", "eos"),
        (Sampling(max_tokens=6, stop=("words",)), "two wo", "length"),
    ],
)
def test_an_answer_says_why_it_ended(sampling: Sampling, text: str, reason: str) -> None:
    for temperature in (0.0, 1.0):
        answer = scripted(b"two words").generate("x", replace(sampling, temperature=temperature, seed=1))[0]
        assert (answer.text, answer.finish_reason) == (text, reason)
        assert answer.certificate.body["answer"]["finish_reason"] == reason


def test_an_answer_that_ignores_ends_goes_on() -> None:
    answer = scripted(b"a").generate("x", Sampling(max_tokens=12, ignore_eos=True, seed=0))[0]
    assert len(answer.tokens) == 12
    assert not BYTES.eos & set(answer.tokens)


@pytest.mark.parametrize("side", ["llm", "slm"])
def test_an_answer_ends_where_a_context_does(side: str) -> None:
    sources = {"llm": ToySource(BYTES, 1), "slm": ToySource(BYTES, 2)}
    sources[side] = replace(sources[side], context_length=10)
    long, short = pair(**sources).generate(["a" * 8, "a" * 3], few(20))
    assert (len(long.tokens), len(short.tokens)) == (2, 7)
    assert long.finish_reason == short.finish_reason == "length"


def test_a_prompt_that_fills_a_context_is_refused() -> None:
    with pytest.raises(PromptError, match="8 tokens; this toy reads 8"):
        pair(ToySource(BYTES, 1, context_length=8), ToySource(BYTES, 2)).generate("a" * 8)


@pytest.mark.parametrize("stop", ["<|im_end|>", "<|im_end|>\n"])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_stop_string_may_name_a_control_token(walk: str, stop: str) -> None:
    """A control token spells nothing, so its name never stood in the text and answers ran to their limit."""
    control = {**BYTES.control, 257: "<|im_end|>"}
    vocabulary = Vocabulary((*BYTES.tokens, b""), BYTES.eos, control, frozenset({256, 257}), "marked")
    tokens = [*b"hi", 257, *b"never"]

    class Sure(ToySource):
        def logits(self, read: Sequence[int]) -> Tensor:
            return super().logits(read).index_fill(0, torch.tensor(tokens[min(len(read) - 1, 7)]), 60.0)

    purifier = pair(Sure(vocabulary, 1), Sure(vocabulary, 2), walk=walk)
    [answer] = purifier.generate("x", Sampling(max_tokens=8, temperature=0, stop=(stop,)))
    assert (answer.text, answer.tokens, answer.finish_reason) == ("hi", tuple(tokens[:3]), "stop")
    recompute(answer.certificate, purifier.slm)  # which called such an answer forged


def test_a_stop_string_ends_the_walk_at_once() -> None:
    llm = Watched(ScriptedSource(BYTES, b"stop here and never go on"))
    purifier = pair(llm, ToySource(BYTES, 2), ONLY, walk="lockstep")
    purifier.generate("x", few(25, stop=("op",), temperature=0))
    (session,) = llm.sessions
    assert len(session.rows[0]) == len("x") + len("sto")


# Sessions


def watched(llm: Any = None, policy: Any = "geometric", **options: Any) -> tuple[Purifier, list[Watched]]:
    sources = [Watched(llm or ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))]
    return pair(*sources, policy, **options), sources


def open_sessions(sources: Sequence[Watched]) -> list[int]:
    return [source.open_sessions for source in sources]


def test_closing_a_stream_frees_both_sessions_at_once() -> None:
    purifier, sources = watched()
    stream = purifier.stream("x", few(100))
    next(stream)
    assert open_sessions(sources) == [1, 1]
    stream.close()
    assert open_sessions(sources) == [0, 0]


def test_dropping_a_stream_frees_both_sessions_at_once() -> None:
    purifier, sources = watched()
    for _ in purifier.stream("x", few(100)):
        break
    assert open_sessions(sources) == [0, 0]


def test_a_finished_answer_frees_both_sessions() -> None:
    purifier, sources = watched()
    purifier.generate(["x", "yz"], few())
    assert open_sessions(sources) == [0, 0]


@dataclass(frozen=True)
class Returning:
    """A policy that returns what it was made with: a wrong one."""

    result: Callable[[Tensor], Tensor] | Exception = field(repr=False)
    guarantee: ClassVar[str] = "none"
    lookback: ClassVar[int] = 0

    def start(self, context: Context) -> State:
        return ()

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result(slm)

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        return state


def nothing(slm: Tensor) -> Tensor:
    return torch.full_like(slm, -torch.inf)


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (
            ZeroDivisionError("oops"),
            PluginError,
            r"the policy Returning failed in fuse: ZeroDivisionError\('oops'\)",
        ),
        (
            lambda slm: slm[:, 1:],
            NumericError,
            r"the policy Returning returned \(1, 256\) for rows of \(1, 257\)",
        ),
        (lambda slm: slm * torch.nan, NumericError, "the policy Returning returned NaN, .inf"),
        (lambda slm: slm + torch.inf, NumericError, "the policy Returning returned NaN, .inf"),
    ],
)
def test_a_policy_that_fails_ends_the_answer_and_frees_both_sessions(
    result: Any, error: type, words: str
) -> None:
    purifier, sources = watched(policy=Returning(result))
    with pytest.raises(error, match=words):
        purifier.generate("x", few())
    assert open_sessions(sources) == [0, 0]


FAULTS = [
    (Failing(BYTES, 1, opening=True), SourceError, "the server hung up"),
    (Failing(BYTES, 1, at=0), SourceError, "the server hung up"),
    (Failing(BYTES, 1, at=3), SourceError, "the server hung up"),
    (Failing(BYTES, 1, at=0, value=math.nan), NumericError, "the LLM returned NaN"),
    (Failing(BYTES, 1, at=3, value=math.nan), NumericError, "the LLM returned NaN"),
    (Failing(BYTES, 1, at=3, value=math.inf), NumericError, "the LLM returned NaN"),
]


@pytest.mark.parametrize(("llm", "error", "words"), FAULTS)
def test_an_llm_that_fails_is_refused_and_frees_both_sessions(llm: Failing, error: type, words: str) -> None:
    purifier, sources = watched(llm)
    released = []
    with pytest.raises(error, match=words):
        released += list(purifier.stream("x", few()))
    assert open_sessions(sources) == [0, 0]
    assert not any(chunk.completion for chunk in released)


@pytest.mark.parametrize(("llm", "error", "words"), FAULTS)
@pytest.mark.parametrize("policy", ["geometric", "windowed", "anchored", "capped", ONLY], ids=str)
def test_the_slm_may_go_on_alone_and_says_so(llm: Failing, error: type, words: str, policy: Any) -> None:
    purifier, sources = watched(llm, policy, on_llm_failure="slm", walk="lockstep")
    sampling = few(temperature=0)
    answer = purifier.generate(["x", "yz"], sampling)[0]
    fused = 0 if llm.opening else llm.at
    assert [step.slm_only for step in answer.steps] == [False] * fused + [True] * (8 - fused)
    assert all(step.fused == step.slm for step in answer.steps[fused:])
    alone = greedily(ToySource(BYTES, 2), "x" + bytes(answer.tokens[:fused]).decode("latin-1"), 8 - fused)
    if all(token < 128 for token in answer.tokens[:fused]):
        assert answer.tokens[fused:] == alone
    body = answer.certificate.body
    assert body["totals"]["slm_only"] == 8 - fused
    assert (body["method"]["mode"] == "slm-only") == (fused == 0)
    assert open_sessions(sources) == [0, 0]


def test_a_failed_llm_is_let_go_while_the_slm_goes_on() -> None:
    purifier, sources = watched(Failing(BYTES, 1, at=2), on_llm_failure="slm")
    stream = purifier.stream("x", few())
    list(itertools.islice(stream, 4))
    assert open_sessions(sources) == [0, 1]
    stream.close()


def test_an_slm_that_fails_is_never_replaced_by_the_llm() -> None:
    for fallback in ("refuse", "slm"):
        for slm in (
            Failing(BYTES, 2, opening=True),
            Failing(BYTES, 2, at=2),
            Failing(BYTES, 2, at=2, value=math.nan),
        ):
            llm = Watched(ToySource(BYTES, 1))
            with pytest.raises(SourceError):
                pair(llm, slm, on_llm_failure=fallback).generate("x", few())
            assert llm.open_sessions == 0


@pytest.mark.parametrize(
    "policy", ["geometric", "minimum", "cp_fuse", {"name": "geometric", "alpha": 0.9}], ids=str
)
def test_models_that_share_no_token_fall_back_to_the_slm(policy: Any) -> None:
    odd, even = (frozenset(range(start, 256, 2)) for start in (0, 1))
    llm, slm = Forbidding(BYTES, 1, forbidden=even | {256}), Forbidding(BYTES, 2, forbidden=odd | {256})
    for sampling in (few(), few(temperature=0)):
        answer = pair(llm, slm, policy).generate("x", sampling)[0]
        assert all(step.slm_only and step.fused == step.slm and step.ratio == 0 for step in answer.steps)
        assert all(token % 2 for token in answer.tokens)
        assert answer.certificate.body["method"]["mode"] == "slm-only"


def test_a_policy_that_leaves_nothing_falls_back_to_the_slm() -> None:
    answer = toys(Returning(nothing)).generate("x", few(temperature=0))[0]
    assert answer.tokens == greedily(ToySource(BYTES, 2), "x", 8)
    assert all(step.slm_only for step in answer.steps)


def test_penalties_see_the_prompt_and_the_answer() -> None:
    flat = ToySource(AB, 2, sharpness=0.0)
    never = Sampling(max_tokens=1, temperature=0, repetition_penalty=9.0, ignore_eos=True)
    answers = pair(flat, flat).generate(["a", "b"], never)
    assert [answer.text for answer in answers] == ["b", "a"]
    often = Sampling(max_tokens=6, temperature=0, frequency_penalty=1.0, ignore_eos=True)
    assert pair(flat, flat).generate("aaa", often)[0].text == "ababab"


def test_the_records_are_the_rows_they_were_drawn_from() -> None:
    answer = toys("geometric", AB, explain=True).generate("ab", Sampling(max_tokens=6, seed=2))[0]
    read = list(ToySource(AB).encode("ab"))
    for step in answer.steps:
        llm, slm = (ToySource(AB, seed).logits(read).log_softmax(-1) for seed in (1, 2))
        fused = ((llm + slm) / 2).log_softmax(-1)
        kl, peak = float((fused.exp() * (fused - slm)).sum()), float((fused - slm).max())
        expected = [float(row[step.id]) for row in (llm, slm, fused)] + [kl, peak, 1.0]
        torch.testing.assert_close(torch.tensor(step[1:7]), torch.tensor(expected))
        read.append(step.id)


def test_a_policy_whose_options_cannot_be_written_down_is_refused_before_anything_runs() -> None:
    """Its answers used to be written in full, and then lost for want of a certificate."""

    @dataclass(frozen=True)
    class Opaque(Returning):
        table: object = field(default_factory=object)

    with pytest.raises(ConfigError, match="'Opaque' has an option that no certificate can hold"):
        toys(Opaque(nothing))


# Hooks


class Auditor:
    """Wraps the walk the way most authors will: a plain loop that keeps what it is sent to itself."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.ended = False

    @hookimpl(wrapper=True)
    def purify_decode(self) -> Any:
        return self._count((yield))

    def _count(self, steps: Any) -> Any:
        for step in steps:
            self.steps.append(step)
            yield step
        self.ended = True


class Replacing:
    """Answers `purify_decode` itself."""

    def __init__(self, result: Any) -> None:
        self.result = result

    @hookimpl
    def purify_decode(self, purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
        return self.result(purifier, prompts, sampling) if callable(self.result) else self.result


class Refusing:
    @hookimpl
    def purify_request(self, prompts: Any) -> None:
        if any("secret" in str(prompt) for prompt in prompts):
            raise RefusedError("this prompt names a secret")


class Archive:
    def __init__(self) -> None:
        self.seen: list[Completion] = []

    @hookimpl
    def purify_completed(self, purifier: Purifier, completion: Completion) -> None:
        verify(completion.certificate, purifier.plugins)
        self.seen.append(completion)


def plugged(*plugins: object, **options: Any) -> Purifier:
    loaded = load_plugins([])
    for plugin in plugins:
        loaded.register(plugin)
    return toys(plugins=loaded, **options)


def test_a_wrapper_sees_every_step() -> None:
    auditor = Auditor()
    answers = plugged(auditor).generate(["x", "yz"], few())
    for row, answer in enumerate(answers):
        assert [step.tokens[row] for step in auditor.steps] == list(answer.steps)
    assert auditor.ended
    assert answers[0].tokens == toys().generate("x", few())[0].tokens


def test_a_wrapper_that_forwards_nothing_does_not_outlive_a_stop_string() -> None:
    """Such a wrapper made the models write on to max_tokens, unseen, after a stop string."""
    auditor = Auditor()
    loaded = load_plugins([])
    loaded.register(auditor)
    answer = scripted(b"one two", plugins=loaded).generate("x", few(500, stop=("e",), temperature=0))[0]
    assert answer.text == "on"
    assert len(auditor.steps) <= len(answer.tokens) + 1


def test_a_plugin_may_replace_the_walk() -> None:
    from purify_plugins.decode.loop import lockstep

    def doubled(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
        return lockstep(purifier, prompts, replace(sampling, max_tokens=2 * sampling.max_tokens))

    assert len(plugged(Replacing(doubled)).generate("x", few(3))[0].tokens) == 6


@pytest.mark.parametrize("wrong", ["text", [1, 2], 3, iter(())])
def test_a_walk_that_is_no_generator_is_refused(wrong: Any) -> None:
    with pytest.raises(PluginError, match="purify_decode must return a generator of steps, not "):
        plugged(Replacing(wrong)).generate("x", few())


def test_a_plugin_that_answers_none_leaves_the_walk_as_it_is() -> None:
    assert plugged(Replacing(None)).generate("x", few())[0].tokens == toys().generate("x", few())[0].tokens


def test_a_plugin_may_refuse_a_request_before_any_model_sees_it() -> None:
    loaded = load_plugins([])
    loaded.register(Refusing())
    purifier, sources = watched(plugins=loaded)
    with pytest.raises(RefusedError, match="this prompt names a secret"):
        purifier.generate("a secret")
    assert [source.sessions for source in sources] == [[], []]
    assert purifier.generate("fine", few())


def test_a_completed_answer_is_shown_with_its_certificate() -> None:
    archive = Archive()
    answers = plugged(archive).generate(["x", "yz"], few())
    assert archive.seen == answers


def test_a_plugin_that_fails_on_a_completed_answer_withholds_it() -> None:
    class Full:
        @hookimpl
        def purify_completed(self, completion: Completion) -> None:
            raise RefusedError("the disk is full")

    with pytest.raises(RefusedError, match="the disk is full"):
        plugged(Full()).generate("x", few())


# The canary: text that only the LLM knows, and that the SLM rules out

CANARY = b"SECRET"
WORDS = Vocabulary(
    (*BYTES.tokens[:256], b" the", b""),
    frozenset({257}),
    {257: "<end>"},
    frozenset({257}),
    "bytes and a word",
)
FUSED: list[dict[str, Any]] = [
    {"name": "geometric"},
    {"name": "geometric", "alpha": 0.99},
    {"name": "minimum"},
    {"name": "windowed"},
    {"name": "windowed", "cap": 50.0, "budget": 1e6},
    {"name": "balanced"},
    {"name": "balanced", **FOLLOWING},
    {"name": "capped"},
    {"name": "capped", "cap": 50.0, "total": math.inf},
    {"name": "anchored"},
    {"name": "anchored", "budget": 100.0, "prefix_debt": False},
    {"name": "cp_fuse"},
    {"name": "clean_gen"},
    {"name": "offset"},
    {"name": "consistency", "policy": {"name": "windowed"}},
    {"name": "consistency", "policy": {"name": "geometric"}},
]
"""Policies under which a token that the SLM rules out has no mass."""
PASSING = {
    "geometric at alpha 1",
    "offset at alpha 0",
    "token_swap",
    "safe_decoding",
    "linear",
    "learned_mix",
    "contrastive",
    "consistency",
    "top_k_union",
}
"""Policies that by design let a token through on the LLM's word alone; none of them claims a guarantee."""


def poisoned(policy: Any) -> Purifier:
    slm = Forbidding(WORDS, 2, forbidden=frozenset(CANARY))
    return pair(ScriptedSource(WORDS, CANARY * 3, 1e-3), slm, policy)


def leaked(text: str, tokens: Sequence[int]) -> bool:
    return bool(set(text.encode()) & set(CANARY)) or bool(set(tokens) & set(CANARY))


def completions(purifier: Purifier, sampling: Sampling) -> Iterator[tuple[str, tuple[int, ...]]]:
    answers = purifier.generate(["x", "SECRET please"], sampling)
    answers.append(purifier.chat([{"role": "user", "content": "x"}], sampling))
    yield from ((answer.text, answer.tokens) for answer in answers)
    chunks = list(purifier.stream("x", sampling))
    yield "".join(map(str, chunks)), tuple(step.id for chunk in chunks for step in chunk.steps)


@pytest.mark.parametrize("policy", FUSED, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_no_canary_passes(policy: dict[str, Any], temperature: float) -> None:
    sampling = Sampling(max_tokens=12, temperature=temperature, seed=11)
    for text, tokens in completions(poisoned(policy), sampling):
        assert not leaked(text, tokens)


@pytest.mark.anyio
@pytest.mark.parametrize("policy", FUSED, ids=str)
async def test_no_canary_passes_asynchronously(policy: dict[str, Any]) -> None:
    purifier, sampling = poisoned(policy), Sampling(max_tokens=12, seed=11)
    answers = await purifier.agenerate(["x", "SECRET please"], sampling)
    answers.append(await purifier.achat([{"role": "user", "content": "x"}], sampling))
    chunks = await collect(purifier.astream("x", sampling))
    assert not any(leaked(answer.text, answer.tokens) for answer in answers)
    assert not leaked("".join(map(str, chunks)), [step.id for chunk in chunks for step in chunk.steps])


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


def test_which_policies_pass_a_token_on_the_llms_word_alone() -> None:
    offered = load_plugins([]).offers("purify_policies")
    candidates: dict[str, Any] = {each: {"name": each} for each in offered}
    candidates |= {"geometric at alpha 1": ONLY, "offset at alpha 0": {"name": "offset", "alpha": 0.0}}
    greedy = Sampling(max_tokens=12, temperature=0)
    sampled = Sampling(max_tokens=12, seed=11)
    passing = {
        label
        for label, policy in candidates.items()
        if any(
            leaked(*each)
            for sampling in (greedy, sampled)
            for each in completions(poisoned(policy), sampling)
        )
    }
    assert passing == PASSING
    assert {load_plugins([]).policy(candidates[label]).guarantee for label in passing} == {"none"}


def test_a_canary_is_recorded_as_what_it_is_when_the_policy_lets_it_pass() -> None:
    answer = poisoned({"name": "linear"}).generate("x", Sampling(max_tokens=6, temperature=0))[0]
    assert answer.text == "SECRET"
    totals = answer.certificate.body["totals"]
    assert (totals["log_ratio"], totals["kl"], totals["surprisal"]) == ("inf", "inf", "inf")
    slm = Forbidding(WORDS, 2, forbidden=frozenset(CANARY))
    assert recompute(answer.certificate, slm) < 1e-6
