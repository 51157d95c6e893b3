"""Every event at once: all answers of a tiny vocabulary, and what the luckiest of them gained.

What is written out here is lockstep's law, by the loop's own arithmetic: settings, grammar, mass that was not
shown. Whether tokens are drawn by it, in every walk and whoever watches, is for test_walks.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch

from purify_plugins.decode.replay import replay
from purify_plugins.types import Token
from tests.adversary import strategies
from tests.adversary.game import ABC, Game, Remembering, adversary, prompts
from tests.adversary.models import Mind, Tokens
from tests.adversary.promise import ROUNDING, Promise
from tests.adversary.test_walks import POLICIES, READERS

FOLLOWING = {"gap": 0.2, "gap_limit": 0.6, "memory": 2.0, "hedge": 0.1, "doubt": 2.0}
RULES: Mapping[str, Mapping[str, Any]] = {
    **POLICIES,
    "passage, following": {"name": "balanced", "budget": 1.0, **FOLLOWING},
    "passage, opening": {
        "name": "balanced",
        "budget": 1.0,
        "opening": 0.3,
        "gap_from": 0.4,
        "opening_in_code": 0.2,
        **FOLLOWING,
        "doubt": 1.0,
    },
}
"""With the rule whose gap and hedge follow what an adversary writes."""


def anything(sharpness: float) -> Callable[[Game], Mind]:
    """Rows without any plan: after each answer others, the sharper the surer."""
    llm = Remembering(ABC, 77, order=6, sharpness=sharpness)
    return lambda game: lambda view: llm.logits(view.answer)


def turncoat(game: Game) -> Mind:
    """Rule out every token but one, another one each time."""
    return lambda view: torch.full((4,), -torch.inf).index_fill(0, torch.tensor(len(view.answer) % 4), 0.0)


MINDS: dict[str, tuple[Callable[[Game], Mind], bool]] = {
    "recite": (strategies.recite, False),
    "hoard": (strategies.hoard, False),
    "lean": (strategies.lean, False),
    "flat": (anything(0.0), False),
    "vague": (anything(2.0), False),
    "sharp": (anything(20.0), False),
    "extreme": (anything(1e4), False),
    "turncoat": (turncoat, False),
    "hide": (strategies.hide, True),
    "show one": (strategies.show_one, True),
}
"""What the LLM does, and whether it takes a server to do it."""


def answers(length: int) -> list[Tokens]:
    """All that can be written in so many tokens."""
    [end] = ABC.eos
    whole = list(product(range(end), repeat=length))
    return whole + [(*body, end) for short in range(length) for body in product(range(end), repeat=short)]


def law(game: Game, strategy: Callable[[Game], Mind], engine: bool) -> tuple[Promise, list[list[Token]]]:
    """What a certificate promises, and every answer there is with what was thought of its tokens."""
    purifier = adversary(game, strategy, "lockstep", engine)
    [prompt], every = prompts(1), answers(game.length)
    found = replay(purifier, [prompt] * len(every), every, game.sampling)
    possible = [each for each in found if all(step.fused > -math.inf for step in each)]
    [answer] = purifier.generate([prompt], game.sampling)
    return Promise.of(answer.certificate), possible


@pytest.mark.parametrize("length", [3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mind", MINDS)
@pytest.mark.parametrize("policy", RULES)
def test_no_event_gains_more_than_promised(policy: str, mind: str, length: int) -> None:
    """Whatever the reader's settings; and the answers' probabilities add up, so that none is missing."""
    for settings in READERS.values():
        game = Game(RULES[policy], length, {**settings, "max_tokens": length, "stop": ()})
        promise, found = law(game, *MINDS[mind])
        assert promise.guarantee == game.chosen.guarantee
        shares = [math.exp(math.fsum(step.fused for step in each)) for each in found]
        assert math.fsum(shares) == pytest.approx(1.0, abs=1e-4)
        assert promise.excess(found) <= ROUNDING * length
