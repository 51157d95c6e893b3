"""Rows of a batch that are more than a prompt, the SLM alone, constraints, and going on from kept tokens."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import (
    CertificateError,
    Completion,
    ForgedError,
    NumericError,
    PluginError,
    Purifier,
    Sampling,
    SourceError,
)
from purify_plugins.certificates import certify, recompute, verify
from purify_plugins.certificates.recomputation import recompute_both
from purify_plugins.decode.decoder import Decoder
from purify_plugins.decode.deny_list import DenyList
from purify_plugins.decode.loop import lockstep, resumed
from purify_plugins.decode.provenance import StepReader
from purify_plugins.decode.replay import replay
from purify_plugins.decode.row import Row
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.decode.speculative import readahead, speculative
from purify_plugins.grammar import Grammar
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.requests.answer import AnswerOptions, RowOutput
from purify_plugins.testing import ToySource
from purify_plugins.types import Certificate, Prompt, Steps, Token, Vocabulary
from tests.test_pinned import Drafting, Steady, merging
from tests.toys import AB, BYTES, Failing, Watched, few, pair, real, toys

WALKS: Mapping[str, Any] = {"lockstep": lockstep, "speculative": speculative, "readahead": readahead}
each_walk = pytest.mark.parametrize("walk", WALKS)


def drafting(walk: str, policy: Any = "balanced", vocabulary: Vocabulary = BYTES) -> Purifier:
    """Two toys, the LLM one that this strategy can be run with."""
    llm = (Drafting if walk == "readahead" else ToySource)(vocabulary, 1)
    return pair(llm, ToySource(vocabulary, 2), policy, walk=walk)


def answers(decoder: Decoder, steps: Steps, sampling: Sampling, rows: int) -> list[Completion]:
    """The answers that a decoder's steps make, as the request pipeline makes them."""
    reader = StepReader(decoder, rows)
    found = [RowOutput(decoder, AnswerOptions(sampling), at, reader) for at in range(rows)]
    for step in steps:
        taken = reader.take(step)
        for each in found:
            each.take(taken)
    for each in found:
        if each.error is not None:
            raise each.error
    return [whole for each in found if (whole := each.finish().completion) is not None]


def decoded(decoder: Decoder, walk: str, rows: Sequence[Any], sampling: Sampling) -> list[Completion]:
    return answers(decoder, WALKS[walk](decoder, rows, sampling), sampling, len(rows))


# A row's own seed, label and reading


@each_walk
def test_rows_that_only_have_a_prompt_are_prompts(walk: str) -> None:
    purifier, sampling, prompts = drafting(walk), few(12, seed=4), ["a", "bcd"]
    plain = decoded(purifier, walk, prompts, sampling)
    rows = decoded(purifier, walk, [Row(each) for each in prompts], sampling)
    assert [each.certificate for each in plain] == [each.certificate for each in rows]
    assert [each.certificate for each in plain] == [
        each.certificate for each in purifier.generate(prompts, sampling)
    ]


@each_walk
def test_a_row_is_drawn_from_its_own_seed_and_its_certificate_says_so(walk: str) -> None:
    purifier, sampling = drafting(walk), few(12, seed=4)
    together = decoded(purifier, walk, [Row("a", seed=9), "a", Row("a", seed=9)], sampling)
    alone = purifier.generate("a", replace(sampling, seed=9))[0]
    second = purifier.generate("a", replace(sampling, seed=5))[0]
    assert [each.tokens for each in together] == [alone.tokens, second.tokens, alone.tokens]
    seeds = [each.certificate.body["method"]["sampling"]["seed"] for each in together]
    assert seeds == [9, 5, 9]


