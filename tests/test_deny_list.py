"""Texts that never appear, by any tokenisation and in every walk; and what certificates say of them."""

from __future__ import annotations

import random
from dataclasses import replace
from time import process_time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_plugins import ConfigError, Sampling
from purify_plugins.certificates import recompute, verify
from purify_plugins.decode.deny_list import DenyIndex, DenyList
from purify_plugins.decode.loop import resumed
from purify_plugins.decode.row import Row
from purify_plugins.grammar import Grammar
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Vocabulary
from purify_plugins.utils.spelling import spelling
from tests.test_rows import decoded, drafting, each_walk
from tests.toys import BYTES, pair, real

PIECES = (
    "ab",
    "Ab",
    "ba",
    " a",
    "a ",
    "  ",
    "b\n",
    "é",
    "É",
    "éa",
    "ß",
    "SS",
    " ",
    "日",
    "a日",
    "bab",
    "aba b",
    "-a",
    "\u0301",
    "b\u0301 ",
)


def vocabulary(*broken: bytes) -> Vocabulary:
    """Every byte, some pieces of several characters, some of broken ones, and an end."""
    tokens = (*(bytes([byte]) for byte in range(256)), *(each.encode() for each in PIECES), *broken, b"")
    return Vocabulary(tokens, frozenset({len(tokens) - 1}), {len(tokens) - 1: "<end>"})


VOCABULARY = vocabulary(b"a\xc3", b"\xa9a", b"\xe6\x97", b"\xa5b", b"\xa0 ")
LETTERS = [*b"abAB \n-'", *range(256, len(VOCABULARY) - 1), 0xC3, 0xA9, 0x89]


def spelled(answer: list[int]) -> str:
    """The text that is complete by then; what only begins a character is none of it."""
    import codecs

    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(VOCABULARY.spell(answer))


def contains(denied: DenyList, answer: list[int]) -> bool:
    text = denied.folded(" " * denied.any_spelling + spelled(answer))
    return any(each in text for each in denied.sought)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.text("abB é日\nß-'\u0301", min_size=1, max_size=5).filter(spelling), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_exactly_the_tokens_that_would_complete_a_text_are_ruled_out(
    texts: list[str], any_case: bool, any_spacing: bool, any_spelling: bool, rng: random.Random
) -> None:
    texts = [each for each in texts if spelling(each).strip()] or ["ab"]
    denied = DenyList(tuple(texts), any_case, any_spacing, any_spelling)
    follower, answer = denied.follower(VOCABULARY), list[int]()
    for _ in range(8):
        allowed = follower.allowed(answer).tolist()
        wrong = [token for token in LETTERS if allowed[token] is contains(denied, [*answer, token])]
        assert not wrong, (texts, VOCABULARY.spell(answer), [VOCABULARY.tokens[token] for token in wrong])
        free = [token for token in LETTERS if allowed[token]]
        if not free:
            return
        answer = [*answer, rng.choice(free)]
        if rng.random() < 0.2:
            del answer[rng.randrange(len(answer)) :]


@pytest.mark.parametrize(
    ("texts", "options", "written", "kept"),
    [
        (("secret",), {}, "a SECret", False),
        (("secret",), {"any_case": False}, "a SECret", True),
        (("two words",), {}, "Two \n\t WORDS", False),
        (("two words",), {"any_spacing": False}, "two  words", True),
        (("two words",), {}, "twowords", True),
        (("straße",), {}, "STRASSE", False),
        (("é",), {}, "É", False),
        (("ab", "abc"), {}, "xabcx", False),
        (("abc",), {}, "ababab ac", True),
        (("two words",), {"any_spelling": True}, "Twó-WORDS", False),
        (("two words",), {"any_spelling": True}, "(two) 'words", False),
        (("two words",), {"any_spelling": True}, "a two.\n\n– words", False),
        (("two words",), {"any_spelling": True}, "t\u200bw\u00ado wo\u0301rds", False),
        (("words",), {"any_spelling": True}, "swords", True),
        (("word",), {"any_spelling": True}, "wordy", False),
        (("words",), {"any_spelling": True}, "words", False),
        (("Søren",), {"any_spelling": True}, "SOREN", False),
        (("哈利",), {"any_spelling": True}, "我爱哈利波特", False),
        (("Ａｄａ",), {"any_spelling": True}, "ada", False),
    ],
)
def test_a_text_is_what_is_said(texts: Any, options: Any, written: str, kept: bool) -> None:
    denied = DenyList(texts, **options)
    follower, answer = denied.follower(BYTES), list(written.encode())
    through = all(bool(follower.allowed(answer[:at])[token]) for at, token in enumerate(answer))
    assert through is kept


