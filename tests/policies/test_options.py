"""Bad options are refused when the policy is made, in one sentence that says what to write."""

from __future__ import annotations

import math
from typing import Any

import pytest

from purify_hooks.policies import POLICIES
from purify_hooks.policies.pools import Geometric
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugin.manager import load_plugins

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("geometric", {"alpha": 1.5}, "geometric: alpha must be between 0 and 1, not 1.5"),
    ("geometric", {"alpha": math.nan}, "geometric: alpha must be between 0 and 1, not nan"),
    ("geometric", {"alpha": "0.5"}, "geometric: alpha must be between 0 and 1, not '0.5'"),
    ("geometric", {"alpha": True}, "geometric: alpha must be between 0 and 1, not True"),
    ("windowed", {"cap": -1.0}, "windowed: cap must be a number of nats, 0 or more, not -1.0"),
    ("windowed", {"window": 0}, "windowed: window must be a whole number, 1 or more, not 0"),
    ("windowed", {"window": 2.5}, "windowed: window must be a whole number, 1 or more, not 2.5"),
    ("windowed", {"budget": math.inf}, "windowed: budget must be a number of nats, 0 or more, not inf"),
    ("balanced", {"budget": math.inf}, "balanced: budget must be a number of nats, 0 or more, not inf"),
    ("balanced", {"doubt": -1.0}, "balanced: doubt must be a finite number, 0 or more, not -1.0"),
    ("balanced", {"drain": math.nan}, "balanced: drain must be a number of nats, 0 or more, not nan"),
    (
        "balanced",
        {"gap": 2.5},
        "balanced: gap must be a number of nats from 0 to ln 10 (2.3026), not 2.5",
    ),
    (
        "balanced",
        {"gap_limit": -0.1},
        "balanced: gap_limit must be a number of nats from 0 to ln 10 (2.3026), not -0.1",
    ),
    ("balanced", {"memory": 0.5}, "balanced: memory must be 0, or 1 token or more, not 0.5"),
    ("balanced", {"hedge": 0.6}, "balanced: hedge must be a share from 0 to 0.5, not 0.6"),
    (
        "balanced",
        {"numbers": -1.0},
        "balanced: numbers must be a number of nats, 0 or more (inf: numbers are as other text), not -1.0",
    ),
    (
        "balanced",
        {"opening": -1.0},
        "balanced: opening must be a number of nats, 0 or more (inf: none), not -1.0",
    ),
    (
        "balanced",
        {"gap_from": -1.0},
        "balanced: gap_from must be 0 (every token has the gap), or nats from 0.001, not -1.0",
    ),
    (
        "balanced",
        {"opening_in_code": -1.0},
        "balanced: opening_in_code must be a number of nats, 0 or more (inf: as elsewhere), not -1.0",
    ),
    ("capped", {"cap": math.inf}, "capped: cap must be a number of nats, 0 or more, not inf"),
    ("capped", {"total": -1}, "capped: total must be a number of nats, 0 or more (inf: without end), not -1"),
    ("anchored", {"budget": None}, "anchored: budget must be a number of nats, 0 or more, not None"),
    ("anchored", {"debt_tokens": 0}, "anchored: debt_tokens must be a whole number, 1 or more, not 0"),
    ("token_swap", {"words": ()}, "token_swap: words must be a list of words that are not empty"),
    ("token_swap", {"words": "the of"}, "token_swap: words must be a list of words that are not empty"),
    ("clean_gen", {"ratio": 0.5}, "clean_gen: ratio must be a finite number, 1 or more, not 0.5"),
    ("safe_decoding", {"alpha": -3}, "safe_decoding: alpha must be a finite number, 0 or more, not -3"),
    ("safe_decoding", {"first": 0}, "safe_decoding: first must be a whole number, 1 or more, not 0"),
    ("safe_decoding", {"top": 1.0}, "safe_decoding: top must be a whole number, 1 or more, not 1.0"),
    ("linear", {"weight": 2}, "linear: weight must be between 0 and 1, not 2"),
    ("learned_mix", {"bias": math.inf}, "learned_mix: bias must be a finite number, not inf"),
    ("offset", {"alpha": -1.0}, "offset: alpha must be a finite number, 0 or more, not -1.0"),
    ("contrastive", {"alpha": 0}, "contrastive: alpha must be above 0 and at most 1, not 0"),
    ("contrastive", {"beta": -1}, "contrastive: beta must be a finite number, 0 or more, not -1"),
    ("consistency", {"beta": -2.0}, "consistency: beta must be a finite number, 0 or more, not -2.0"),
    ("consistency", {"policy": "linear"}, "consistency: policy must be a fusion policy, not 'linear'"),
    ("top_k_union", {"beta": -2.0}, "top_k_union: beta must be a finite number, 0 or more, not -2.0"),
    ("top_k_union", {"policy": "linear"}, "top_k_union: policy must be a fusion policy, not 'linear'"),
    ("top_k_union", {"top_k": 0}, "top_k_union: top_k must be a whole number, 1 or more, not 0"),
]


@pytest.mark.parametrize(("name", "options", "advice"), BAD)
def test_a_bad_option_is_advice(name: str, options: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        POLICIES[name](**options)
    assert str(caught.value) == advice


def test_every_option_of_every_policy_is_checked() -> None:
    checked = {(name, option) for name, options, _ in BAD for option in options}
    untried = {("token_swap", "ids"), ("anchored", "prefix_debt")}
    untried |= {
        ("balanced", "digits"),
        ("balanced", "joiners"),
        ("balanced", "lengths"),
        ("balanced", "signs"),
    }
    untried |= {("consistency", "kernel"), ("top_k_union", "kernel")}
    untried |= {("learned_mix", "llm_entropy"), ("learned_mix", "slm_entropy")}
    every = {(name, option) for name, make in POLICIES.items() for option in make.__dataclass_fields__}
    assert {(name, option) for name, option in every if option != "name"} - {
        (name, option) for name, option in every if option in ("guarantee", "lookback", "shift_invariant")
    } == checked | untried


@pytest.mark.parametrize(
    ("name", "option"),
    [("balanced", each) for each in ("digits", "lengths", "joiners", "signs")] + [("token_swap", "ids")],
)
def test_what_a_policy_fills_in_itself_is_no_option(name: str, option: str) -> None:
    """With `digits` in [policy] an answer was streamed and then ended in a stack trace, uncertified."""
    plugins = load_plugins(())
    with pytest.raises(UnknownNameError, match=f"unknown policy '{name}' option '{option}'") as caught:
        plugins.policy(name, {option: [1]})
    assert f"'{option}'," not in str(caught.value)
    with pytest.raises(UnknownNameError):
        plugins.policy("consistency", {"policy": {"name": name, option: [1]}})


def test_a_policy_class_is_not_a_policy() -> None:
    with pytest.raises(ConfigError, match="must be a fusion policy"):
        POLICIES["consistency"](policy=Geometric)


def test_an_unknown_kernel_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown consistency kernel 'rfb'; did you mean 'rbf'\?"):
        POLICIES["consistency"](kernel="rfb")


def test_whole_numbers_do_for_real_ones() -> None:
    assert POLICIES["geometric"](alpha=1) == Geometric(1.0)
