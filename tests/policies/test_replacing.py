"""TokenSwap and CleanGen: whose mass moves where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies._words import FUNCTION_WORDS
from purify_hooks.policies.replacing import CleanGen, TokenSwap
from purify_plugins.canonical_json import jsonable
from purify_plugins.errors import ConfigError
from purify_plugins.types import Vocabulary
from tests.policies.cases import SEEDS, WORDS, law, rows

SWAP = TokenSwap().bind(WORDS)


def test_words_are_tokens_with_a_space_in_front() -> None:
    assert [WORDS.tokens[index] for index in SWAP.ids] == [b" the", b" of"]


def test_the_list_is_about_a_hundred_function_words_each_once() -> None:
    assert 100 <= len(FUNCTION_WORDS) == len(set(FUNCTION_WORDS)) <= 130
    assert {"the", "of", "and", "would", "I"} <= set(FUNCTION_WORDS)


def test_binding_keeps_the_options() -> None:
    bound = TokenSwap(words=("cat",)).bind(WORDS)
    assert bound.words == ("cat",)
    assert bound.ids == (2,)


def test_a_certificate_names_the_words_that_were_chosen() -> None:
    """They were hidden as derived, so that an answer over other words was recomputed over the usual ones."""
    assert jsonable(TokenSwap(words=("cat",)).bind(WORDS)) == {"words": ["cat"]}
    assert jsonable(SWAP) == {"words": None}


def test_an_unbound_swap_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"^token_swap: call bind\(vocabulary\) first"):
        TokenSwap().fuse(rows(1), rows(2), ())


def test_a_vocabulary_without_the_words_is_refused() -> None:
    letters = Vocabulary((b"a", b"b"), frozenset(), name="letters")
    with pytest.raises(ConfigError, match="none of its 124 words is one token of 'letters'; set `words`"):
        TokenSwap().bind(letters)


@given(seed=SEEDS)
def test_only_the_choice_among_the_words_changes(seed: int) -> None:
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    fused, words, others = law(SWAP, llm, slm), [0, 1], [2, 3, 4, 5, 6]
    torch.testing.assert_close(fused[:, others], llm[:, others])
    torch.testing.assert_close(fused[:, words].logsumexp(-1), llm[:, words].logsumexp(-1))
    torch.testing.assert_close(fused[:, words].log_softmax(-1), slm[:, words].log_softmax(-1))


def test_swapping_by_hand() -> None:
    llm = torch.tensor([[0.5, 0.1, 0.4, 0.0, 0.0, 0.0, 0.0]]).log()
    slm = torch.tensor([[0.1, 0.2, 0.7, 0.0, 0.0, 0.0, 0.0]]).log()
    expected = torch.tensor([[0.2, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(law(SWAP, llm, slm).exp(), expected)


def test_an_slm_that_knows_no_function_word_has_no_say() -> None:
    llm, slm = rows(1, 1), torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]).log()
    torch.testing.assert_close(law(SWAP, llm, slm), llm)


def test_replacing_by_hand() -> None:
    llm, slm = torch.tensor([[0.80, 0.15, 0.05]]).log(), torch.tensor([[0.01, 0.04, 0.95]]).log()
    torch.testing.assert_close(law(CleanGen(20), llm, slm).exp(), torch.tensor([[0.0, 0.15, 0.85]]))


def test_the_favourite_itself_may_be_suspicious_and_comes_back() -> None:
    llm, slm = torch.tensor([[0.98, 0.02]]).log(), torch.tensor([[0.5, 0.5]]).log()
    torch.testing.assert_close(law(CleanGen(1.5), llm, slm).exp(), torch.tensor([[0.98, 0.02]]))


@given(seed=SEEDS, ratio=st.floats(1.0, 50.0))
def test_the_law_is_draw_then_replace(seed: int, ratio: float) -> None:
    """Token by token: with probability p_llm(v) take v, or the SLM's arg-max if v is suspicious."""
    llm, slm = (
        rows(seed, 1, holes=0.3, dtype=torch.float64),
        rows(seed + 1, 1, holes=0.3, dtype=torch.float64),
    )
    expected = torch.zeros(7, dtype=torch.float64)
    for token in range(7):
        suspicious = llm[0, token].exp() >= ratio * slm[0, token].exp()
        expected[slm.argmax() if suspicious else token] += llm[0, token].exp()
    torch.testing.assert_close(law(CleanGen(ratio), llm, slm).exp()[0], expected)
