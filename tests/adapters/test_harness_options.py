"""The harness's generation arguments: each is honoured as the harness means it, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from purify_adapters.lm_eval_options import OFF, TAKEN, sampling
from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.sampling import Sampling

GREEDY = Sampling(max_tokens=256, temperature=0, seed=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"until": "x"}, {"stop": ("x",)}),
        ({"until": ["x", "y"]}, {"stop": ("x", "y")}),
        ({"until": None, "max_gen_toks": None}, {}),
        ({"max_gen_toks": 6}, {"max_tokens": 6}),
        ({"max_new_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 8.0}, {"max_tokens": 8}),
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": 8, "max_gen_toks": 6}, {"max_tokens": 6}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.0}, {}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"temperature": 0.7, "do_sample": True}, {"temperature": 0.7}),
        ({"top_p": 0.9, "top_k": 5, "min_p": 0.1}, {"top_p": 0.9, "top_k": 5, "min_p": 0.1}),
        ({"top_k": -1}, {}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"frequency_penalty": 0.5, "typical_p": 0.9}, {"frequency_penalty": 0.5, "typical_p": 0.9}),
        ({"seed": 4}, {"seed": 4}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        ({"num_beams": 1, "num_return_sequences": 1, "use_cache": True, "length_penalty": 1.0}, {}),
        ({"presence_penalty": 0.0, "early_stopping": False}, {}),
    ],
)
def test_an_argument_means_what_the_harness_says(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sampling(options) == Sampling(**{**vars(GREEDY), **expected})


def test_do_sample_false_is_greedy_whatever_the_temperature() -> None:
    """The harness sets the temperature to 0 then; we used to sample."""
    assert sampling({"do_sample": False, "temperature": 0.8}).greedy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 4}, "does not do num_beams=4"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"max_length": 99}, "give max_gen_toks"),
        ({"temprature": 1}, "unknown generation argument 'temprature'; did you mean 'temperature'"),
        ({"max_gen_toks": "many"}, "max_gen_toks must be a whole number, not 'many'"),
        ({"max_gen_toks": 1.5}, "max_gen_toks"),
        ({"do_sample": "yes"}, "do_sample must be true or false"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"until": 3}, "until must be texts"),
        ({"until": ["a", 3]}, "until must be texts"),
        ({"top_p": 2.0}, "top_p must be above 0 and at most 1"),
        ({"top_k": "few"}, "top_k"),
    ],
)
def test_an_argument_that_cannot_be_had_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    """`num_beams`, `repetition_penalty` and `max_new_tokens` were ignored without a word."""
    with pytest.raises(PurifyError, match=words):
        sampling(options)


@pytest.mark.parametrize("name", sorted(OFF))
def test_what_is_refused_is_accepted_where_it_changes_nothing(name: str) -> None:
    assert sampling({name: OFF[name][0]}) == GREEDY
    if name != "use_cache":
        with pytest.raises(ConfigError, match=name):
            sampling({name: 7})


def test_every_argument_taken_changes_something() -> None:
    """No name is on the list for decoration."""
    values: dict[str, Any] = {
        **dict.fromkeys(TAKEN, 2),
        **dict.fromkeys(("top_p", "typical_p", "min_p"), 0.5),
    }
    values |= {"until": "x", "do_sample": True, "ignore_eos": True}
    for name in TAKEN:
        assert sampling({name: values[name]}) != GREEDY, name
