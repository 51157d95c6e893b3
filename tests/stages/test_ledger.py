"""The ledger's arithmetic, by enumeration: what a hostile LLM and a program that helps it can reach.

Two letters, answers of three tokens. A token may gain what is left of the total. The
LLM wants one answer, and the program picks it, tries for it, and has everything else written again.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import pytest

from purify_plugins.certificates.ledger import declared, nats, redo_places

LETTERS, LENGTH, TOTAL = "ab", 3, 1.0
ANSWERS = ["".join(each) for each in product(LETTERS, repeat=LENGTH)]
Distribution = Mapping[str, float]
Reached = defaultdict[str, float]


@dataclass(frozen=True)
class World:
    """A pair on two letters; the LLM wants `target`, and takes all that the policy leaves it."""

    seed: int
    target: str = "bba"
    hostile: bool = True

    def slm(self, prefix: str) -> Distribution:
        first = 0.02 + 0.96 * random.Random(f"{self.seed}{prefix}").random()
        return dict(zip(LETTERS, (first, 1 - first), strict=True))

    def fused(self, prefix: str, spent: float) -> Distribution:
        slm = self.slm(prefix)
        if not self.hostile:
            return slm
        wanted = self.target[len(prefix)] if self.target.startswith(prefix) else LETTERS[0]
        most = min(1.0, slm[wanted] * math.exp(TOTAL - spent))
        return {each: most if each == wanted else 1 - most for each in LETTERS}

    def draft(self, prefix: str = "", spent: float = 0.0, redos: int = 0, check: bool = False) -> Reached:
        """The distribution of a draft; with `check` what is not the target is blocked, and written again by
        the SLM while there are redos left. Its sum is below 1 where answers are refused."""
        found = Reached(float)
        if len(prefix) == LENGTH:
            return Reached(float, {prefix: 1.0})
        slm = self.slm(prefix)
        for token, chance in self.fused(prefix, spent).items():
            left = spent + math.log(chance / slm[token]) if chance else spent
            if not check or token == self.target[len(prefix)]:
                added(found, self.draft(prefix + token, left, redos, check), chance)
            elif redos:
                added(found, self.rewritten(prefix, spent, redos - 1), chance)
        return found

    def rewritten(self, prefix: str, spent: float, redos: int) -> Reached:
        """The SLM writes the blocked token; where that is blocked too, again, while redos are left."""
        found = Reached(float)
        for token, chance in self.slm(prefix).items():
            if token == self.target[len(prefix)]:
                added(found, self.draft(prefix + token, spent, redos, check=True), chance)
            elif redos:
                added(found, self.rewritten(prefix, spent, redos - 1), chance)
        return found

    @property
    def alone(self) -> Reached:
        return replace(self, hostile=False).draft()


def added(found: Reached, more: Mapping[str, float], chance: float) -> None:
    for answer, each in more.items():
        found[answer] += chance * each


def best_of(draft: Distribution, n: int, target: str) -> Reached:
    """The target if any of n drafts is it, else the first draft; n tries reach the same."""
    missing = 1 - draft[target]
    found = Reached(float, {answer: chance * missing ** (n - 1) for answer, chance in draft.items()})
    found[target] = 1 - missing**n
    return found


def cascade(world: World, draft: Distribution) -> Reached:
    """The SLM's own answer where it is the target, else the program's."""
    found = Reached(float, {world.target: world.alone[world.target]})
    added(found, draft, 1 - world.alone[world.target])
    return found


PROGRAMS: dict[str, tuple[Callable[[World], Reached], tuple[int, ...], int]] = {
    "one draft": (lambda world: world.draft(), (), 0),
    "best of 3": (lambda world: best_of(world.draft(), 3, world.target), (3,), 0),
    "three tries around a redo": (
        lambda world: best_of(world.draft(redos=1, check=True), 3, world.target),
        (3,),
        1,
    ),
    "one redo": (lambda world: world.draft(redos=1, check=True), (), 1),
    "three redos": (lambda world: world.draft(redos=3, check=True), (), 3),
    "a cascade around best of 2 around a redo": (
        lambda world: cascade(world, best_of(world.draft(redos=1, check=True), 2, world.target)),
        (1, 2),
        1,
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("target", ANSWERS)
def test_no_answer_is_likelier_than_the_ledger_says(program: str, target: str) -> None:
    run, choices, redos = PROGRAMS[program]
    bound = TOTAL + float(nats(declared(choices, 8)) + nats(redo_places(redos, LENGTH)))
    for seed in range(40):
        world = World(seed, target)
        found, alone = run(world), world.alone
        over = [each for each in ANSWERS if found[each] > math.exp(bound) * alone[each] * (1 + 1e-9)]
        assert over == [], f"seed {seed}"


@pytest.mark.parametrize("program", [each for each in PROGRAMS if each != "one draft"])
def test_what_the_ledger_adds_is_needed(program: str) -> None:
    """A program that helps the LLM reaches answers that one draft of its policy cannot."""
    run, _, _ = PROGRAMS[program]
    worlds = [World(seed, target) for target in ANSWERS for seed in range(40)]
    assert any(run(each)[each.target] > math.exp(TOTAL) * each.alone[each.target] for each in worlds)


def test_two_letters_add_up() -> None:
    for seed in range(5):
        assert sum(World(seed).draft().values()) == pytest.approx(1)
        assert sum(best_of(World(seed).draft(), 3, "bba").values()) == pytest.approx(1)