def test_an_answer_may_end_with_the_beginning_of_a_text() -> None:
    follower = DenyList(("secret",)).follower(BYTES)
    allowed = follower.allowed([*b"the secre"])
    assert bool(allowed[256])
    assert not bool(allowed[ord("t")] or allowed[ord("T")])
    assert int(allowed.sum()) == len(BYTES) - 2


@each_walk
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.8}], ids=str)
def test_a_model_that_knows_only_the_text_cannot_say_it(walk: str, options: dict[str, Any]) -> None:
    """The LLM is sure of it and the SLM half is: token by token the last letter is ruled out in both rows."""
    denied = DenyList(("key is 4711",))
    llm = (
        drafting(walk).llm
        if walk == "readahead"
        else ScriptedSource(BYTES, b"the key is 4711, the KEY IS 4711")
    )
    purifier = pair(
        llm, ScriptedSource(BYTES, b"the key is 4711, the key is 4711", 0.3), "geometric", walk=walk
    )
    sampling = Sampling(max_tokens=24, seed=3, **options)
    decoder = purifier.for_request(constraints=[denied])
    for answer in decoded(decoder, walk, ["x", "yy", "zzz"], sampling):
        assert "key is 4711" not in " ".join(answer.text.lower().split())
        body = answer.certificate.body
        assert body["method"]["constraints"] == [denied.public()]
        assert "key is" not in answer.certificate.text
        verify(answer.certificate, load_plugins())
        assert recompute(answer.certificate, purifier.slm, constraints=[denied]) < 1e-3


def test_it_joins_a_grammar_and_other_lists() -> None:
    lists = [DenyList(("aa",)), DenyList(("bb",), any_case=False)]
    decoder = pair(ToySource(BYTES, 1), ToySource(BYTES, 2)).for_request(constraints=lists)
    sampling = Sampling(max_tokens=9, seed=0, grammar=Grammar("regex", "[abB]{5}"))
    for answer in decoded(decoder, "speculative", ["x"] * 12, sampling):
        assert len(answer.text) == 5
        assert "aa" not in answer.text
        assert "bb" not in answer.text


def test_kept_tokens_that_begin_a_text_count() -> None:
    decoder = pair(ScriptedSource(BYTES, b"secret"), ScriptedSource(BYTES, b"secret", 0.5), "geometric")
    steps = resumed(
        decoder.for_request(constraints=[DenyList(("secret",))]),
        Row("x", label="redo"),
        [*b"secre"],
        Sampling(max_tokens=6, temperature=0, seed=0),
    )
    [step] = steps
    assert step.tokens[0] is not None
    assert step.tokens[0].id != ord("t")


def test_real_models_do_not_write_what_is_denied() -> None:
    purifier, sampling = real("balanced"), Sampling(max_tokens=32, temperature=0)
    prompts = ["Once upon a time", "The sea was"]
    free = purifier.generate(prompts, sampling)
    words = tuple({word for answer in free for word in answer.text.split() if len(word) > 3})
    decoder = purifier.for_request(constraints=[DenyList(words)])
    for walk in ("lockstep", "speculative"):
        answers = decoded(decoder, walk, prompts, sampling)
        assert not [word for answer in answers for word in words if word.casefold() in answer.text.casefold()]
        assert all(answer.text for answer in answers)
    alone = decoded(decoder.for_request(alone=True), "lockstep", prompts, replace(sampling, temperature=1.0))
    assert not [word for answer in alone for word in words if word.casefold() in answer.text.casefold()]