@each_walk
def test_one_row_may_have_a_seed_where_the_batch_has_none(walk: str) -> None:
    purifier, sampling = drafting(walk), few(12, seed=None)
    pairs = [decoded(purifier, walk, [Row("a", seed=9), "a"], sampling) for _ in range(2)]
    assert pairs[0][0].tokens == pairs[1][0].tokens == purifier.generate("a", few(12, seed=9))[0].tokens
    assert pairs[0][1].tokens != pairs[1][1].tokens
    assert [each.certificate.body["method"]["draws"] for each in pairs[0]] == ["keyed", "system"]


@each_walk
def test_a_label_draws_other_numbers_and_the_same_ones_each_time(walk: str) -> None:
    purifier, sampling = drafting(walk), few(12, seed=4)
    rows = [Row("a", seed=4, label=label) for label in ("", "1", "2", "1")]
    plain, one, two, again = [each.tokens for each in decoded(purifier, walk, rows, sampling)]
    assert one == again
    assert len({plain, one, two}) == 3
    assert plain == purifier.generate("a", sampling)[0].tokens


@dataclass(frozen=True)
class Noting(Drafting):
    """A toy that notes what it was given to read."""

    read: list[bytes] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        session, logits = super().open(prompts, scored)
        self.read.extend(bytes(each.tokens) for each in session.prompts)
        return session, logits


@each_walk
def test_the_llm_reads_what_it_is_shown(walk: str) -> None:
    llm, slm = Noting(BYTES, 1), Noting(BYTES, 2)
    purifier = pair(llm, slm, "balanced", walk=walk)
    rows = [Row("Ada Quill wrote", shown="Eva Stone wrote"), "plain"]
    [shown, plain] = decoded(purifier, walk, rows, few(6))
    assert (llm.read, slm.read) == ([b"Eva Stone wrote", b"plain"], [b"Ada Quill wrote", b"plain"])
    assert bytes(shown.certificate.body["prompt"]) == b"Ada Quill wrote"
    verify(shown.certificate, load_plugins())
    assert recompute(shown.certificate, slm) < 1e-5
    other = decoded(purifier, walk, [Row("Ada Quill wrote", shown="Ida Smith wrote")], few(6))[0]
    assert shown.tokens != other.tokens
    assert plain.tokens == purifier.generate("plain", few(6, seed=1))[0].tokens


def test_only_what_both_models_read_is_scored() -> None:
    decoder = toys("balanced")
    rows = [Row("my name is Ada", shown="my name is Eva"), "abc"]
    with closing(SessionPair(decoder, rows)) as sessions:
        context = sessions.context(greedy=False)
    read = [
        bytes(row[-length:].tolist()) for row, length in zip(context.tokens, context.lengths, strict=True)
    ]  # type: ignore[union-attr]
    assert read == [b"y name is a", b"bc"]


# The SLM alone


