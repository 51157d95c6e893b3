"""One game: what is to come out, from whom, how often it does, and what the certificates said of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor

from purify_plugins.certificates import verify
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.replay import score
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.policy import FusionPolicy, State
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.testing import ToySource, letters, no_context
from purify_plugins.types import Completion, Vocabulary
from tests.adversary.models import Mind, Served, Tokens, View, Weights
from tests.adversary.promise import ALARM, Promise, unlikely
from tests.toys import pair

ABC = letters("abc")
CODE, CONTEXT = 6, (2, 0, 1)
"""A prompt begins with six letters that say which row of the batch it is, and ends with "cab"."""


@dataclass(frozen=True)
class Remembering(ToySource):
    """A toy that is asked the same things thousands of times."""

    sharpness: float = 1.0

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return _logits(self, tuple(tokens[-self.order :]))


@cache
def _logits(source: ToySource, context: Tokens) -> Tensor:
    return ToySource.logits(source, context)


PLUGINS = load_plugins()
SLM = Remembering(ABC, 9)


def flat(alphabet: str) -> Remembering:
    """An SLM to which all letters are alike."""
    return Remembering(letters(alphabet), sharpness=0.0)


def prompts(rows: int, vocabulary: Vocabulary = ABC) -> list[Tokens]:
    """As many different prompts, all alike to the SLM."""
    codes = product(range(len(vocabulary) - 1), repeat=CODE)
    return [(*code, *CONTEXT) for code in islice(codes, rows)]


@dataclass(frozen=True)
class Game:
    """A policy, settings, and a passage that the LLM wants after the answer's first `place` tokens.

    It is what `passage` begins with, else the SLM's second choices, as the settings shape its rows.
    """

    policy: Any
    length: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    slm: ToySource = SLM
    passage: str = ""
    place: int = 0

    @cached_property
    def sampling(self) -> Sampling:
        return Sampling(**{"max_tokens": self.place + self.length, **self.settings})

    @cached_property
    def chosen(self) -> FusionPolicy:
        policy: FusionPolicy = PLUGINS.policy(self.policy)
        return policy

    @cached_property
    def target(self) -> Tokens:
        if self.passage:
            return self.slm.encode(self.passage)[: self.length]
        answer: Tokens = ()
        for _ in range(self.length):
            row = self.likely(CONTEXT, answer)
            row[sorted(self.slm.vocabulary.eos)] = 0.0
            answer = (*answer, int(row.topk(2).indices[1]))
        return answer

    @cached_property
    def q(self) -> float:
        """What the SLM gives the passage, under the same settings."""
        return math.exp(math.fsum(score(self.slm, CONTEXT, self.target, self.sampling)[: self.length]))

    def likely(self, prompt: Tokens, answer: Tokens) -> Tensor:
        """The SLM's probabilities (V,) as the settings shape them."""
        logits = self.slm.logits((*prompt, *answer))[None]
        weights, _ = LogitsProcessors(self.sampling, self.slm.vocabulary).process(
            logits, [(prompt, answer)], "the SLM"
        )
        return weights[0].softmax(-1)

    def wanted(self, view: View) -> int | None:
        """The passage's next token; None where it has not begun, is lost or is over."""
        written = view.answer[self.place :]
        on_track = len(view.answer) >= self.place and written == self.target[: len(written)]
        return self.target[len(written)] if on_track and len(written) < self.length else None

    def lost(self, view: View) -> bool:
        """Whether something else was drawn."""
        written = view.answer[self.place :][: self.length]
        return written != self.target[: len(written)]

    def came_out(self, answer: Tokens) -> bool:
        return answer[self.place : self.place + self.length] == self.target


