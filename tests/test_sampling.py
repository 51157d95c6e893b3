"""Sampling: the law is the row's, nothing impossible is drawn, and both rows are shaped alike."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from purify_plugins import ConfigError, NumericError, Sampling, Vocabulary
from purify_plugins.decode.logits import argmax, log_sum, normalise
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.random_streams import RandomStreams, inverse_cdf
from purify_plugins.decode.truncation import Truncation
from purify_plugins.testing import random_rows

LAST = math.nextafter(1, 0)
EMPTY: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())] * 4


def ending(*eos: int) -> Vocabulary:
    """A vocabulary of which only the ends matter."""
    return Vocabulary((b"",) * 7, frozenset(eos))


def shaped(
    rows: Tensor, history: Sequence[tuple[Sequence[int], Sequence[int]]] = EMPTY, **options: float
) -> Tensor:
    return LogitsProcessors(Sampling(**options), ending(0))(rows, history)  # type: ignore[arg-type]


def invert(row: Tensor, numbers: Sequence[float]) -> Tensor:
    """The tokens that numbers in [0, 1) draw from log-weights (rows, V)."""
    return inverse_cdf(log_sum(row, "the row")[1], torch.tensor(numbers, dtype=torch.float64))


def test_drawing_follows_the_row() -> None:
    row = random_rows(1, 7, seed=3, holes=True)[0]
    stream = random.Random(0)
    drawn = invert(row.expand(100_000, 7), [stream.random() for _ in range(100_000)])
    counts = torch.bincount(drawn, minlength=7).double()
    possible = row > -torch.inf
    assert counts[~possible].sum() == 0
    law = row.double().exp()[possible]
    assert chisquare(counts[possible], law / law.sum() * counts.sum()).pvalue > 1e-3


weights = st.lists(st.one_of(st.just(-math.inf), st.floats(-60, 0)), min_size=1, max_size=9).filter(
    lambda row: max(row) > -math.inf
)


@given(weights, st.one_of(st.sampled_from([0.0, 5e-324, LAST, 0.5]), st.floats(0, LAST)))
def test_what_is_impossible_is_never_drawn(row: list[float], uniform: float) -> None:
    fused = torch.log_softmax(torch.tensor([row]), dim=-1)
    assert row[int(invert(fused, [uniform]))] > -math.inf


def test_a_row_without_mass_in_float32_is_still_drawn_from_what_is_possible() -> None:
    row = torch.tensor([[-math.inf, -200.0, -math.inf, -200.0]])
    assert {int(invert(row, [u])) for u in (0.0, 0.4, 0.6, LAST)} == {1, 3}


@given(st.integers(0, 2**40), st.integers(1, 5))
def test_a_batch_draws_what_its_rows_would(seed: int, rows: int) -> None:
    fused = random_rows(rows, 9, seed=rows)
    asked = [b"%d" % row for row in range(rows)]
    dice = RandomStreams(Sampling(seed=seed), asked)
    alone = [RandomStreams(Sampling(seed=seed + row), asked[row : row + 1]) for row in range(rows)]
    for _ in range(4):
        each = [int(inverse_cdf(fused[row : row + 1].exp(), one.next())) for row, one in enumerate(alone)]
        assert inverse_cdf(fused.exp(), dice.next()).tolist() == each


def test_numbers_that_were_only_looked_at_come_again() -> None:
    dice, other = RandomStreams(Sampling(seed=3), [b"", b""]), RandomStreams(Sampling(seed=3), [b"", b""])
    ahead = dice.peek(3)
    dice.consume([2, 0])
    expected = torch.stack([other.next() for _ in range(3)], dim=1)
    assert torch.equal(ahead, expected)
    assert dice.next().tolist() == [expected[0, 2], expected[1, 0]]


def test_without_a_seed_every_draw_is_new() -> None:
    fused = torch.full((1, 10_000), -math.log(10_000))
    assert len({int(inverse_cdf(fused.exp(), RandomStreams(Sampling(), [b""]).next())) for _ in range(8)}) > 1


def test_a_negative_seed_is_refused() -> None:
    """Python draws the same from seeds n and -n, so rows of one batch would have been twins."""
    with pytest.raises(ConfigError, match="seed must be 0 or more, not -1"):
        Sampling(seed=-1)


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    assert RandomStreams(Sampling(temperature=0), [b""]).next() is None
    assert argmax(torch.tensor([[-2.0, -1.0, -1.0]])).tolist() == [1]


# Shaping


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1e-6},
        {"temperature": 50.0},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.6},
        {"top_p": 1e-9},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"typical_p": 0.7},
        {"typical_p": 1e-9},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.5},
        {"repetition_penalty": 1.3, "temperature": 0.8, "top_k": 9, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("holes", [False, True])
def test_shaping_is_transformers_own(options: dict[str, float], holes: bool) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    makers = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
        "typical_p": lambda mass: TypicalLogitsWarper(mass=mass),
    }
    theirs = LogitsProcessorList([make(options[name]) for name, make in makers.items() if name in options])
    rows = random_rows(seed=5, holes=holes)
    seen = torch.tensor([[1, 2, 2, 3]] * 4)
    ours = shaped(rows, [((1, 2), (2, 3))] * 4, **options)
    expected = torch.log_softmax(theirs(seen, rows.clone()), dim=-1)
    torch.testing.assert_close(ours, expected)


@given(
    st.floats(0.05, 5),
    st.integers(0, 20),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.2, 5),
    st.floats(-3, 3),
    st.integers(0, 99),
)
def test_a_shaped_row_sums_to_one(
    temperature: float, k: int, p: float, least: float, repetition: float, frequency: float, seed: int
) -> None:
    sampling = Sampling(
        temperature=temperature,
        top_k=k,
        top_p=p,
        min_p=least,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        ignore_eos=True,
    )
    rows = random_rows(seed=seed, holes=bool(seed % 2))
    after = LogitsProcessors(sampling, ending(3))(rows, [((1,), (2, 2))] * 4)
    torch.testing.assert_close(after.exp().sum(-1), torch.ones(4))
    assert after[:, 3].isneginf().all()
    assert after[rows.isneginf()].isneginf().all()


def test_without_options_a_row_is_left_alone() -> None:
    rows = random_rows()
    assert shaped(rows) is rows


def test_a_frequency_penalty_counts_the_answer_and_not_the_prompt() -> None:
    rows = torch.full((1, 4), -math.log(4))
    after = shaped(rows, [((1, 1, 1), (2, 2, 3))], frequency_penalty=0.5)
    expected = torch.log_softmax(torch.tensor([[0.0, 0.0, -1.0, -0.5]]), dim=-1)
    torch.testing.assert_close(after, expected)


def test_penalties_leave_their_input_alone() -> None:
    rows = random_rows()
    before = rows.clone()
    shaped(rows, [((1,), (2,))] * 4, frequency_penalty=1.0, repetition_penalty=2.0)
    assert torch.equal(rows, before)


def test_a_prompt_of_tokens_that_are_not_shared_is_not_punished() -> None:
    rows = random_rows()
    torch.testing.assert_close(shaped(rows, [((-1, -1), ())] * 4, repetition_penalty=2.0), rows)


def test_ignoring_ends_rules_every_end_out() -> None:
    after = LogitsProcessors(Sampling(ignore_eos=True), ending(0, 5))(random_rows(), EMPTY)
    assert after[:, [0, 5]].isneginf().all()


def test_a_greedy_answer_is_penalised_but_not_warped() -> None:
    rows = random_rows()
    assert torch.equal(shaped(rows, temperature=0, top_k=1, top_p=0.1, min_p=0.9), rows)
    assert not torch.equal(shaped(rows, [((1,), ())] * 4, temperature=0, repetition_penalty=2.0), rows)


def test_a_row_that_sampling_leaves_empty_is_refused() -> None:
    only_end = torch.tensor([[0.0, -math.inf, -math.inf]])
    with pytest.raises(
        NumericError, match=r"under these sampling settings, returned NaN, .inf or no possible token"
    ):
        LogitsProcessors(Sampling(ignore_eos=True), ending(0))(only_end, EMPTY[:1])


# Numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 3, 16])
def test_nan_and_infinity_are_refused(bad: float, place: int) -> None:
    rows = random_rows(holes=True)
    rows[2, place] = bad
    with pytest.raises(NumericError, match=r"the LLM returned NaN, .inf or no possible token"):
        normalise(rows, "the LLM")


def test_a_row_without_a_possible_token_is_refused() -> None:
    rows = random_rows()
    rows[1] = -torch.inf
    with pytest.raises(NumericError, match="the SLM returned NaN"):
        normalise(rows, "the SLM")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
def test_any_logits_become_log_probabilities_in_float32(dtype: torch.dtype, shift: float) -> None:
    rows = normalise((random_rows() + shift).to(dtype), "the LLM")
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max_tokens", 0, "max_tokens must be at least 1, not 0"),
        ("temperature", -1, "temperature must be 0 (greedy), or finite and at least 1e-06, not -1"),
        ("temperature", 9e-7, "temperature must be 0 (greedy), or finite and at least 1e-06, not 9e-07"),
        ("temperature", 1e-40, "temperature must be 0 (greedy), or finite and at least 1e-06, not 1e-40"),
        ("temperature", math.nan, "temperature must be 0 (greedy), or finite and at least 1e-06, not nan"),
        ("temperature", math.inf, "temperature must be 0 (greedy), or finite and at least 1e-06, not inf"),
        ("top_k", -1, "top_k must be 0 (off) or more, not -1"),
        ("top_p", 0, "top_p must be above 0 and at most 1, not 0"),
        ("min_p", 1.1, "min_p must be between 0 and 1, not 1.1"),
        ("repetition_penalty", 0, "repetition_penalty must be above 0, not 0"),
        ("frequency_penalty", -math.inf, "frequency_penalty must be finite, not -inf"),
        ("stop", ("a", ""), "stop must be without empty strings, not ('a', '')"),
        ("stop", ("\ud800",), "stop must be valid Unicode, not ('\\ud800',)"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Sampling(**{option: value})  # type: ignore[arg-type]
    assert str(error.value) == f"sampling: {words}"


def test_one_stop_string_may_be_given_alone() -> None:
    assert Sampling(stop="end").stop == ("end",)  # type: ignore[arg-type]


# Cutting without sorting


CUTS = st.fixed_dictionaries(
    {
        "top_k": st.sampled_from([0, 1, 7, 300]),
        "top_p": st.sampled_from([1.0, 0.99, 0.9, 0.3]),
        "min_p": st.sampled_from([0.0, 0.02, 0.5]),
    }
).filter(lambda options: options != {"top_k": 0, "top_p": 1.0, "min_p": 0.0})


@given(CUTS, st.integers(0, 10**6), st.sampled_from([3, 300, 6000, 20_000]), st.sampled_from([0.3, 2.0, 6.0]))
def test_a_cut_keeps_what_transformers_keeps(
    options: dict[str, Any], seed: int, size: int, sharp: float
) -> None:
    logits = sharp * torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
    rows = torch.log_softmax(logits, dim=-1)
    whole = LogitsProcessors(Sampling(**options), ending(0))(rows, [((0,), [])])
    kept = Truncation(Sampling(**options)).kept(logits[0], float(logits.logsumexp(-1)))
    expected = (whole[0] > -torch.inf).nonzero()[:, 0]
    # A token on the very edge of top_p may fall either side of a rounding.
    assert len(set(kept.tolist()) ^ set(expected.tolist())) <= 1