@dataclass(frozen=True)
class Untouchable(ToySource):
    """A source that must not be opened."""

    def open(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the LLM was asked")


@each_walk
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_alone_the_slm_answers_and_nothing_is_sent_to_the_llm(walk: str, temperature: float) -> None:
    slm, sampling = ToySource(BYTES, 2), few(10, temperature=temperature)
    purifier = pair(Untouchable(BYTES, 1), slm, "balanced", walk="lockstep", explain=True)
    alone = purifier.for_request(alone=True)
    found = decoded(alone, walk, ["a", Row("bcd", shown="never", label="x")], sampling)
    for answer in found:
        assert all(step.slm_only and step.ratio == 0 for step in answer.steps)
        body = answer.certificate.body
        assert (body["method"]["mode"], body["method"]["walk"], body["method"]["guarantee"]) == (
            "slm-only",
            "lockstep",
            "none",
        )
        assert body["method"]["llm_asked"] is False
        assert body["method"]["reason"].endswith("was not asked, and was sent nothing")
        assert float(body["totals"]["log_ratio"]) == 0
        verify(answer.certificate, load_plugins())
        assert recompute(answer.certificate, slm) < 1e-5
        assert recompute_both(answer.certificate, Untouchable(BYTES, 1), slm, load_plugins()) < 1e-5


def test_alone_the_answers_are_the_slm_s_own() -> None:
    purifier = toys("balanced", AB)
    alone = purifier.for_request(alone=True)
    rows = decoded(alone, "lockstep", ["ab"] * 400, Sampling(max_tokens=1, seed=3))
    counts = Counter(each.tokens[0] for each in rows)
    expected = torch.softmax(ToySource(AB, 2).logits([0, 1]), -1)
    for token, p in enumerate(expected.tolist()):
        assert abs(counts[token] / 400 - p) < 4 * math.sqrt(p * (1 - p) / 400) + 1e-9


def test_a_certificate_that_says_the_llm_was_not_asked_cannot_have_a_part_of_it() -> None:
    answer = toys("balanced").generate("a", few(6))[0]
    body = answer.certificate.body
    body["method"] |= {"llm_asked": False}
    with pytest.raises(ForgedError, match="was not asked"):
        verify(resealed(body), load_plugins())


def resealed(body: dict[str, Any]) -> Certificate:
    from purify_plugins.canonical_json import canonical, digest

    return Certificate(canonical({**body, "digest": digest(body)}))


def test_steps_of_the_slm_alone_are_not_taken_for_fused_ones() -> None:
    purifier = toys("balanced")
    steps = lockstep(purifier.for_request(alone=True), ["a"], few(3))
    with pytest.raises(PluginError, match="drawn by another purifier"):
        answers(purifier, steps, few(3), 1)


def test_a_decoder_for_a_request_keeps_what_it_was_made_of() -> None:
    purifier = toys({"name": "geometric"})
    weaker = purifier.for_request(policy=purifier.policy.tightened(0.5), constraints=[Only(b"ab")])
    alone = weaker.for_request(alone=True)
    assert (alone.alone, alone.policy, alone.constraints) == (True, weaker.policy, (Only(b"ab"),))
    assert (purifier.alone, purifier.constraints, purifier.policy.alpha) == (False, (), 0.5)  # type: ignore[attr-defined]
    assert alone.draft_lengths is purifier.draft_lengths


# Constraints


@dataclass(frozen=True)
class Only:
    """Lets these bytes through, at every place, and the end."""

    letters: bytes

    def follower(self, vocabulary: Vocabulary) -> Letters:
        allowed = torch.zeros(len(vocabulary), dtype=torch.bool)
        allowed[[*self.letters, *vocabulary.eos]] = True
        return Letters(allowed)

    def public(self) -> Mapping[str, Any]:
        return {"kind": "only", "count": len(self.letters)}


@dataclass
class Letters:
    mask: Tensor

    def allowed(self, answer: Sequence[int]) -> Tensor:
        return self.mask


@dataclass(frozen=True)
class NoTwice:
    """No letter twice in a row; the answer must not be shorter than three letters."""

    def follower(self, vocabulary: Vocabulary) -> Changing:
        return Changing(vocabulary)

    def public(self) -> Mapping[str, Any]:
        return {"kind": "no letter twice", "count": 1}


@dataclass
class Changing:
    vocabulary: Vocabulary

    def allowed(self, answer: Sequence[int]) -> Tensor:
        found = torch.ones(len(self.vocabulary), dtype=torch.bool)
        if answer:
            found[answer[-1]] = False
        if len(answer) < 3:
            found[sorted(self.vocabulary.eos)] = False
        return found


BOTH = (Only(b"abc"), NoTwice())


@each_walk
@pytest.mark.parametrize("policy", ["balanced", "geometric", "windowed"])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"temperature": 0.0}, {"repetition_penalty": 1.3}])
def test_constraints_hold_together_in_every_walk(walk: str, policy: str, options: dict[str, Any]) -> None:
    decoder = drafting(walk, policy).for_request(constraints=BOTH)
    sampling = Sampling(max_tokens=14, seed=1, **options)
    for answer in decoded(decoder, walk, ["x", "yy", "zab"], sampling):
        letters_ = answer.text
        assert set(letters_) <= set("abc")
        assert all(one != other for one, other in pairwise(letters_))
        assert len(answer.tokens) >= 3
        body = answer.certificate.body
        assert body["method"]["constraints"] == [each.public() for each in BOTH]
        verify(answer.certificate, load_plugins())
        assert recompute(answer.certificate, ToySource(BYTES, 2), constraints=BOTH) < 1e-4
        with pytest.raises(CertificateError, match="drawn under 'only', 'no letter twice'"):
            recompute(answer.certificate, ToySource(BYTES, 2))