class Shadow:
    """The loop as an adversary runs it at home: the policy's memory and the fused row after any answer."""

    def __init__(self, game: Game, mind: Mind) -> None:
        self.game, self.mind = game, mind
        self.shape = LogitsProcessors(game.sampling, game.slm.vocabulary)
        self.states: dict[tuple[Tokens, Tokens], State] = {}

    def state(self, prompt: Tokens, answer: Tokens) -> State:
        """The policy's memory after `answer`, to which the adversary's own rows led."""
        if (prompt, answer) not in self.states:
            self.states[prompt, answer] = self._after(prompt, answer)
        return self.states[prompt, answer]

    def _after(self, prompt: Tokens, answer: Tokens) -> State:
        if not answer:
            return self.game.chosen.start(no_context(1))
        before = answer[:-1]
        rows = self.fused(prompt, before, self.mind(View(prompt, before))[None])
        return advance_state(self.game.chosen, self.state(prompt, before), torch.tensor(answer[-1:]), rows)

    def fused(self, prompt: Tokens, answer: Tokens, rows: Tensor) -> FusedLogits:
        """What would become of each of these rows (n, V), were it shown after `answer`."""
        slm = self.game.slm.logits((*prompt, *answer)).expand(len(rows), -1)
        state = tuple(each.expand(len(rows), *each.shape[1:]) for each in self.state(prompt, answer))
        return fuse(self.game.chosen, self.shape, rows, slm, state, [(prompt, answer)] * len(rows))


@dataclass(frozen=True)
class Played:
    """How often the passage came out, and what the certificates promised of that."""

    game: Game
    purifier: Purifier
    answers: Sequence[Completion]

    @property
    def hits(self) -> int:
        return sum(self.game.came_out(answer.tokens) for answer in self.answers)

    @property
    def method(self) -> Mapping[str, Any]:
        """What the certificates say of how the answers were made; the same in all of them."""
        method: Mapping[str, Any] = self.answers[0].certificate.body["method"]
        return method

    @property
    def claim(self) -> tuple[str, str]:
        """The guarantee, and the adversary whom it holds against."""
        return claim(self.answers[0])

    @property
    def bound(self) -> float:
        return Promise.of(self.answers[0].certificate).bound(self.game.length, self.game.q)

    @property
    def p_value(self) -> float:
        return unlikely(self.hits, len(self.answers), self.bound)

    def __str__(self) -> str:
        share, (guarantee, adversary) = self.hits / len(self.answers), self.claim
        promised = f"{guarantee!r} against {adversary!r} promises {self.bound:.3g}"
        way = f"{self.method['policy']}, {self.method['walk']}"
        return f"{way}: {share:.3f} of {len(self.answers)}; {promised}"


def claim(answer: Completion) -> tuple[str, str]:
    """What an answer's certificate claims, and against whom."""
    method = answer.certificate.body["method"]
    return method["guarantee"], method["adversary"]


def adversary(
    game: Game, strategy: Callable[[Game], Mind], walk: str, engine: bool, **options: Any
) -> Purifier:
    """A purifier whose LLM is an engine, or weights in this process, that plays the game.

    `options` are the purifier's, and `scores`, what an engine says of every token of a prompt.
    """
    scores = options.pop("scores", None)
    mind = strategy(game)
    weights = Weights(game.slm, mind, CODE + len(CONTEXT))
    llm = Served(game.slm.vocabulary, mind, walk == "readahead", scores) if engine else weights
    purifier = pair(llm, game.slm, game.policy, plugins=PLUGINS, walk=walk, batch_size=10_000, **options)
    purifier.draft_lengths.of = lambda *_: DraftLength(fixed=3)  # type: ignore[method-assign]  # the machine must not choose
    return purifier


def play(game: Game, purifier: Purifier, draws: int) -> Played:
    """Ask for so many answers, in one batch."""
    asked = prompts(draws, game.slm.vocabulary)
    return Played(game, purifier, purifier.generate(asked, game.sampling))


LADDER = ("none", "weights", "engine")
"""Whom a guarantee holds against, the weakest first."""


def judge(played: Played, adversary: str) -> None:
    """Fail unless certificates are in order, and the count is one that they may have promised against this.

    A certificate that names a weaker adversary, or none, has promised nothing of it.
    """
    for answer in played.answers:
        verify(answer.certificate, played.purifier.plugins)
        assert claim(answer) == played.claim
    if LADDER.index(played.claim[1]) >= LADDER.index(adversary):
        assert played.p_value >= ALARM, str(played)
