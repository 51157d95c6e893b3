"""What request stages cost: `python docs/stage_costs.py --before PYTHON [--rounds 21]`.

Prints, and writes into docs/stages.md, the CPU time of an answer without stages beside that of a commit from
before there were any, which is installed in PYTHON's environment; of the release of a token, with checks and
a vault; and of candidates that are drawn together beside as many plain answers. Rounds alternate: what else
the machine does falls on both.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from purify_hooks.evaluation.eval.page import fill_region, load, made
from purify_hooks.evaluation.eval.statistics import Spread, spread
from purify_hooks.evaluation.table import Table
from purify_hooks.stages.ensemble import Ensemble
from purify_plugins import Purifier, Sampling
from purify_plugins.stages.matches import PatternCheck, WordCheck, WordPattern
from purify_plugins.stages.release import Release
from purify_plugins.stages.windows import Windows
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Piece, Token

PAGE = Path(__file__).parent / "stages.md"
PROMPTS = (
    "Once upon a time there was",
    "The king had a daughter",
    "In the forest lived",
    "A poor miller had",
)
N, K = 4, len(PROMPTS)
TEXTS = (1_000, 10_000)
"""Tokens of the texts that are released."""
ROUND = """
import sys, time
from purify_plugins import Purifier, Sampling
from purify_plugins.testbed import LLM, SLM
purifier = Purifier.load(str(LLM), str(SLM))
how = Sampling(temperature=0, max_tokens=24, ignore_eos=True)
for _ in sys.stdin:
    started = time.process_time()
    purifier.generate(["Once upon a time there was", "The king had a daughter"], how)
    print(time.process_time() - started, flush=True)
"""
"""Two rows, greedy: the CPU seconds of each line that is sent."""


class Installed:
    """A process that answers with what is installed in an environment."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, "-P", "-c", ROUND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def round(self) -> float:
        """CPU seconds of a round."""
        assert self.process.stdin is not None  # they are pipes
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def paired(one: Callable[[], float], other: Callable[[], float], rounds: int) -> Spread:
    """The quartiles of `one` over `other`, round by round after one to warm up; each begins in turn."""
    ratios = []
    for turn in range(-1, rounds):
        first, second = (one, other) if turn % 2 else (other, one)
        found = [first(), second()]
        mine, theirs = found if turn % 2 else reversed(found)
        ratios += [mine / theirs] if turn >= 0 else []
    return spread(ratios)


def without_stages(before: str, rounds: int) -> Spread:
    """CPU time of an answer without stages, over that of the environment of `before`."""
    now, then = Installed(sys.executable), Installed(before)
    try:
        return paired(now.round, then.round, rounds)
    finally:
        for each in (now, then):
            each.process.kill()
            each.process.wait()


class Names:
    """A vault of names, none of which is there."""

    def __init__(self, names: Sequence[str]) -> None:
        self.pattern, self.longest = re.compile("|".join(names)), max(map(len, names))

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        found = self.pattern.search(text, start)
        return (found.start(), found.end(), found[0], "x") if found else None


class Nothing:
    """A classifier that finds nothing."""

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [0.0] * len(texts)


def releasing(tokens: int, rounds: int) -> Spread:
    """Microseconds of CPU time a token: three checks and a vault of 100 names, a text of so many tokens."""
    words = ["".join(random.Random(at).choices("etaoinshrdlu", k=6)) for at in range(tokens)]
    listed = WordPattern(f"{word}q" for word in words[:2000])
    pattern, names = re.compile(r"\b\d{4}-\d{4}\b"), Names([f"{word}q" for word in words[:100]])
    steps = [Token(at, 0.0, 0.0, 0.0, 0.0, 0.0) for at in range(tokens)]
    pieces = [Piece(step, f"{word} ") for step, word in zip(steps, words, strict=True)]
    found = []
    for _ in range(rounds):
        release = Release([WordCheck(listed), PatternCheck(pattern), Windows(Nothing())], names)
        started = time.process_time()
        for piece in pieces:
            release.feed((piece,))
        release.feed((), last=True)
        found.append(1e6 * (time.process_time() - started) / tokens)
    return spread(found)


def together(rounds: int) -> Spread:
    """Throughput of `ensemble(n)` on k prompts, over `generate` on n * k prompts: sampled, CPU time."""
    plain = Purifier.load(str(LLM), str(SLM))
    best = plain.replace(stages=[Ensemble(n=N)])
    how = Sampling(max_tokens=24, seed=0, ignore_eos=True)

    def timed(purifier: Purifier, prompts: Sequence[str]) -> float:
        started = time.process_time()
        purifier.generate(list(prompts), how)
        return time.process_time() - started

    return paired(lambda: timed(plain, PROMPTS * N), lambda: timed(best, PROMPTS), rounds)


def costs(before: str, commit: str, rounds: int) -> Iterator[tuple[str, str, str, str]]:
    """Each cost, its median and quartiles, its bar, and whether it is kept."""
    for tokens in TEXTS:
        yield _row(f"releasing a token of {tokens:,}, µs of CPU time", releasing(tokens, rounds // 2), 1, 50)
    what = f"{N} candidates of {K} prompts: throughput over that of {N * K} plain answers"
    yield _row(what, together(rounds // 2), 2, 0.9)
    what = f"no stages: CPU time of two greedy rows, over that at {commit}"
    yield _row(what, without_stages(before, rounds), 3, 1.01)


def _row(what: str, found: Spread, places: int, bar: float) -> tuple[str, str, str, str]:
    low, middle, high = (f"{each:.{places}f}" for each in found)
    kept = found.middle >= bar if bar < 1 else found.middle <= bar
    words = f"{'at least' if bar < 1 else 'at most'} {bar:g}"
    return what, f"{middle} ({low}-{high})", words, "yes" if kept else "no"


def main(
    before: Annotated[str, typer.Option(help="The Python of an environment from before there were stages.")],
    commit: Annotated[str, typer.Option(help="What is installed there.")] = "d69db69",
    rounds: Annotated[int, typer.Option(min=21, help="Paired rounds; half for candidates.")] = 21,
) -> None:
    """Write the region of the page anew."""
    command = f"`OMP_NUM_THREADS=1 python docs/stage_costs.py --before PYTHON --rounds {rounds}`"
    facts = "; ".join([*made().values(), load()])
    told = f"{command}, on the test bed's pair (toys), PYTHON with commit {commit}; {facts}."
    rows = []
    for row in costs(before, commit, rounds):
        typer.echo(" | ".join(row))
        rows.append(row)
    table = Table("What request stages cost", ("what", "median (quartiles)", "bar", "kept"), rows)
    text = f"{table.markdown}\n\n{told}\n"
    fill_region(PAGE, "stage-costs", f"\n{text}\n")


if __name__ == "__main__":
    typer.run(main)