def test_constraints_join_a_grammar() -> None:
    decoder = toys("balanced").for_request(constraints=[NoTwice()])
    grammar = Grammar("regex", "[ab]{6}")
    for answer in decoded(decoder, "speculative", ["x"] * 8, Sampling(max_tokens=9, seed=0, grammar=grammar)):
        assert answer.text in ("ababab", "bababa")


@each_walk
def test_both_walks_draw_from_the_constrained_rows(walk: str) -> None:
    decoder = drafting(walk, "balanced", AB).for_request(constraints=[NoTwice()])
    rows = decoded(decoder, walk, ["ab"] * 600, Sampling(max_tokens=3, seed=2))
    [steps] = replay(decoder, ["ab"], [[0, 1, 0]])
    p = math.exp(sum(step.fused for step in steps))
    seen = sum(each.tokens == (0, 1, 0) for each in rows) / 600
    assert {each.tokens for each in rows} <= {(0, 1, 0), (1, 0, 1)}
    assert abs(seen - p) < 4 * math.sqrt(p * (1 - p) / 600)


def test_without_constraints_draws_are_keyed_as_they_were() -> None:
    purifier = toys("balanced")
    plain = purifier.generate("a", few(8))[0]
    free = decoded(purifier.for_request(constraints=[]), "lockstep", ["a"], few(8))[0]
    anything = decoded(purifier.for_request(constraints=[Only(bytes(range(256)))]), "lockstep", ["a"], few(8))
    assert free.tokens == plain.tokens
    assert anything[0].tokens != plain.tokens


@dataclass(frozen=True)
class Nothing:
    """Allows nothing once the answer has `length` tokens and began with `first`; it may raise instead."""

    first: int = 0
    raises: bool = False

    def follower(self, vocabulary: Vocabulary) -> Nothing:
        return self

    def public(self) -> Mapping[str, Any]:
        return {"kind": "nothing"}

    def allowed(self, answer: Sequence[int]) -> Tensor:
        stuck = len(answer) > 1 and answer[0] == self.first
        if stuck and self.raises:
            raise ZeroDivisionError("a bug")
        return torch.full((3,), not stuck)


@each_walk
@pytest.mark.parametrize("raises", [False, True])
def test_where_nothing_is_allowed_that_row_fails_alone(walk: str, raises: bool) -> None:
    decoder = drafting(walk, "balanced", AB).for_request(constraints=[Nothing(0, raises)])
    sampling = Sampling(max_tokens=6, seed=0, ignore_eos=True)
    reader = StepReader(decoder, 6)
    found = [RowOutput(decoder, AnswerOptions(sampling), at, reader) for at in range(6)]
    for step in WALKS[walk](decoder, ["ab", "ba", "aa", "bb", "b", "a"], sampling):
        taken = reader.take(step)
        for each in found:
            each.take(taken)
    failed = [each.error for each in found if each.error is not None]
    whole = [each for each in found if each.error is None]
    assert failed
    assert whole
    assert all(len(each.drawn) == 6 and each.drawn[0].token.id == 1 for each in whole)
    assert all(isinstance(error, PluginError if raises else NumericError) for error in failed)
    said = "the constraint Nothing failed: Zero" if raises else "a constraint or ignore_eos, allows next"
    assert all(said in str(error) for error in failed)


