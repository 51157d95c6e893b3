"""A Purifier is a frozen Decoder: what may be replaced, and what the strategies' one table says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from importlib import import_module
from typing import get_args, get_type_hints

import pytest
from pydantic import BaseModel

from purify_plugins import ConfigError, Purifier, Sampling, UnknownNameError
from purify_plugins.configuration.config import Config
from purify_plugins.decode.decoder import Decoder
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.strategies import DECODERS, Strategy, Walk
from purify_plugins.sources.batching import batching
from purify_plugins.testing import ToySource, byte_vocabulary


def toys(**options: object) -> Purifier:
    vocabulary = byte_vocabulary()
    purifier = Purifier.load(ToySource(vocabulary, 1), ToySource(vocabulary, 2), "geometric")
    return purifier.replace(**options)


@pytest.mark.parametrize("name", ["llm", "policy", "walk", "explain", "top", "sampling", "plugins"])
def test_nothing_of_a_purifier_can_be_set(name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(toys(), name, None)


def test_what_an_answer_records_is_replaced_and_the_pair_is_kept() -> None:
    purifier = toys()
    shown = purifier.replace(top=3, explain=True, sampling=Sampling(max_tokens=2))
    assert (shown.llm, shown.slm, shown.policy) == (purifier.llm, purifier.slm, purifier.policy)
    assert shown.draft_lengths is purifier.draft_lengths
    [answer] = shown.generate("once")
    assert [len(token.top) for token in answer.steps] == [3, 3]
    assert (purifier.top, purifier.explain) == (0, False)


def test_another_llm_learns_its_own_draft_lengths() -> None:
    purifier = toys(top=2)
    other = purifier.replace(llm=ToySource(byte_vocabulary(), 9))
    assert other.llm.identity()["name"] == "toy 9"
    assert other.draft_lengths is not purifier.draft_lengths
    assert (other.top, other.slm, other.given_policy) == (2, purifier.slm, purifier.given_policy)


def test_a_pair_in_symbols_keeps_them_when_its_models_are_wrapped() -> None:
    """The gateway shares the models of a finished pair, which must not be spelled in bytes twice."""
    purifier = toys(alignment="bytes")
    shared = purifier.replace(llm=batching(purifier.llm), slm=batching(purifier.slm))
    assert shared.vocabulary.fingerprint == purifier.vocabulary.fingerprint
    assert (shared.llm.symbolic, shared.llm.source.symbolic) == (True, False)  # type: ignore[attr-defined]  # a wrapper's
    sampling = Sampling(max_tokens=4, seed=1)
    assert shared.generate("once", sampling)[0].text == purifier.generate("once", sampling)[0].text


def test_an_option_that_cannot_be_replaced_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'explain'"):
        toys().replace(explian=True)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        toys().replace(batch_size=0)


def test_a_purifier_is_a_field_of_a_pydantic_model() -> None:
    class Chain(BaseModel):
        purifier: Purifier

    purifier = toys()
    assert Chain(purifier=purifier).purifier is purifier


def test_a_decoder_without_plugins_decodes() -> None:
    vocabulary = byte_vocabulary()
    policy = toys().policy
    decoder = Decoder(ToySource(vocabulary, 1), ToySource(vocabulary, 2), policy)
    steps = list(lockstep(decoder, ["once"], Sampling(max_tokens=3)))
    assert len(steps) == 3


def test_one_table_says_which_strategies_there_are() -> None:
    assert DECODERS.keys() == set(get_args(Strategy)) == set(get_args(Walk)) - {"auto"}
    assert get_type_hints(Config)["walk"] == Walk
    for place in DECODERS.values():
        module, function = place.split(":")
        assert callable(vars(import_module(module))[function])


def test_a_purifier_says_what_an_answer_may_claim() -> None:
    vocabulary = byte_vocabulary()
    purifier = Purifier.load(ToySource(vocabulary, 1), ToySource(vocabulary, 2))
    assert purifier.claim().guarantee == purifier.policy.guarantee
    assert purifier.claim(Sampling(temperature=0)).guarantee == "none"
