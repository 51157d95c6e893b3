"""The suite can fail: with what once was done, passages come out that certificates say cannot.

Both ways were found on 2026-11-28, and every certificate verified; see docs/threat-model.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from purify_plugins.decode import random_streams as dice
from tests.adversary import strategies
from tests.adversary.game import Game, Played, adversary, flat, judge, play
from tests.adversary.models import Served
from tests.adversary.promise import ONE_SIDED

DRAWS = 60
ENDLESS = {"ignore_eos": True}
AS_SHIPPED = ("capped", "windowed", "balanced", "anchored")
"""The policies with a guarantee, with their defaults."""
STRICT = {
    "path": {"name": "capped", "cap": 3.0, "total": 4.0},
    "window": {"name": "windowed", "cap": 2.0, "window": 4, "budget": 1.5},
    "passage": {"name": "balanced", "budget": 3.0},
    "mean": {"name": "anchored", "budget": 0.3},
}


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks who runs the LLM: a server is shown the SLM's draft as if it were this process."""
    monkeypatch.setattr(Served, "engine", "in-process", raising=False)


@pytest.fixture
def twister(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded answers are drawn by the Mersenne Twister, which anybody can run."""

    def public(seed: int, asked: bytes) -> Iterator[float]:
        return iter(random.Random(seed).random, None)

    monkeypatch.setattr(dice, "keyed", public)


@pytest.mark.parametrize("policy", AS_SHIPPED)
@pytest.mark.usefixtures("unasked")
def test_the_suite_catches_a_shown_draft(policy: str) -> None:
    """The SLM's draft was sent to the LLM's server, whose rows then hung on it.

    Twenty letters of twenty-six, to which the SLM gives e^-65, came out of every policy, as it is shipped.
    """
    game = Game(policy, 20, ENDLESS, flat("abcdefghijklmnopqrstuvwxyz"), "thequickbrownfoxjumps", place=1)
    caught(play(game, adversary(game, strategies.move_the_draft, "speculative", True), DRAWS))


@pytest.mark.parametrize("policy", STRICT)
@pytest.mark.usefixtures("twister")
def test_the_suite_catches_a_predictable_seed(policy: str) -> None:
    """Seed 0, as every example in the docs had it: weights can be trained for that."""
    game = Game(STRICT[policy], 20, {**ENDLESS, "seed": 0}, flat("ab"), "abbabaabbaababbabaab")
    caught(play(game, adversary(game, strategies.aim, "lockstep", False), DRAWS))


def caught(played: Played) -> None:
    """The certificates promise something, and the judge finds the promise broken."""
    print(played)  # seen with -s
    assert played.claim[0] == played.game.chosen.guarantee
    assert played.p_value < ONE_SIDED
    with pytest.raises(AssertionError, match="promises"):
        judge(played, "weights")