def test_a_mask_of_another_width_is_a_plugin_s_error() -> None:
    decoder = toys("balanced").for_request(constraints=[Nothing()])
    with pytest.raises(PluginError, match="the constraint Nothing failed"):
        decoded(decoder, "lockstep", ["a"], few(3))


def test_steps_drawn_without_the_constraints_are_refused() -> None:
    purifier = toys("balanced")
    with pytest.raises(PluginError, match="drawn by another purifier"):
        answers(purifier.for_request(constraints=BOTH), lockstep(purifier, ["a"], few(3)), few(3), 1)


# Going on from kept tokens


def shown(decoder: Decoder, row: Row, given: Sequence[int], sampling: Sampling) -> dict[int, float]:
    """The distribution that the token after `given` is drawn from, as the step records it."""
    step = next(resumed(replace_top(decoder), row, given, sampling))
    [token] = step.tokens
    assert token is not None
    return {at: math.exp(logprob) for at, logprob in token.top}


def replace_top(decoder: Decoder) -> Decoder:
    return decoder.replace(top=3) if isinstance(decoder, Purifier) else decoder


POLICIES: Sequence[Any] = (
    {"name": "balanced", "budget": 1.0},
    {"name": "windowed", "window": 3, "budget": 1.5, "cap": 1.0},
    {"name": "capped", "cap": 1.0, "total": 2.0},
    {"name": "anchored", "budget": 0.3},
    "geometric",
    "cp_fuse",
)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_kept_then_slm_then_fused_is_the_product_of_the_three(policy: Any) -> None:
    """k = 2 kept tokens, s = 2 of the SLM's own, then fused: every prefix's next row, enumerated."""
    purifier, sampling = toys(policy, AB), Sampling(max_tokens=6, seed=1)
    alone, row, slm = purifier.for_request(alone=True), Row("ab", label="redo 1"), ToySource(AB, 2)
    for kept in product((0, 1), repeat=2):
        for mine in product((0, 1), repeat=2):
            for at in range(2):
                given = [*kept, *mine[:at]]
                found = shown(alone, row, given, sampling)
                own = torch.softmax(slm.logits([0, 1, *given]), -1).tolist()
                assert found == pytest.approx(dict(enumerate(own)), abs=1e-5)
            given = [*kept, *mine]
            found = shown(purifier, row, given, sampling)
            law = {
                token: math.exp(replay(purifier, ["ab"], [[*given, token]])[0][-1].fused)
                for token in range(3)
            }
            assert found == pytest.approx(law, abs=1e-5)


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_what_is_drawn_after_kept_tokens_makes_an_answer_with_fresh_numbers(kept: int) -> None:
    purifier, sampling = toys("balanced"), few(8, seed=3)
    first = purifier.generate("a", sampling)[0]
    drawn = []
    for label in ("redo 1", "redo 2", "redo 1"):
        steps = [*resumed(purifier, Row("a", seed=3, label=label), first.tokens[:kept], sampling)]
        assert len(steps) == 8 - kept
        reader = StepReader(purifier, 1)
        taken = [reader.take(step).tokens[0] for step in steps]
        drawn.append([token.id for token in taken if token is not None])
        whole = [*first.steps[:kept], *(token for token in taken if token is not None)]
        certificate = certify(
            reader.drawn(0, 8, False, ()),
            whole,
            bytes(t.id for t in whole).decode("utf-8", "replace"),
            "length",
        )
        verify(certificate, load_plugins())
        assert recompute_both(certificate, purifier.llm, purifier.slm, load_plugins()) < 1e-4
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]
    assert drawn[0] != list(first.tokens[kept:])


