"""A row from a server is refused rather than repaired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_adapters.sources.http.rows import row, strict_json, unrevealed_row
from purify_plugins import NumericError, SourceError

HALF = math.log(0.5)


def of(pairs: Sequence[tuple[Any, Any]], size: int, **options: float) -> torch.Tensor:
    return row([token for token, _ in pairs], [logprob for _, logprob in pairs], size, **options)


def test_a_row_holds_what_was_shown_and_the_mass_of_the_rest() -> None:
    found = of([(2, HALF), (0, math.log(0.25))], 4)
    torch.testing.assert_close(found.exp(), torch.tensor([0.25, 0, 0.5, 0, 0.25]))


@given(st.permutations(list(enumerate(torch.log_softmax(torch.arange(6.0), 0).tolist()))))
def test_order_does_not_matter_and_more_than_asked_for_is_welcome(pairs: list[tuple[int, float]]) -> None:
    found = of(pairs, 6)
    torch.testing.assert_close(found[:6], torch.log_softmax(torch.arange(6.0), 0))
    assert found[6] < -12


@pytest.mark.parametrize("token", [4, -1, 10**30, 1.0, "1", True, None])
def test_an_unknown_token_is_refused(token: Any) -> None:
    with pytest.raises(SourceError, match="its tokenizer here lacks"):
        of([(token, HALF)], 4)


@pytest.mark.parametrize(
    "logprob", [None, math.nan, math.inf, -math.inf, 0.5, "-1", True, -1e308, -(10**400), [1]]
)
def test_a_figure_that_is_no_log_probability_is_refused(logprob: Any) -> None:
    with pytest.raises(NumericError):
        of([(1, logprob)], 4)


def test_a_token_given_twice_is_refused() -> None:
    with pytest.raises(SourceError, match="twice"):
        of([(1, -3.0), (1, -3.0)], 4)


def test_an_empty_row_is_refused() -> None:
    with pytest.raises(SourceError, match="no likeliest tokens"):
        of([], 4)


@pytest.mark.parametrize(("excess", "fine"), [(0.0, True), (9e-4, True), (2e-3, False), (1.0, False)])
def test_rounding_is_forgiven_and_more_is_not(excess: float, fine: bool) -> None:
    pairs = [(token, math.log((1 + excess) / 4)) for token in range(4)]
    if fine:
        assert of(pairs, 4)[-1] < -30
    else:
        with pytest.raises(NumericError, match="add up to"):
            of(pairs, 4)
    assert torch.isfinite(of(pairs, 4, tolerance=2.0)[:4]).all()


def test_of_a_row_that_shows_nothing_all_mass_is_hidden() -> None:
    assert unrevealed_row(3).tolist() == [-math.inf] * 3 + [0.0]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"NaN", b'{"a": Infinity}', b"[" * 20_000, b"9" * 20_000, b"\xff",
        b"<html>", b'{"a":' * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError, match="no valid JSON"):
        strict_json(text)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    with suppress(SourceError):
        strict_json(text)
