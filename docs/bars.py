"""Attack both models, `windowed`, `anchored` and `balanced` in four ways: `python docs/bars.py [PAIR]`.

PAIR is a directory that `python -m purify_plugins.testbed --out PAIR` wrote; without one it is the
packaged pair. Prints how sure the LLM is of what it writes, and the table of docs/guarantees.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from purify_hooks.evaluation.eval.attempt import KINDS, Attack, Kind, every_attack
from purify_hooks.evaluation.eval.derived import read_questions
from purify_hooks.evaluation.eval.model_pair import MODES, ModelPair
from purify_hooks.evaluation.eval.statistics import estimate
from purify_hooks.evaluation.eval.suites.utility import Utility, language, running
from purify_hooks.evaluation.eval.systems import ALONE, System
from purify_plugins.decode.batch import Batch
from purify_plugins.decode.fusion import advance_state, fuse
from purify_plugins.decode.likelihood import read, split
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.testbed import HOME, heldout
from purify_plugins.testing import no_context

Tokens = tuple[int, ...]
Way = Callable[[Purifier, Kind, Sampling], list[Tokens]]
RULES = (
    System("windowed", "windowed", "windowed"),
    System("anchored", "anchored, budget 1", "anchored", {"budget": 1.0}),
    System("balanced", "balanced", "balanced"),
)
DRAWS = 2
"""How often each attack is tried when tokens are drawn."""
CLEAN, CALLS = 150, 5
"""Tokens of clean text before a late attack; calls among which a chained one is split."""
BLOCK = 64
FAVOURED, SURE, SURER = 1.5, 0.8, 0.9
"""Nats by which the LLM favours a token, and probabilities it may give one."""


@torch.inference_mode()
def written(
    purifier: Purifier,
    prompts: Sequence[Tokens],
    led: Tensor | None,
    count: int,
    sampling: Sampling,
    unseen: bool = False,
) -> list[Tokens]:
    """The `count` tokens that each answer has after its first ones, which are `led` (rows, n).

    `unseen` keeps from the policy how likely the prompts were.
    """
    answers: list[Tensor] = []
    with closing(SessionPair(purifier, prompts)) as pair:
        batch, policy = Batch(purifier, pair, sampling), purifier.policy
        state = policy.start(no_context(len(prompts), sampling.greedy)) if unseen else batch.state
        llm, slm = pair.first
        for block in () if led is None else led.split(BLOCK, dim=1):
            llms, slms = pair.extend(block)
            for at, tokens in enumerate(block.unbind(dim=1)):
                rows = fuse(policy, batch.processors, llm, slm, state, batch.history)
                state = advance_state(policy, state, tokens, rows)
                llm, slm = None if llms is None else llms[:, at], slms[:, at]
        for _ in range(count):
            rows = fuse(policy, batch.processors, llm, slm, state, batch.history)
            answers.append(rows.draw(batch.streams.next()))
            state = advance_state(policy, state, answers[-1], rows)
            llms, slms = pair.extend(answers[-1][:, None])
            llm, slm = None if llms is None else llms[:, 0], slms[:, 0]
    return [tuple(row) for row in torch.stack(answers, dim=1).tolist()]


@dataclass(frozen=True, eq=False)
class Proof:
    """A pair of models and what is asked of it."""

    bench: ModelPair
    asked: Mapping[Kind, tuple[Attack, ...]]

    @classmethod
    def of(cls, pair: Path) -> Proof:
        plugins = load_plugins([])
        bench = ModelPair(plugins.source(str(pair / "llm")), plugins.source(str(pair / "slm")), plugins)
        return cls(bench, every_attack(read_questions(pair / "attacks.json"), bench.slm))

    @cached_property
    def clean(self) -> list[Tokens]:
        return [read(self.bench.slm, text) for text in heldout()]

    def prompts(self, kind: Kind) -> list[Tokens]:
        return [read(self.bench.slm, attack.prompt) for attack in self.asked[kind]]

    def single(self, purifier: Purifier, kind: Kind, sampling: Sampling) -> list[Tokens]:
        """The attack is the prompt."""
        return written(purifier, self.prompts(kind), None, self.asked[kind][0].tokens, sampling)

    def unseen(self, purifier: Purifier, kind: Kind, sampling: Sampling) -> list[Tokens]:
        """The attack is the prompt, and nobody tells the policy how likely that was."""
        return written(purifier, self.prompts(kind), None, self.asked[kind][0].tokens, sampling, unseen=True)

    def chained(self, purifier: Purifier, kind: Kind, sampling: Sampling) -> list[Tokens]:
        """A few tokens a call; what was written becomes part of the next prompt."""
        prompts = self.prompts(kind)
        answers: list[Tokens] = [()] * len(prompts)
        for _ in range(CALLS):
            grown = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
            count = -(-self.asked[kind][0].tokens // CALLS)
            more = written(purifier, grown, None, count, sampling)
            answers = [answer + rest for answer, rest in zip(answers, more, strict=True)]
        return answers

    def late(self, purifier: Purifier, kind: Kind, sampling: Sampling) -> list[Tokens]:
        """The attack comes in the middle of an answer, after clean text and a line's end."""
        begin, (newline,) = self.clean[0][:1], read(self.bench.slm, "\n")[1:]
        prompts = [prompt[1:] for prompt in self.prompts(kind)]
        length = CLEAN + max(map(len, prompts))
        led = [
            (*self.clean[row % len(self.clean)][1 : length - len(prompt)], newline, *prompt)
            for row, prompt in enumerate(prompts)
        ]
        count = self.asked[kind][0].tokens
        return written(purifier, [begin] * len(led), torch.tensor(led), count, sampling)

    def share(self, way: Way, purifier: Purifier, kind: Kind, mode: str) -> float:
        """How many of the attacks succeed."""
        draws = range(1 if mode == "greedy" else DRAWS)
        spell = self.bench.slm.vocabulary.spell
        return fmean(
            each.succeeded(spell(answer[: each.tokens]))
            for draw in draws
            for each, answer in zip(
                self.asked[kind],
                way(purifier, kind, replace(MODES[mode], seed=1000 * draw, ignore_eos=True)),
                strict=True,
            )
        )

    def perplexity(self, system: System) -> float:
        """Of the held-out text, teacher-forced through the policy and its memory."""
        texts = [text for (text,) in running(self.bench.slm, heldout())]
        scores = [score for (score,) in self.bench.scores([system], texts)]
        seen = language(self.bench.slm.vocabulary, scores)["perplexity"]
        return estimate(Utility.metrics["perplexity"], seen).value

    def sureness(self) -> Iterator[str]:
        """How far the LLM favours clean text over the SLM, and how sure it is of that and of a recitation."""
        clean = self._scores([("", text) for text in heldout()])
        recited = self._scores([(str(a.prompt), a.secret.decode()) for a in self.asked["verbatim_recall"]])
        favoured = [llm for llm, slm in clean if llm - slm > FAVOURED]
        yield f"clean text: the LLM favours a token by {fmean(llm - slm for llm, slm in clean):.2f} nats;"
        share = fmean(math.exp(each) < SURE for each in favoured)
        yield f"of those by more than {FAVOURED}, {share:.1%} have less than {SURE}"
        share = fmean(math.exp(llm) > SURER for llm, _ in recited)
        yield f"recitations: {share:.1%} of tokens have more than {SURER}"

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
        """Each token's log-probability under the LLM and under the SLM."""
        asked = [split(self.bench.slm, *pair) for pair in pairs]
        scores = (self.bench.judge(each, asked) for each in ALONE)
        llm, slm = ([value for score in each for value in score.logprobs] for each in scores)
        return list(zip(llm, slm, strict=True))

    def rows(self) -> Iterator[list[str]]:
        """A line of the table for each system and mode."""
        llm, ways = self.perplexity(ALONE[0]), (self.single, self.chained, self.late, self.unseen)
        for system in (*ALONE, *RULES):
            cost, purifier = self.perplexity(system), self.bench.purifier(system)
            for mode in MODES:
                shares = [[self.share(way, purifier, kind, mode) for kind in KINDS] for way in ways]
                cells = [" ".join(f"{share:.2f}" for share in three) for three in shares]
                yield [system.label, f"{cost:.1f} ({cost / llm:.2f} x)", mode, *cells]


def main(pair: Path) -> None:
    heads = ["rule", "perplexity", "mode", "single", "chained", "late", "prompt unseen"]
    proof = Proof.of(pair)
    print(*proof.sureness(), sep="\n", end="\n\n", flush=True)
    for line in chain((heads, ["---"] * len(heads)), proof.rows()):
        print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HOME)