def test_given_tokens_count_towards_the_limit_and_an_end_among_them_is_the_end() -> None:
    purifier = toys("balanced", AB)
    assert [*resumed(purifier, Row("ab"), [0, 1, 0], Sampling(max_tokens=3))] == []
    assert [*resumed(purifier, Row("ab"), [0, 2], Sampling(max_tokens=9))] == []
    llm, slm = ToySource(AB, 1, context_length=6), ToySource(AB, 2)
    steps = resumed(pair(llm, slm, "balanced"), Row("ab"), [0, 1], Sampling(max_tokens=9, ignore_eos=True))
    assert len([*steps]) == 2


def test_penalties_the_grammar_and_constraints_read_the_given_tokens() -> None:
    row, grammar = Row("x", label="redo"), Grammar("regex", "abcabc")
    free = toys("balanced")
    steps = resumed(free, row, [*b"abca"], Sampling(max_tokens=9, grammar=grammar, seed=0))
    assert [step.tokens[0].id for step in steps if step.tokens[0]] == [*b"bc", 256]
    decoder = free.for_request(constraints=BOTH)
    for token in b"abc":
        [step, *_] = resumed(decoder, row, [token], Sampling(max_tokens=4, seed=0))
        assert step.tokens[0] is not None
        assert step.tokens[0].id in set(b"abc") - {token}
    sampling = Sampling(max_tokens=5, seed=0, repetition_penalty=1.5, frequency_penalty=0.4)
    given = [*b"aab"]
    drawn = [step.tokens[0] for step in resumed(free, row, given, sampling)]
    ids = [token.id for token in drawn if token]
    again: list[Token] = replay(free, ["x"], [[*given, *ids]], sampling)[0][3:]
    assert [each.fused for each in again] == pytest.approx([each.fused for each in drawn if each], abs=1e-4)


def test_a_model_that_fails_while_it_goes_on_frees_both_sessions() -> None:
    llm, slm = Watched(Failing(BYTES, 1, at=3)), Watched(ToySource(BYTES, 2))
    with pytest.raises(SourceError, match="hung up"):
        [*resumed(pair(llm, slm, "balanced"), Row("a"), [*b"abcd"], few(8))]
    assert (llm.open_sessions, slm.open_sessions) == (0, 0)


def test_real_models_go_on_where_they_were() -> None:
    purifier = real("balanced")
    sampling = few(8, temperature=0)
    whole = purifier.generate("Once upon a time", sampling)[0]
    steps = resumed(purifier, Row("Once upon a time"), whole.tokens[:3], sampling)
    assert [step.tokens[0].id for step in steps if step.tokens[0]] == list(whole.tokens[3:])


def test_what_is_public_is_json() -> None:
    assert json.dumps([each.public() for each in BOTH])


@pytest.mark.parametrize("alignment", ["bytes", "common_tokens"])
def test_two_tokenizers_are_asked_alone_constrained_and_gone_on_with_as_one_is(alignment: Any) -> None:
    llm, slm = Steady(merging(b"ab", b"ba", b"the"), 1), Steady(merging(b"bb", b"the"), 2)
    plugins, denied = load_plugins(), DenyList(("a", "e", "the"))
    purifier = pair(llm, slm, "balanced", alignment=alignment, walk="lockstep")
    sampling = few(8, seed=3)
    alone = decoded(purifier.for_request(alone=True), "lockstep", ["abba", Row("face", label="x")], sampling)
    held = decoded(purifier.for_request(constraints=[denied]), "lockstep", ["abba", "face"], sampling)
    for answer in (*alone, *held):
        verify(answer.certificate, plugins)
        if alignment == "bytes":  # what else they share is not the SLM's own, and is not recomputed
            assert recompute(answer.certificate, slm, constraints=[denied]) < 1e-4
    assert all(step.slm_only for answer in alone for step in answer.steps)
    assert not {"a", "e"} & {letter for answer in held for letter in answer.text.casefold()}
    kept = purifier.generate("abba", sampling)[0]
    rest = [*resumed(purifier, Row("abba", label="redo"), kept.tokens[:3], sampling)]
    assert len(rest) == len(kept.tokens) - 3
