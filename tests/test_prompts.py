"""What Python callers give in error: one sentence each, an error of ours, and no model is asked."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from purify_plugins import (
    Chat,
    Completion,
    ConfigError,
    PromptError,
    Purifier,
    PurifyError,
    Sampling,
    TooLongError,
)
from purify_plugins.testbed import LLM, SLM
from tests.toys import few, real, toys

HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def purifier() -> Purifier:
    return toys()


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (None, "not None"),
        (3, "not 3"),
        (b"abc", "decode it first"),
        (["fine", b"abc"], "decode it first"),
        ([1, 2, 3], "give tuple(ids)"),
        ([[1, 2, 3]], "give tuple(ids)"),
        ([(1, "b")], "whole numbers of a vocabulary, not 'b'"),
        ([(1, -1)], "whole numbers of a vocabulary, not -1"),
        (HELLO, "call chat([message])"),
        ([HELLO], "call chat(messages)"),
        ("", "the prompt is empty"),
        ([""], "the prompt is empty"),
        ([None], "not None"),
        ([Chat(())], "the prompt is empty"),
        (Chat("Hello"), "a conversation is a list of messages"),  # type: ignore[arg-type]  # the point
        (Chat((HELLO,), tools=5), "tools are a list"),  # type: ignore[arg-type]  # the point
    ],
)
def test_what_is_no_prompt_is_refused_with_advice(purifier: Purifier, prompts: Any, words: str) -> None:
    with pytest.raises(PromptError) as error:
        purifier.generate(prompts)
    assert words in str(error.value)
    with pytest.raises(PromptError, match=r"\w"):
        anyio.run(purifier.agenerate, prompts)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (None, "a conversation is a list of messages"),
        ("Hello", "a conversation is a list of messages"),
        (HELLO, "a conversation is a list of messages"),
        ([], "the conversation is empty"),
        (["Hello"], "message 1 must have a role and a content"),
        ([HELLO, {"rle": "user", "content": "Hello"}], "message 2 has no 'role'"),
        ([{"role": "boss", "content": "Hello"}], "unknown role 'boss'"),
        ([{"role": "usr", "content": "Hello"}], "did you mean 'user'?"),
        ([{"role": 3, "content": "Hello"}], "unknown role '3'"),
        ([{"role": "user"}], "message 1 has no 'content'"),
        ([{"role": "user", "content": 5}], "its content must be text, not 5"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "read text only"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part of its content must be text"),
        ([{"role": "user", "content": [5]}], "a part of its content must be text"),
    ],
)
def test_what_is_no_conversation_is_refused_with_advice(
    purifier: Purifier, messages: Any, words: str
) -> None:
    with pytest.raises(PromptError) as error:
        purifier.chat(messages)
    assert words in str(error.value)


def test_a_message_in_parts_reads_as_the_same_message_whole() -> None:
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Once upon"}, {"type": "text", "text": " a time"}],
        }
    ]
    whole = [{"role": "user", "content": "Once upon a time"}]
    answers = [real().chat(messages, few(4)) for messages in (parts, whole)]
    assert answers[0].certificate.body["prompt"] == answers[1].certificate.body["prompt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 10}, "did you mean 'max_tokens'?"),
        ({"temprature": 1.0}, "did you mean 'temperature'?"),
        ({"max_tokens": "many"}, "max_tokens must be a whole number, not 'many'"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number, not 1.5"),
        ({"max_tokens": True}, "max_tokens must be a whole number, not True"),
        ({"max_tokens": None}, "max_tokens must be a whole number, not None"),
        ({"top_k": "40"}, "top_k must be a whole number"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"temperature": None}, "temperature must be a number, not None"),
        ({"top_p": [0.5]}, "top_p must be a number"),
        ({"min_p": "a"}, "min_p must be a number"),
        ({"typical_p": "a"}, "typical_p must be a number"),
        ({"repetition_penalty": "a"}, "repetition_penalty must be a number"),
        ({"frequency_penalty": "a"}, "frequency_penalty must be a number"),
        ({"ignore_eos": "yes"}, "ignore_eos must be True or False"),
        ({"stop": 5}, "stop must be a text, or a list of texts, not 5"),
        ({"stop": [5]}, "stop must be a text, or a list of texts"),
        ({"stop": None}, "stop must be a text, or a list of texts"),
        ({"grammar": "[a-z]"}, "grammar must be a Grammar"),
        ({"grammar": {"kind": "regex", "text": 5}}, "text must be text"),
    ],
)
def test_a_wrong_sampling_option_is_refused_wherever_it_is_given(
    purifier: Purifier, options: dict[str, Any], words: str
) -> None:
    ways: list[Callable[[], Any]] = [
        lambda: Sampling(**options),
        lambda: replace(Sampling(), **options),
        lambda: purifier.generate("Hello", **options),
        lambda: purifier.stream("Hello", **options),
        lambda: purifier.astream("Hello", **options),
        lambda: purifier.chat([HELLO], **options),
    ]
    for way in ways:
        with pytest.raises(ConfigError) as error:
            way()
        assert words in str(error.value)


@pytest.mark.parametrize("sampling", [{"max_tokens": 5}, 5, "hot", Sampling])
def test_a_sampling_of_another_type_is_refused_with_the_way_to_write_it(
    purifier: Purifier, sampling: Any
) -> None:
    with pytest.raises(ConfigError, match=r"such as Sampling\(max_tokens=40\)"):
        purifier.generate("Hello", sampling)


def test_options_given_by_name_are_those_of_a_sampling() -> None:
    """Every adapter takes them by name; `Purifier` alone wanted an object made of them."""
    purifier = real()
    named = purifier.generate("Once upon a time", max_tokens=6, seed=3)
    [made] = purifier.generate("Once upon a time", Sampling(max_tokens=6, seed=3))
    assert named[0].tokens == made.tokens
    over = purifier.generate("Once upon a time", Sampling(max_tokens=99, seed=3), max_tokens=6)
    assert over[0].tokens == made.tokens
    streamed = [*purifier.stream("Once upon a time", max_tokens=6, seed=3)][-1].completion
    assert isinstance(streamed, Completion)
    assert streamed.tokens == made.tokens


def test_a_likelihood_is_asked_of_two_texts(purifier: Purifier) -> None:
    for pair in ((None, "x"), ("x", 3)):
        with pytest.raises(PromptError, match="must be text"):
            purifier.loglikelihood(*pair)  # type: ignore[arg-type]  # the point


def test_loading_from_python_draws_no_progress_bars(capfd: pytest.CaptureFixture[str]) -> None:
    """A bar for each model stood between a program's own lines; the program's other models keep theirs."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        Purifier.load(LLM, SLM)
        assert logging.is_progress_bar_enabled()
        assert "Loading weights" not in "".join(capfd.readouterr())
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_a_prompt_that_is_too_long_is_said_once_and_by_us(caplog: pytest.LogCaptureFixture) -> None:
    """transformers warned of "indexing errors" before the sentence that says what to do."""
    with caplog.at_level("WARNING"), pytest.raises(TooLongError, match="shorten it"):
        Purifier.load(LLM, SLM).generate("word " * 4000)
    assert not [each for each in caplog.records if "longer than" in each.getMessage()]


def test_a_configuration_that_is_no_path_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"give 'purify\.toml'"):
        Purifier.from_config(5)  # type: ignore[arg-type]  # the point


def test_a_sampling_is_copied_and_pickled_whole() -> None:
    sampling = Sampling(max_tokens=3, seed=1, stop=("x",))
    assert copy.deepcopy(sampling) == pickle.loads(pickle.dumps(sampling)) == sampling


def test_every_way_to_be_wrong_is_an_error_of_ours(purifier: Purifier) -> None:
    """A TypeError here was what a first mistake got, where the errors' page promises advice."""
    wrong: list[Any] = [None, 3.5, object(), [object()], {1: 2}, (None,), [[]], [()], True]
    for prompts in wrong:
        with pytest.raises(PurifyError):
            purifier.generate(prompts, max_tokens=1)
