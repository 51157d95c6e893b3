"""What two tokenizers cost, and what drafts give back: `python docs/bytes.py --llm FILE --slm FILE`.

The LLM alone is transformers' `generate`; beside it, in turn, the pair purified in bytes: in lockstep, and
with drafts of the SLM. An SLM in llama.cpp's format is run twice: in torch, and quantised by llama.cpp.
Speeds are bytes of text a second, since each side has tokens of its own. For real models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.designs import Decoding, Design, Generating, Stopwatch, WritingTask
from purify_hooks.evaluation.bench.models import BenchModels
from purify_hooks.evaluation.bench.settings import CLOCKS, MODES, Clock
from purify_hooks.evaluation.bench.vocabulary import threads
from purify_hooks.evaluation.eval.page import load as busy
from purify_hooks.evaluation.eval.page import machine, today
from purify_hooks.evaluation.eval.statistics import rotated
from purify_hooks.evaluation.table import Table
from purify_hooks.local.loading import find_gguf
from purify_hooks.local.packed import plain_copy
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.errors import PurifyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Session
from purify_plugins.sources.wrapper import SessionWrapper, TranslatedSource
from purify_plugins.testbed import attacks

WIDTHS = (1, 2, 4, 8)
"""Tokens of a pass that are timed."""
STEPS = 7


class Timed(TranslatedSource):
    """A source that counts its sessions' passes after the prompt, their tokens and their seconds."""

    def __init__(self, source: Any, clock: Clock) -> None:
        self.source, self.clock = source, clock
        self.reset()

    def reset(self) -> None:
        self.passes = self.tokens = 0
        self.seconds = 0.0

    def open(self, prompts: Any, scored: int = 0) -> tuple[Session, Any]:
        begun = self.clock()
        session, logits = self.source.open(prompts, scored)
        self.seconds += self.clock() - begun
        return TimedSession(self, session), logits

    def timed(self, read: Any, tokens: Any, *more: Any) -> Any:
        begun = self.clock()
        logits = read(tokens, *more)
        self.seconds += self.clock() - begun
        self.passes, self.tokens = self.passes + 1, self.tokens + tokens.shape[1]
        return logits


class TimedSession(SessionWrapper):
    def __init__(self, source: Timed, session: Session) -> None:
        self.source, self.session = source, session

    def extend(self, tokens: Any) -> Any:
        return self.source.timed(self.session.extend, tokens)

    def branch(self, tokens: Any, seen: Any) -> Any:
        return self.source.timed(self.session.branch, tokens, seen)


class Answer(NamedTuple):
    """One answer: its bytes, tokens of the LLM and seconds; passes, their tokens and seconds of both."""

    size: int
    tokens: int
    seconds: float
    llm: tuple[int, int, float]
    slm: tuple[int, int, float]


class Pair(NamedTuple):
    """The LLM, one SLM, and the designs that are compared."""

    name: str
    llm: Timed
    slm: Timed
    purifier: Counting
    designs: dict[str, Design]


def pass_times(source: Any, clock: Clock) -> list[float]:
    """Milliseconds of a pass over each of WIDTHS tokens, medians taken in turn."""
    found: dict[int, list[float]] = {width: [] for width in WIDTHS}
    session, _ = source.open(["The king said to his daughter, who was"])
    with session:
        for _ in range(STEPS):
            for width in WIDTHS:
                begun = clock()
                session.extend(torch.full((1, width), 400))
                found[width].append(1e3 * (clock() - begun))
                session.rewind(torch.zeros(1, dtype=torch.long))
    return [median(times) for times in found.values()]


def pairs(given: Any, clock: Clock) -> Iterator[Pair]:
    """The LLM with the SLM in torch and, where it is a GGUF file, with the SLM in llama.cpp."""
    plugins = load_plugins([])
    llm = plugins.source(given.llm)
    alone = Generating(BenchModels(llm, None, plain_copy(llm.model)))
    slms: dict[str, Any] = {"torch": given.slm}
    if find_gguf(Path(given.slm)):
        slms["llama.cpp"] = {"source": "gguf", "model": given.slm}
    for name, slm in slms.items():
        timed = Timed(llm, clock), Timed(plugins.source(slm), clock)
        purifier = Counting(*timed, plugins.policy(given.policy, {}), plugins=plugins)
        ours = {"lockstep": Decoding(purifier, lockstep), "drafts": Decoding(purifier, speculative)}
        yield Pair(name, *timed, purifier, {"LLM alone": alone, **ours})


