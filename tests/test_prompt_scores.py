"""A prompt counts alike for a policy that looks back, in one model's tokens and in symbols, text and chat."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest

from purify_hooks.local.source import LocalSource
from purify_plugins import Purifier
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.testbed import HOME, LLM, SLM, SLM_1024
from purify_plugins.tokenizers.cross.prompt_scores import shared_symbol_scores
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.template_words import without_template, written
from purify_plugins.types import Chat, Prompt, ScoredPrompt, Vocabulary
from tests.toys import pair

BYTES = byte_symbols().vocabulary
ATTACKS = json.loads((HOME / "attacks.json").read_text())["protected"]
KNOWN, UNKNOWN = (
    item["prefix"] + item["continuation"][:120] for item in (ATTACKS["passages"][3], ATTACKS["controls"][3])
)


def scored(*tokens: tuple[str, float]) -> ScoredPrompt:
    """A prompt of these tokens and their log-probabilities; a token in angle brackets is a control token."""
    spelled = [() if text.startswith("<") else tuple(text.encode()) for text, _ in tokens]
    return ScoredPrompt((), tuple(logprob for _, logprob in tokens), tuple(spelled))


def shared(llm: ScoredPrompt, slm: ScoredPrompt) -> list[tuple[float, float]]:
    return [score[1:] for score in shared_symbol_scores(llm, slm, BYTES)]


def test_a_stretch_that_both_read_in_whole_tokens_is_scored_at_its_first_symbol() -> None:
    llm = scored(("the", -1.0), (" fo", -2.0), ("x", -4.0))
    slm = scored(("t", -8.0), ("he", -16.0), (" f", -32.0), ("ox", -64.0))
    assert shared(llm, slm) == [(-1.0, -24.0), (0, 0), (0, 0), (-6.0, -96.0), (0, 0), (0, 0), (0, 0)]


def test_a_text_that_one_model_reads_further_back_is_scored_from_where_both_are_cut() -> None:
    llm = scored(("a", -1.0), ("b", -2.0), ("cd", -4.0))
    slm = scored(("bc", -8.0), ("d", -16.0))
    assert shared(llm, slm) == [(-6.0, -24.0), (0, 0), (0, 0)]
    assert shared(llm, scored(("d", -1.0))) == []


def test_of_two_templates_the_words_of_the_conversation_are_scored() -> None:
    llm = scored(
        ("<s>", -9.0), ("user:", -1.0), (" hi", -2.0), (" you", -4.0), ("<e>", -9.0), (" bot:", -8.0)
    )
    slm = scored(("[I]", -1.0), (" hi", -16.0), (" y", -32.0), ("ou", -64.0), (" [/I]", -1.0))
    pairs = shared(llm, slm)
    assert [pair for pair in pairs if pair != (0, 0)] == [(-2.0, -16.0), (-4.0, -96.0)]
    assert len(pairs) == len(" hi you")


def test_a_token_without_mass_counts_where_it_stands_only() -> None:
    llm = scored(("a", -1.0), ("b", -math.inf), ("c", -2.0))
    slm = scored(("a", -4.0), ("b", -8.0), ("c", -16.0))
    assert shared(llm, slm) == [(-1.0, -4.0), (-math.inf, -8.0), (-2.0, -16.0)]


def test_a_template_s_words_are_none_of_the_conversation() -> None:
    """A model that was not taught its template gives "assistant" e^-30, and would count as the worse one."""
    turn_of_a_user = [
        ("<s>", -1.0),
        ("us", -27.0),
        ("er", -9.0),
        ("\n", -13.0),
        ("user", -2.0),
        (" hi", -4.0),
    ]
    read = scored(
        *turn_of_a_user, ("<e>", -1.0), ("\n", -2.0), ("<s>", -1.0), ("assistant", -30.0), ("\n", -17.0)
    )
    found, turn = without_template(read, BYTES)
    assert turn == 0, "an answer is to begin"
    assert without_template(scored(*turn_of_a_user), BYTES).turn == len("user hi")
    assert found.logprobs == read.logprobs
    spelled = [bytes(each) for each in found.spelled]
    assert spelled == [b"", b"", b"", b"", b"user", b" hi", b"", b"", b"", b"", b""]


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([None, b"assistant", None, b"\n\n", b"Hi"], b"Hi"),  # Llama 3
        ([None, b"model", b"\n", b"ass", b"et"], b"asset"),  # Gemma
        ([None, b" Use", b" it", None], b" Use it"),  # Mistral
        ([None, b"use", b"ful"], b"useful"),
        ([b"user", b"\n", b"Hi"], b"user\nHi"),  # its control token was not scored: it may be text
        ([b"a", None, b"\n", None], b"a"),
    ],
)
def test_what_a_template_wrote_follows_a_control_token(pieces: list[bytes | None], said: bytes) -> None:
    pairs = zip(pieces, written(pieces), strict=True)
    assert b"".join(piece or b"" for piece, theirs in pairs if not theirs) == said


def test_an_answer_begins_alike_whatever_a_model_makes_of_its_template() -> None:
    """The hedge took the LLM for the worse model at each chat's beginning, and gave the SLM half of it."""
    vocabulary = Vocabulary((b"\n", b"user", b"Why", b"?", b""), frozenset((4,)), {4: "<|im_end|>"})
    prompt, said = (4, 1, 0, 2, 3, 4, 0), (2, 3)
    one, other = (
        without_template(ScoredPrompt((3, *prompt), scores), vocabulary)
        for scores in ((-1.0, -30.0, -9.0, -2.0, -3.0, -1.0, -9.0), (0.0, 0.0, 0.0, -2.0, -3.0, 0.0, 0.0))
    )
    assert one == other == (ScoredPrompt(said, (-2.0, -3.0)), 0)


