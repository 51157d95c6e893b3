"""Constrained decoding: answers keep their grammar, and are still the fused model's own."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import weakref
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from purify_hooks.policies import POLICIES
from purify_plugins import Chat, ConfigError, Failed, Grammar, NumericError, Purifier, Sampling, SourceError
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.decode.grammar_mask import GrammarFollower, Mask, compiled
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.replay import replay
from purify_plugins.grammar import lark
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ScriptedSource, ToySource, letters, random_rows
from tests.toys import AB, BYTES, Failing, Forbidding, Watched, pair, real, toys


class Animal(BaseModel):
    """A schema with all the usual parts, each of a bounded length."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=6, pattern="^[a-z]*$")
    kind: Literal["cat", "dog"]
    legs: int = Field(ge=0, le=99)
    tame: bool | None
    tags: list[Literal["a", "b"]] = Field(max_length=2)


SCHEMA = Animal.model_json_schema()
ANIMAL = Grammar.json_schema(SCHEMA)
WALKS: tuple[Literal["speculative", "lockstep"], ...] = ("speculative", "lockstep")


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("policy", ["geometric", "windowed"])
def test_an_answer_is_valid_json_under_its_schema(policy: str, temperature: float, walk: Any) -> None:
    purifier = toys(policy, walk=walk)
    sampling = Sampling(max_tokens=400, temperature=temperature, seed=1, grammar=ANIMAL)
    for answer in purifier.generate(["a cat", "something else"], sampling):
        assert answer.finish_reason == "eos"
        assert Animal.model_validate_json(answer.text)


def test_real_models_write_valid_json_too() -> None:
    sampling = Sampling(max_tokens=200, seed=3, grammar=ANIMAL)
    for answer in real().generate(["Once upon a time", "The old king"], sampling):
        assert Animal.model_validate_json(answer.text)
        assert answer.certificate.guarantee == "window"


@pytest.mark.parametrize("cuts", [{"top_k": 1}, {"top_p": 0.1}, {"min_p": 0.5}, {"frequency_penalty": 5.0}])
def test_the_grammar_comes_before_what_cuts_a_row(cuts: dict[str, Any]) -> None:
    [answer] = toys().generate("x", Sampling(max_tokens=400, seed=0, grammar=ANIMAL, **cuts))
    assert Animal.model_validate_json(answer.text)


def test_a_model_that_will_not_follow_the_grammar_must() -> None:
    """Both sides put all their mass on other text; the mask leaves them no choice."""
    stubborn = ScriptedSource(BYTES, b"I would rather talk about the weather.")
    [answer] = pair(stubborn, stubborn).generate("x", Sampling(max_tokens=400, seed=0, grammar=ANIMAL))
    assert Animal.model_validate_json(answer.text)


def test_the_slm_alone_follows_the_grammar() -> None:
    purifier = pair(Failing(BYTES, 1, at=3), ToySource(BYTES, 2), on_llm_failure="slm")
    [answer] = purifier.generate("x", Sampling(max_tokens=400, seed=0, grammar=ANIMAL))
    assert Animal.model_validate_json(answer.text)
    assert any(step.slm_only for step in answer.steps)


# When a model rules out all that the grammar allows

DIGITS = frozenset(range(ord("0"), ord("9") + 1))
YEAR = Grammar("regex", "year [0-9]{2}")
"""Its last two characters are digits, which some model below gives no probability at all."""
MIXES = sorted({*POLICIES} - {"token_swap"})  # which swaps whole words, and bytes spell none
mute = Forbidding(BYTES, 1, forbidden=DIGITS)
each_walk = pytest.mark.parametrize("walk", WALKS)


def year(**options: Any) -> Sampling:
    return Sampling(**{"max_tokens": 20, "seed": 0, "grammar": YEAR, **options})


