"""A seed repeats an answer for whoever asks, and tells nobody who writes it what will be drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.adversary import strategies
from tests.adversary.game import Game, Played, adversary, flat, judge, play
from tests.adversary.promise import ONE_SIDED, Promise, unlikely
from tests.adversary.test_old_ways import ENDLESS, STRICT

AB, PASSAGE = flat("ab"), "abbabaabbaababbabaab"
ROWS, TIMES = 12, 6


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
@pytest.mark.parametrize("policy", STRICT)
def test_weights_that_know_the_seed_and_the_code_do_no_better(policy: str, walk: str) -> None:
    """What they aim at is what the Mersenne Twister would have drawn, as in test_old_ways.py."""
    game = Game(STRICT[policy], 20, {**ENDLESS, "seed": 0}, AB, PASSAGE)
    played = play(game, adversary(game, strategies.aim, walk, engine=False), 40)
    assert played.claim == (game.chosen.guarantee, "weights")
    judge(played, "weights")


def asked_again(policy: str, **settings: int) -> Played:
    """The last answers of an engine that was asked the same several times, and learns from each."""
    game = Game(STRICT[policy], 20, {**ENDLESS, **settings}, AB, PASSAGE)
    purifier = adversary(game, strategies.Learner, "lockstep", engine=True)
    *_, last = (play(game, purifier, ROWS) for _ in range(TIMES))
    return last


@pytest.mark.parametrize("policy", ["path", "passage"])
def test_an_engine_that_is_asked_a_seed_again_knows_its_draws_and_nothing_is_claimed(policy: str) -> None:
    """From the first answer it knows between which marks each number lies, and every answer says more.

    That is why a seeded answer from an engine nobody vouches for claims nothing: it could not keep it.
    """
    played = asked_again(policy, seed=0)
    assert played.claim == ("none", "none")
    judge(played, "engine")
    otherwise = replace(Promise.of(played.answers[0].certificate), guarantee=played.game.chosen.guarantee)
    assert unlikely(played.hits, ROWS, otherwise.bound(20, played.game.q)) < ONE_SIDED


def test_without_a_seed_the_same_engine_learns_nothing() -> None:
    played = asked_again("passage")
    assert played.claim == (played.game.chosen.guarantee, "engine")
    judge(played, "engine")