def written(pair: Pair, name: str, text: str, tokens: int, temperature: float, clock: Clock) -> Answer:
    """One answer by one design."""
    llm, alone = pair.llm.source, name == "LLM alone"
    for side in (pair.llm, pair.slm):
        side.reset()
    watch = Stopwatch(clock)
    [answer] = pair.designs[name](
        WritingTask([llm.encode(text) if alone else text], tokens, temperature), watch
    )
    seconds = watch.seconds
    spelled = (llm.vocabulary if alone else pair.purifier.vocabulary).spell(answer)
    own = len(llm.encode(spelled.decode(errors="replace")))
    sides = ((each.passes, each.tokens, each.seconds) for each in (pair.llm, pair.slm))
    return Answer(len(spelled), own, seconds, *sides)


def measured(pair: Pair, given: Any, mode: str, clock: Clock) -> dict[str, list[Answer]]:
    """Every design's answers, in turn; the first prompt's are a warm-up."""
    found: dict[str, list[Answer]] = {name: [] for name in pair.designs}
    texts = list(islice(cycle(attacks().clean), given.rounds + 1))
    for turn, text in enumerate(texts):
        for name in rotated(list(pair.designs), turn):
            answer = written(pair, name, text, given.tokens, MODES[mode], clock)
            found[name] += [answer] if turn else []
            print(pair.name, mode, name, answer, file=sys.stderr, flush=True)
    return found


def row(pair: Pair, mode: str, name: str, answers: Sequence[Answer], alone: Sequence[Answer]) -> list[str]:
    """A design's figures in Markdown's columns."""
    size, tokens, seconds = (sum(each[at] for each in answers) for at in range(3))
    theirs = sum(each.size for each in alone) / sum(each.seconds for each in alone)
    (llm, read, large), (slm, _, small) = (
        [sum(each[side][at] for each in answers) for at in range(3)] for side in (3, 4)
    )
    ratios = sorted(a.size / a.seconds * b.seconds / b.size for a, b in zip(answers, alone, strict=True))
    return [
        *(pair.name, mode, name, f"{size / seconds / theirs:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"),
        *(f"{size / seconds:.1f}", f"{llm / tokens:.2f}", f"{read / max(llm, 1):.1f}", f"{slm / tokens:.2f}"),
        *(f"{large / seconds:.0%}", f"{small / seconds:.0%}"),
    ]


COLUMNS = (
    *("SLM in", "mode", "design", "vs LLM alone", "bytes/s", "LLM passes per its token", "tokens a pass"),
    *("SLM passes per LLM token", "time in the LLM", "in the SLM"),
)


def report(given: Any, clock: Clock) -> Iterator[str]:
    """The tables so far, after each setting."""
    costs: list[list[str]] = []
    rows: list[list[str]] = []
    for pair in pairs(given, clock):
        for name, side in (("LLM, torch", pair.llm), (f"SLM, {pair.name}", pair.slm)):
            if name not in [each[0] for each in costs]:
                costs.append([name, *(f"{time:.0f}" for time in pass_times(side.source, clock))])
        for mode in given.modes:
            found = measured(pair, given, mode, clock)
            rows += [
                row(pair, mode, name, answers, found["LLM alone"])
                for name, answers in found.items()
                if name != "LLM alone"
            ]
            widths = ["ms of a pass over", *(f"{width} tokens" for width in WIDTHS)]
            tables = Table("What a pass costs", widths, costs), Table("Speed", COLUMNS, rows)
            yield "\n\n".join(each.markdown for each in tables) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--llm", required=True)
    parser.add_argument("--slm", required=True)
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    text = ""
    with threads(given.threads), suppress(KeyboardInterrupt):
        for text in report(given, CLOCKS[given.clock]):
            print(text, flush=True)
    note = (
        f"\n{Path(given.llm).name} and {Path(given.slm).name}, {given.policy}, {today()}, {machine()}, "
        f"{busy()}, {given.clock} time, {given.rounds} answers of {given.tokens} tokens.\n"
    )
    print(text + note)


if __name__ == "__main__":
    try:
        main()
    except PurifyError as error:
        sys.exit(f"error: {error}")