def test_what_is_public_is_a_digest_and_a_count() -> None:
    denied = DenyList(("Ada Quill", "4711"))
    said = denied.public()
    assert (said["kind"], said["count"], len(said["sha256"])) == ("deny_list", 2, 64)
    assert denied.public() == DenyList(("4711", "Ada Quill")).public()
    assert denied.public() != DenyList(("4711", "Ada Quill"), any_case=False).public()
    assert "Ada" not in repr(denied)


def test_a_list_in_any_spelling_says_so_and_needs_letters() -> None:
    assert DenyList(("Ada",), any_spelling=True).public()["any_spelling"] is True
    assert "any_spelling" not in DenyList(("Ada",)).public()
    with pytest.raises(ConfigError, match="a letter or a digit"):
        DenyList(("Ada", "—!"), any_spelling=True)


@pytest.mark.parametrize("texts", [(), ("",), ("fine", " \n"), ("a\ufffd",), (3,)])
def test_a_list_that_denies_nothing_is_refused(texts: Any) -> None:
    with pytest.raises(ConfigError, match="deny list"):
        DenyList(texts)


def test_a_short_list_is_found_in_all_tokens_at_once_as_a_long_one_is_in_each() -> None:
    vocabulary = real().slm.vocabulary
    words = ["e", "th", " the", "king", "q.", "zq", "ing ", "\u00e9"]
    for texts in (words[:1], words[3:4], words):
        for options in ({}, {"any_case": False}, {"any_spacing": False}):
            index = DenyIndex(DenyList(tuple(texts), **options), vocabulary)
            assert index.spelled.holding(index.texts) == index._holding()


def test_a_long_list_is_indexed_once_and_in_moments() -> None:
    """20,000 texts: no table of all of them is built, and masks are remembered by position."""
    rng = random.Random(0)
    denied = DenyList(tuple("".join(rng.choices("abcdefgh ", k=12)) + "x" for _ in range(20_000)))
    one, other = denied.follower(BYTES), denied.follower(BYTES)
    assert one.index is other.index
    assert isinstance(one.index, DenyIndex)
    answer = [*b"abc abc abc hgf"]
    for at in range(len(answer)):
        assert torch.equal(one.allowed(answer[:at]), other.allowed(answer[:at]))
    assert one.allowed(answer) is other.allowed(answer)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 1_000, 20_000])
def test_a_token_takes_microseconds(count: int) -> None:
    """On a vocabulary of 49,152 tokens, in CPU time; prints the figures of docs/stages.md."""
    rng = random.Random(1)
    words = sorted(
        {
            " " * rng.randint(0, 1) + "".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8)))
            for _ in range(90_000)
        }
    )
    tokens = (
        *(bytes([byte]) for byte in range(256)),
        *(word.encode() for word in words[: 49_152 - 257]),
        b"",
    )
    wide = Vocabulary(tokens, frozenset({len(tokens) - 1}), {len(tokens) - 1: "<end>"})
    texts = tuple({f"{rng.choice(words).strip()} {rng.choice(words).strip()}" for _ in range(count)})
    began = process_time()
    follower = DenyList(texts).follower(wide)
    indexed = process_time() - began
    answer = [rng.randrange(256, len(tokens) - 1) for _ in range(800)]
    began = process_time()
    for at in range(len(answer)):
        follower.allowed(answer[:at])
    each = (process_time() - began) / len(answer)
    print(f"{count:,} texts: indexed in {indexed:.2f} s, {1e6 * each:.0f} µs a token")
    assert indexed < 5
    assert each < 3e-3