@pytest.mark.parametrize("foreign", [-2, -50_000, 10**6])
def test_an_id_that_the_pair_does_not_share_is_no_template_s_word(foreign: int) -> None:
    vocabulary = Vocabulary((b"\n", b"user", b"Why", b"", b"user"), frozenset((3,)), {3: "<|im_end|>"})
    prompt = ScoredPrompt((3, 3, foreign, 2), (-1.0, -2.0, -3.0))
    assert without_template(prompt, vocabulary) == (ScoredPrompt((foreign, 2), (-2.0, -3.0)), 2)


@cache
def plain(folder: Any) -> LocalSource:
    """A model whose chat template writes nothing but what is said."""
    source = LocalSource.load(folder, dtype="float32", device="cpu")
    source.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return source


@cache
def purifier(slm: Any, policy: str, alignment: Any) -> Purifier:
    return pair(plain(LLM), plain(slm), policy, alignment=alignment)


def context(purifier: Purifier, prompt: Prompt) -> Any:
    """The scored prompt, and the policy's state after it."""
    sessions = SessionPair(purifier, [prompt])
    found = sessions.context(greedy=False)
    sessions.close()
    return found, purifier.policy.start(found)


def as_chat(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


@pytest.mark.parametrize("form", [str, as_chat])
@pytest.mark.parametrize("text", [KNOWN, UNKNOWN])
def test_a_prompt_adds_up_to_the_same_in_tokens_and_in_bytes(form: Any, text: str) -> None:
    """With anchored, which looks back on the whole of it."""
    prompt = form(text)
    (one, _), (other, _) = (
        context(purifier(SLM, "anchored", alignment), prompt) for alignment in ("auto", "bytes")
    )
    for name in ("llm", "slm"):
        mine, theirs = float(getattr(one, name).sum()), float(getattr(other, name).sum())
        assert theirs == pytest.approx(mine, rel=0.03, abs=1.0)
    assert int(other.lengths) > 3 * int(one.lengths)


@pytest.mark.parametrize("form", [str, as_chat])
@pytest.mark.parametrize(("slm", "alignment"), [(SLM, "auto"), (SLM, "bytes"), (SLM_1024, "auto")])
def test_a_memorised_prompt_fills_the_ledger_whatever_the_alphabet(
    form: Any, slm: Any, alignment: Any
) -> None:
    """In bytes a chat was not scored at all, and of a text as many bytes as there should be tokens."""
    asked = purifier(slm, "balanced", alignment)
    known, unknown = (context(asked, form(text))[1][0] for text in (KNOWN, UNKNOWN))
    assert float(known) >= asked.policy.budget
    assert float(unknown) <= 0.2 * asked.policy.budget


@pytest.mark.parametrize("form", [str, as_chat])
def test_lookback_counts_the_llms_tokens(form: Any) -> None:
    asked = purifier(SLM_1024, "balanced", "auto")
    per_token = asked.vocabulary.per_token
    assert per_token > 3
    assert int(context(asked, form(KNOWN))[0].lengths) == round(asked.policy.lookback * per_token)
