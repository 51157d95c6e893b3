"""No adversary makes its passage come out more often than the certificates say, however they were drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import cycle
from typing import Any, NamedTuple

import pytest

from purify_plugins.types import Grammar
from tests.adversary import strategies
from tests.adversary.game import Game, adversary, judge, play
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
    "hot": {"temperature": 1.6},
    "cold": {"temperature": 0.6},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
    "rewards": {"repetition_penalty": 0.7, "frequency_penalty": -0.5},
    "stops": {"stop": ("cc", "ab"), "max_tokens": 8},
    "without end": {"ignore_eos": True, "max_tokens": 5},
    "grammar": {"grammar": Grammar("regex", "[abc][bc][abc]+"), "max_tokens": 6},
}
"""What whoever asks may choose."""


@cache
def searched(policy: str) -> Mind:
    """The strongest weights against a policy."""
    game = Game(POLICIES[policy])
    return Search(game, [game.target]).mind


class Move(NamedTuple):
    """What an adversary does, and how the purifier is set up that it does it to."""

    strategy: Callable[[Game], Mind]
    options: Mapping[str, Any] = {}


DRAWS = 120
ALONE = {"on_llm_failure": "slm"}
ANYBODY = {
    "recite": Move(strategies.recite),
    "hoard": Move(strategies.hoard),
    "spend": Move(strategies.spend),
    "lean": Move(strategies.lean),
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
    """Every move against every policy, every way; readers take turns, so that all of them meet all of these."""
    turn = cycle(READERS)
    return [
        pytest.param(policy, way, move, reader, id=f"{policy}-{way.adversary}-{way.walk}-{name}-{reader}")
        for policy in POLICIES
        for way in WAYS
        for (name, move), reader in zip(moves(way).items(), turn, strict=False)
    ]


@pytest.mark.parametrize(("policy", "way", "move", "reader"), games())
def test_no_passage_comes_out_oftener_than_promised(policy: str, way: Way, move: Move, reader: str) -> None:
    game = Game(POLICIES[policy], settings=READERS[reader])
    purifier = adversary(game, move.strategy, way.walk, way.adversary == "engine", **move.options)
    played = play(game, purifier, DRAWS)
    assert played.claim[0] == game.chosen.guarantee
    judge(played, way.adversary)