@each_walk
@pytest.mark.parametrize("policy", MIXES)
def test_what_only_the_llm_rules_out_the_slm_writes_alone(policy: str, walk: Any) -> None:
    """There is nothing to fuse, whatever the policy; such tokens are marked in the certificate."""
    for options in ({"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {}):
        [answer] = pair(mute, ToySource(BYTES, 2), policy, walk=walk).generate("x", year(**options))
        assert re.fullmatch("year [0-9]{2}", answer.text)
        alone = [chr(step.id) for step in answer.steps if step.slm_only]
        assert "".join(alone) == answer.text[-2:]
        assert all(step.ratio == 0 for step in answer.steps if step.slm_only)


@each_walk
@pytest.mark.parametrize("policy", MIXES)
def test_what_the_slm_rules_out_is_refused_whatever_the_llm_thinks(policy: str, walk: Any) -> None:
    for llm, options in ((ToySource(BYTES, 2), {}), (mute, {"top_k": 5}), (mute, {"temperature": 0.0})):
        with pytest.raises(NumericError, match="the SLM gives no probability to any token that the grammar"):
            pair(llm, mute, policy, walk=walk).generate("x", year(**options))


@each_walk
@pytest.mark.parametrize("policy", MIXES)
def test_without_an_end_an_llm_that_can_only_end_is_left_out(policy: str, walk: Any) -> None:
    """Its row without the end was empty, and the whole batch failed: weights could choose when."""
    done, slm = Forbidding(BYTES, 1, forbidden=frozenset(range(256))), ToySource(BYTES, 2)
    for options in ({"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {}):
        endless = Sampling(max_tokens=4, ignore_eos=True, **options)
        [answer] = pair(done, slm, policy, walk=walk).generate("x", endless)
        assert [step.slm_only for step in answer.steps] == [True] * 4
        with pytest.raises(NumericError, match="grammar, or ignore_eos, allows next"):
            pair(slm, done, policy, walk=walk).generate("x", endless)


def test_an_answer_is_refused_only_for_what_it_must_write_itself() -> None:
    """A neighbour that has ended, or a draft that nobody keeps, may well lead to where the SLM is mute."""
    slm = Forbidding(BYTES, 2, forbidden=DIGITS)
    either = Grammar("regex", "year [0-9]{2}|yes")
    for walk, seed in product(WALKS, range(20)):
        purifier = pair(ScriptedSource(BYTES, b"yes"), slm, "geometric", walk=walk)
        try:
            answers = purifier.generate(["x", "xx"], Sampling(max_tokens=20, seed=seed, grammar=either))
        except NumericError:
            continue
        assert {answer.text for answer in answers} == {"yes"}


def test_an_answer_that_the_slm_could_not_have_written_is_not_scored() -> None:
    with pytest.raises(NumericError, match="the SLM gives no probability"):
        replay(pair(ToySource(BYTES, 2), mute), ["x"], [list(b"year 12")], year())


# What is kept, and what is let go


def test_a_grammar_is_compiled_once_for_a_vocabulary() -> None:
    """Neither rows, nor answers, nor the objects that ask make a difference."""
    before = compiled.cache_info().misses
    for seed in range(2):
        toys().generate(
            ["a", "b"], Sampling(max_tokens=40, seed=seed, grammar=Grammar("regex", "once [a-z]"))
        )
        one = Sampling(max_tokens=4, seed=seed, grammar=Grammar("regex", "a?b+"))
        toys(vocabulary=AB_TOO).generate("a", one)
    assert compiled.cache_info().misses == before + 2


AB_TOO = letters("ab")


def test_rows_that_share_a_compiled_grammar_share_nothing_else() -> None:
    mask = Mask(Grammar("regex", "ab|ba"), AB_TOO)
    first = [allowed(GrammarFollower(mask.grammar, AB_TOO), [at]) for at in (0, 1)]
    assert first == ["b", "a"]
    assert allowed(GrammarFollower(mask.grammar, AB_TOO), []) == "ab"


def leave(stream: Any) -> None:
    next(stream)
    stream.close()


def fail(stream: Any) -> None:
    with pytest.raises(SourceError, match="hung up"):
        list(stream)


async def aleave(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()


@each_walk
@pytest.mark.parametrize("end", [leave, fail, aleave])
def test_a_stream_over_a_grammar_that_is_left_or_fails_frees_everything(
    end: Any, walk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    followers: weakref.WeakSet[GrammarFollower] = weakref.WeakSet()
    make = GrammarFollower.__init__

    def noted(self: GrammarFollower, *given: Any) -> None:
        followers.add(self)
        make(self, *given)

    monkeypatch.setattr(GrammarFollower, "__init__", noted)
    llm = Watched(Failing(BYTES, 1, at=3) if end is fail else ToySource(BYTES, 1))
    slm = Watched(ToySource(BYTES, 2))
    purifier = pair(llm, slm, walk=walk)
    sampling = Sampling(max_tokens=400, seed=0, grammar=ANIMAL)
    if end is aleave:
        asyncio.run(aleave(purifier.astream("x", sampling)))
    else:
        end(purifier.stream("x", sampling))
    assert len(llm.sessions) == len(slm.sessions) == 1
    assert llm.open_sessions == slm.open_sessions == 0
    if followers:
        gc.collect()
    assert not followers


# One law, whatever the walk


GRAMMARS = [
    ANIMAL,
    Grammar("regex", "(ab|ba)+c?"),
    Grammar("regex", "hello[\n/]world"),
    Grammar("lark", 'start: "<" name ">" start? "</" name ">"\nname: /[a-c]{1,3}/'),
]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.text[:12])
def test_speculation_is_lockstep_when_greedy(grammar: Grammar) -> None:
    sampling = Sampling(max_tokens=60, temperature=0, grammar=grammar)
    prompts = ["a", "bc", "cab", "x"]
    written = [toys(walk=walk).generate(prompts, sampling) for walk in WALKS]
    assert [answer.tokens for answer in written[0]] == [answer.tokens for answer in written[1]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_is_its_rows(temperature: float) -> None:
    sampling = Sampling(max_tokens=200, temperature=temperature, seed=5, grammar=ANIMAL)
    prompts = ["a", "a much longer prompt", "b"]
    together = toys(walk="lockstep").generate(prompts, sampling)
    for row, prompt in enumerate(prompts):
        [alone] = toys(walk="lockstep").generate(prompt, replace(sampling, seed=5 + row))
        assert alone.tokens == together[row].tokens


def test_the_fused_law_is_the_law_of_masked_rows() -> None:
    """By enumeration: every answer's probability is the product over steps of fuse(masked, masked)."""
    purifier = pair(ToySource(AB, 1), ToySource(AB, 2), "geometric")
    sampling = Sampling(max_tokens=3, grammar=Grammar("regex", "a?b+"))
    answers = [(*body, 2) for length in range(3) for body in product(range(2), repeat=length)] + list(
        product(range(2), repeat=3)
    )
    found = replay(purifier, ["a"] * len(answers), answers, sampling)
    law = {
        answer: sum(token.fused for token in record) for answer, record in zip(answers, found, strict=True)
    }
    possible = {answer for answer, logprob in law.items() if logprob > -torch.inf}
    assert possible == {(0, 1, 2), (1, 2), (1, 1, 2), (0, 1, 1), (1, 1, 1)}
    assert sum(torch.tensor(list(law.values())).exp()) == pytest.approx(1, abs=1e-5)
    for answer in possible:
        assert law[answer] == pytest.approx(_by_hand(purifier, answer), abs=1e-4)


NEXT = {(): [0, 1], (0,): [1]}
"""What may follow in a?b+ over a, b and the end; everywhere else another b, or the end."""


def _by_hand(purifier: Purifier, answer: tuple[int, ...]) -> float:
    total = 0.0
    for at, token in enumerate(answer):
        allowed = torch.full((3,), -torch.inf)
        allowed[NEXT.get(answer[:at], [1, 2])] = 0.0
        llm, slm = (
            torch.log_softmax(source.logits((0, *answer[:at])) + allowed, -1)  # type: ignore[attr-defined]
            for source in (purifier.llm, purifier.slm)
        )
        fused = torch.log_softmax(purifier.policy.fuse(llm[None], slm[None], ()), -1)
        total += float(fused[0, token])
    return total


def test_without_a_grammar_nothing_looks_back() -> None:
    assert not LogitsProcessors(Sampling(), BYTES).reads_history
    assert LogitsProcessors(Sampling(grammar=ANIMAL), BYTES).reads_history


# One row's place in the grammar


def allowed(follower: GrammarFollower, answer: list[int]) -> str:
    names = "abc$"
    return "".join(names[token] for token in follower.allowed(answer).nonzero()[:, 0].tolist())


def test_a_place_in_the_grammar_follows_the_answer_forth_and_back() -> None:
    """What speculation does: look ahead along a draft, then go back and take another way."""
    follower = GrammarFollower(Grammar("regex", "a(b|ca)*"), letters("abc"))
    expected = {(): "a", (0,): "bc$", (0, 1): "bc$", (0, 2): "a", (0, 2, 0): "bc$"}
    order = [(), (0,), (0, 2), (0, 2, 0), (0,), (0, 1), (), (0, 2), (0, 1)]
    for answer in order * 2:
        assert allowed(follower, list(answer)) == expected[answer]


def test_an_answer_that_has_ended_or_left_the_grammar_may_only_end() -> None:
    follower = GrammarFollower(Grammar("regex", "a(b|ca)*"), letters("abc"))
    assert allowed(follower, [0, 1, 3, 0]) == "$"
    assert allowed(follower, [1]) == "$"
    assert allowed(follower, [0, 1, 0, 0]) == "$"
    assert allowed(follower, [0]) == "bc$"


def test_every_end_token_is_allowed_where_the_grammar_is_complete() -> None:
    two_ends = replace(
        BYTES, tokens=(*BYTES.tokens, b""), eos=frozenset({256, 257}), control={256: "<a>", 257: "<b>"}
    )
    follower = GrammarFollower(Grammar("regex", "x"), two_ends)
    assert follower.allowed([ord("x")]).nonzero()[:, 0].tolist() == [256, 257]


def test_what_must_come_next_may_be_spelled_in_every_way() -> None:
    spelled = replace(BYTES, tokens=(*BYTES.tokens, b"he", b"hello"), control={256: "<end>"})
    follower = GrammarFollower(Grammar("regex", "hello"), spelled)
    assert follower.allowed([]).nonzero()[:, 0].tolist() == [ord("h"), 257, 258]


def test_a_control_token_is_no_text() -> None:
    """A grammar that wants the characters of a control token's name does not get that token."""
    follower = GrammarFollower(Grammar("regex", "<end>"), BYTES)
    assert follower.allowed([]).nonzero()[:, 0].tolist() == [ord("<")]


def test_rows_have_places_of_their_own() -> None:
    mask = Mask(Grammar("regex", "ab"), AB)
    rows = mask(random_rows(2, 3), [((), ()), ((), (0,))])
    assert (rows > -torch.inf).nonzero().tolist() == [[0, 0], [1, 1]]


# The option


def test_a_grammar_is_given_as_itself_a_schema_or_a_table() -> None:
    assert Sampling(grammar=SCHEMA).grammar == ANIMAL  # type: ignore[arg-type]  # a convenience
    table = {"kind": "json_schema", "text": json.dumps(SCHEMA, ensure_ascii=False)}
    assert Sampling(grammar=table).grammar == ANIMAL  # type: ignore[arg-type]  # a convenience
    assert hash(Sampling(grammar=ANIMAL)) == hash(Sampling(grammar=ANIMAL))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("json_schema", '{"type": "objec"}', "Invalid type: objec"),
        ("json_schema", "{", "json_schema grammar cannot be followed"),
        ("json_schema", "[1]", "a JSON schema is an object"),
        (
            "json_schema",
            '{"properties": {"a": {"properties": {"b": {"pattern": "(?=x)y", "type": "string"}}}}}',
            r"a\.b: the regular expression \(\?=x\)y: look-around",
        ),
        (
            "json_schema",
            '{"properties": {"a": {"items": {"not": {}}}}}',
            'a.items: it uses "not", which cannot be followed',
        ),
        ("json_schema", '{"properties": 3}', "properties must be an object"),
        ("json_schema", "3", "a JSON schema is an object"),
        (
            "json_schema",
            '{"oneOf": [{"type": "string"}, {"minLength": 2}]}',
            "no value fits two of its schemas; write anyOf",
        ),
        ("json_schema", '{"$ref": "http://x"}', "only references within it are followed"),
        ("json_schema", '{"type": "number", "minimum": 5, "maximum": 3}', "nothing can fit it"),
        ("lark", 'start: "a', "line 1, column 10"),
        ("regex", "(a", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", "", "must not be empty"),
        ("lark", "start: foo", "unknown name"),
        ("yacc", "a", "kind must be"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(kind: Any, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Grammar(kind, text)


class Annotated(BaseModel):
    """What pydantic says of these is annotation; "Unknown format" refused them all, and named no field."""

    format: Path
    secret: SecretStr
    data: bytes
    several: set[int]
    frozen: frozenset[str]
    when: date


def test_annotations_of_a_schema_are_no_constraints() -> None:
    schema = Annotated.model_json_schema()
    rule = lark(Grammar.json_schema(schema))
    assert "uniqueItems" not in rule
    assert '"path"' not in rule
    assert '"format": "date"' in rule  # a format that can be followed is followed
    assert set(schema["properties"]) == set(json.loads(rule.split("%json ")[1])["properties"])


def test_what_an_enum_says_is_no_annotation() -> None:
    schema = {"enum": [{"format": "path", "uniqueItems": True}]}
    assert json.loads(lark(Grammar.json_schema(schema)).split("%json ")[1])["enum"] == schema["enum"]


def test_a_grammar_that_may_not_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="ignore_eos must be off: a grammar ends its answer"):
        Sampling(grammar=ANIMAL, ignore_eos=True)
    with pytest.raises(ConfigError, match="no end token"):
        Mask(ANIMAL, replace(AB, eos=frozenset()))


def test_a_vocabulary_that_cannot_spell_the_grammar_is_refused() -> None:
    with pytest.raises(ConfigError, match="no token of the models' vocabulary continues this grammar"):
        toys(vocabulary=AB).generate("a", Sampling(grammar=Grammar("regex", "x")))


def test_the_certificate_holds_the_grammar_and_can_be_recomputed() -> None:
    purifier = real()
    [answer] = purifier.generate("Once upon a time", Sampling(max_tokens=200, seed=0, grammar=ANIMAL))
    certificate = read(answer.certificate.text)
    verify(certificate, load_plugins())
    assert certificate.body["method"]["sampling"]["grammar"] == {"kind": "json_schema", "text": ANIMAL.text}
    assert recompute(certificate, purifier.slm) < 1e-3


def test_a_chat_follows_the_grammar() -> None:
    chat = Chat(({"role": "user", "content": "hello"},))
    [answer] = toys().generate([chat], Sampling(max_tokens=400, seed=0, grammar=ANIMAL))
    assert Animal.model_validate_json(answer.text)


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_row_is_not_followed_by_the_matcher_that_was_stuck_for_another(walk: Any) -> None:
    """No token goes on after "b", so that row fails; its neighbour was then told that it could only end."""
    vocabulary, grammar = letters("abd"), Grammar("regex", "(a|bc)[ad]{4}")
    llm, slm = (ToySource(vocabulary, seed=seed, sharpness=0.3) for seed in (1, 2))
    purifier = pair(llm, slm, "balanced", walk=walk)
    written: list[str] = []
    for seed in range(20):
        with suppress(ConfigError):  # a seed with which every row begins with "b"
            found = purifier.generate(["a", "b", "ab"], Sampling(max_tokens=12, grammar=grammar, seed=seed))
            written += [each.text for each in found if not isinstance(each, Failed)]
    assert len(written) > 20
    assert all(re.fullmatch("(a|bc)[ad]{4}", text) for text in written)
