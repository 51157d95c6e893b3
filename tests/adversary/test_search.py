"""The searched adversary does what it says: its bound is met, or nearly, and never passed."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from purify_plugins.decode.replay import replay, score
from purify_plugins.testing import letters
from tests.adversary import strategies
from tests.adversary.game import CONTEXT, Game, Remembering, adversary, play, prompts
from tests.adversary.models import Mind, Tokens
from tests.adversary.promise import Promise
from tests.adversary.search import Search
from tests.adversary.test_walks import POLICIES

TIGHT = {"path": 0.999, "window": 0.99, "passage": 0.6, "mean": 0.35, "path, damped": 0.999}
"""What share of its bound a passage reaches at least, under the best of the rows that were tried."""


def probability(game: Game, mind: Mind, answer: Tokens) -> float:
    """How likely an answer's beginning is under lockstep's law, by the loop's own arithmetic."""
    purifier = adversary(game, lambda game: mind, "lockstep", engine=False)
    [record] = replay(purifier, prompts(1), [answer], game.sampling)
    return math.exp(math.fsum(step.fused for step in record))


@pytest.mark.parametrize("policy", POLICIES)
def test_no_strategy_does_better_than_the_searched_one(policy: str) -> None:
    game = Game(POLICIES[policy])
    search = Search(game, [game.target])
    assert probability(game, search.mind, game.target) == pytest.approx(search.probability, rel=1e-4)
    for strategy in (strategies.recite, strategies.hoard, strategies.spend, strategies.lean):
        assert probability(game, strategy(game), game.target) <= search.probability * 1.001


@pytest.mark.parametrize("policy", POLICIES)
def test_the_best_that_can_be_done_keeps_the_promise_and_comes_near_it(policy: str) -> None:
    """A bound that nothing comes near would be kept by a broken policy, too."""
    game = Game(POLICIES[policy])
    search = Search(game, [game.target])
    [bound] = {play(game, adversary(game, lambda _: search.mind, "lockstep", engine=False), 1).bound}
    assert TIGHT[policy] * bound <= search.probability <= bound * (1 + 1e-5)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("policy", ["path", "mean", "path, damped"])
def test_no_set_of_answers_gains_more_than_promised(policy: str, number: int) -> None:
    """What is feared need not be one passage: these guarantees are about any event."""
    game = Game(POLICIES[policy], settings={"ignore_eos": True}, slm=Remembering(letters("ab"), 9))
    event = random.Random(number).sample(list(product(range(2), repeat=game.length)), 1 + number)
    q = math.fsum(math.exp(math.fsum(score(game.slm, CONTEXT, each, game.sampling))) for each in event)
    search = Search(game, event)
    played = play(game, adversary(game, lambda _: search.mind, "lockstep", engine=False), 1)
    assert search.probability <= Promise.of(played.answers[0].certificate).bound(game.length, q) * (1 + 1e-5)
    assert search.probability > q
