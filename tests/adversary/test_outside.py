"""The same adversaries where the two models read other tokens, and where who is failed asks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import Sampling, SourceError
from purify_plugins.certificates import verify
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.types import Vocabulary
from tests.adversary import strategies
from tests.adversary.game import PLUGINS, Game, adversary, prompts
from tests.adversary.models import Mind
from tests.adversary.promise import ALARM, Promise, unlikely
from tests.adversary.test_walks import POLICIES
from tests.toys import pair

PASSAGE = b"abbaba"
BYTES = byte_vocabulary()
PAIRS = Vocabulary((*BYTES.tokens[:-1], b"ab", b"bab", b"ba", b""), frozenset({259}), {259: "<end>"})
"""Another tokenizer: it has some bytes together."""


@dataclass(frozen=True)
class TwoLetters(ToySource):
    """An SLM to which "a" and "b" are alike, and nothing else is possible."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = torch.full((len(self.vocabulary),), -torch.inf)
        return row.index_fill(0, torch.tensor([ord("a"), ord("b"), *self.vocabulary.eos]), 0.0)


@dataclass(frozen=True)
class Reciter(ToySource):
    """Weights that are sure of the passage after an "x", in the longest tokens of theirs that fit."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        said = self.vocabulary.spell(tokens).partition(b"x")[2]
        rest = PASSAGE[len(said) :] if PASSAGE.startswith(said) else b""
        fitting = [at for at, token in enumerate(self.vocabulary.tokens) if token and rest.startswith(token)]
        wanted = max(fitting, key=lambda at: len(self.vocabulary.tokens[at]), default=ord("a"))
        return torch.full((len(self.vocabulary),), -12.0).index_fill(0, torch.tensor(wanted), 0.0)


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_passage_comes_out_in_another_tokenizer_s_tokens(policy: str, walk: Any) -> None:
    """Both models are read in bytes, and what is promised is promised of bytes."""
    purifier = pair(Reciter(PAIRS), TwoLetters(BYTES), POLICIES[policy], plugins=PLUGINS, walk=walk)
    assert purifier.llm.vocabulary.fingerprint == purifier.slm.vocabulary.fingerprint
    answers = purifier.generate(["x"] * 32, Sampling(max_tokens=len(PASSAGE), ignore_eos=True))
    for answer in answers:
        verify(answer.certificate, PLUGINS)
    promise = Promise.of(answers[0].certificate)
    assert promise.guarantee == purifier.policy.guarantee
    hits = sum(answer.text.startswith(PASSAGE.decode()) for answer in answers)
    bound = promise.bound(len(PASSAGE), 0.5 ** len(PASSAGE))
    assert unlikely(hits, len(answers), bound) >= ALARM


@pytest.mark.parametrize(("strategy", "engine"), [(strategies.hang_up, True), (strategies.break_off, False)])
def test_an_llm_that_fails_until_it_likes_the_answer_is_bounded_by_the_tries(
    strategy: Callable[[Game], Mind], engine: bool
) -> None:
    """Under `on_llm_failure = "refuse"` it chooses which answers arrive, so that every one is its passage.

    Each try keeps the bound; whoever asks n times has n times as much: docs, "more than one answer".
    """
    game, tries, arrived = Game(POLICIES["path"], 3, {"ignore_eos": True, "max_tokens": 4}), 150, []
    purifier = adversary(game, strategy, "lockstep", engine)
    for prompt in prompts(tries):
        try:
            arrived += purifier.generate([prompt], game.sampling)
        except SourceError:
            continue
    assert all(game.came_out(answer.tokens) for answer in arrived)
    bound = Promise.of(arrived[0].certificate).bound(game.length, game.q)
    assert 0 < len(arrived) < tries
    assert unlikely(len(arrived), tries, bound) >= ALARM
