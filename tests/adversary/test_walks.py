"""No adversary makes its passage come out more often than the certificates say, however they were drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import cycle
from typing import Any, NamedTuple

import pytest

from purify_plugins import ConfigError, Sampling
from purify_plugins.grammar import Grammar
from tests.adversary import strategies
from tests.adversary.game import Game, Played, adversary, judge, play
from tests.adversary.models import Mind
from tests.adversary.search import Search

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "path": {"name": "capped", "cap": 1.0, "total": 1.0},
    "window": {"name": "windowed", "cap": 1.0, "window": 2, "budget": 1.0},
    "passage": {"name": "balanced", "budget": 1.0},
    "mean": {"name": "anchored", "budget": 0.1},
    "path, damped": {"name": "consistency", "policy": {"name": "capped", "cap": 1.0, "total": 1.0}},
}
"""By what they promise."""


class Way(NamedTuple):
    """Whom the passage is to be got past: a walk, and an engine or weights."""

    adversary: str
    walk: str


WAYS = (
    Way("weights", "lockstep"),
    Way("weights", "speculative"),
    Way("engine", "lockstep"),
    Way("engine", "readahead"),
)
READERS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "top-k": {"top_k": 2},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.3},
    "typical": {"typical_p": 0.9},
    "hot": {"temperature": 1.6},
    "cold": {"temperature": 0.6},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
    "rewards": {"repetition_penalty": 0.7, "frequency_penalty": -0.5},
    "stops": {"stop": ("cc", "ab"), "max_tokens": 8},
    "without end": {"ignore_eos": True, "max_tokens": 5},
    "grammar": {"grammar": Grammar("regex", "[abc][bc][abc]+"), "max_tokens": 6},
}
"""What whoever asks may choose."""


class Move(NamedTuple):
    """What an adversary does, and how the purifier is set up that it does it to."""

    strategy: Callable[[Game], Mind]
    options: Mapping[str, Any] = {}


ALONE = {"on_llm_failure": "slm"}
ANYBODY = {
    "recite": Move(strategies.recite),
    "hoard": Move(strategies.hoard),
    "spend": Move(strategies.spend),
    "lean": Move(strategies.lean),
    "do the best": Move(lambda game: Search(game, [game.target]).mind),
    "break off": Move(strategies.break_off, ALONE),
}
ENGINES = {
    **ANYBODY,
    "hide": Move(strategies.hide),
    "show one": Move(strategies.show_one),
    "move the draft": Move(strategies.move_the_draft),
    "fail on a draft": Move(strategies.fail_on_a_draft, ALONE),
    "hang up": Move(strategies.hang_up, ALONE),
    "watch the neighbours": Move(strategies.watch_the_neighbours),
    "praise the prompt": Move(strategies.recite, {"scores": 0.0}),
    "disown the prompt": Move(strategies.recite, {"scores": -50.0}),
}
"""An engine can do all that weights can, and more."""


def moves(way: Way) -> Mapping[str, Move]:
    return ENGINES if way.adversary == "engine" else ANYBODY


def games() -> list[Any]:
    """Every move against every policy, every way; the readers take turns, so that all meet everybody."""
    turn = cycle(READERS)
    return [
        pytest.param(policy, way, move, reader, id=f"{policy}-{way.adversary}-{way.walk}-{name}-{reader}")
        for policy in POLICIES
        for way in WAYS
        for (name, move), reader in zip(moves(way).items(), turn, strict=False)
    ]


def played(policy: str, way: Way, move: Move, reader: str, draws: int) -> Played:
    """One game, judged."""
    game = Game(POLICIES[policy], settings=READERS[reader])
    engine = way.adversary == "engine"
    found = play(game, adversary(game, move.strategy, way.walk, engine, **move.options), draws)
    judge(found, way.adversary)
    return found


@pytest.mark.parametrize(("policy", "way", "move", "reader"), games())
def test_no_passage_comes_out_oftener_than_promised(policy: str, way: Way, move: Move, reader: str) -> None:
    found = played(policy, way, move, reader, 80)
    assert found.claim[0] == found.game.chosen.guarantee


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_passage_comes_out_whoever_reads(policy: str, way: Way, reader: str) -> None:
    """Every move, with every setting of the reader's: each fifty times."""
    for move in moves(way).values():
        played(policy, way, move, reader, 50)


def test_readers_choose_all_that_there_is_to_choose() -> None:
    """A setting that is new here must be tried here."""
    chosen = {name for settings in READERS.values() for name in settings}
    assert chosen | {"seed"} == {field.name for field in fields(Sampling)}


@pytest.mark.parametrize("policy", POLICIES)
def test_greedy_answers_claim_nothing(policy: str) -> None:
    """An arg-max takes what is barely ahead, with certainty."""
    game = Game(POLICIES[policy], settings={"temperature": 0.0})
    found = play(game, adversary(game, strategies.recite, "lockstep", engine=False), 2)
    assert found.claim == ("none", "none")
    judge(found, "weights")


@pytest.mark.parametrize("policy", POLICIES)
def test_an_engine_is_not_shown_the_draft(policy: str) -> None:
    game = Game(POLICIES[policy])
    assert adversary(game, strategies.move_the_draft, "auto", engine=True).walk == "lockstep"
    with pytest.raises(ConfigError, match="shows the LLM's engine what may come next"):
        adversary(game, strategies.move_the_draft, "speculative", engine=True)
