"""Whether the SLM should read true values where the LLM reads surrogates: `python docs/truth.py PAIR`.

PAIR is a directory with `llm` and `slm`, such as `python -m purify_plugins.testbed --real --out PAIR` writes.
Two ways are compared under `balanced`, the LLM reading surrogates in both: the SLM reads them too, or it
reads the truth and its distribution is pushed forward: a true name's mass moves to its surrogate, and once
that is written the SLM reads on after the true name. Every row along a reference answer is exact. Prints the
figures of docs/redacted.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import typer
from torch import Tensor

from purify_plugins import Chat, Purifier, Sampling
from purify_plugins.decode.decoder import Decoder
from purify_plugins.decode.fusion import advance_state, fuse, start_state
from purify_plugins.decode.likelihood import read
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.replay import columns
from purify_plugins.decode.row import Row
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource

NAMES = {"Ada Quillane": "Eva Stone", "Bruno Vandermoor": "Karl Winter", "Celia Tescari": "Nora Fields"}
RECORD = "Record: the patient {name} was treated for asthma at the Northgate Clinic in 2001.\n\n{asked}"
ANSWERS = {
    "Who is the patient?": "The patient is {name}, who was treated for asthma.",
    "Write one sentence to the patient.": "Dear {name}, we hope that you are well.",
}
DRAWS, TOKENS = 6, 24


def prompt(name: str, asked: str) -> Chat:
    return Chat(({"role": "user", "content": RECORD.format(name=name, asked=asked)},))


@dataclass(frozen=True)
class Truth:
    """The SLM reading true names, pushed forward: its rows along an answer with the surrogate."""

    slm: LogitSource
    asked: tuple[int, ...]
    name: tuple[int, ...]
    surrogate: tuple[int, ...]

    def rows(self, before: Sequence[int], after: Sequence[int]) -> list[Tensor]:
        """Rows (V,) of log-probabilities before each token of before + surrogate + after."""
        plain = self._read(self.asked, (*before, *self.name, *after))
        literal = self._read((*self.asked, *before), self.surrogate)
        found = [self._moved(plain[at], before[:at]) for at in range(len(before) + 1)]
        mass = math.exp(self._name_after(before))
        told = 1.0
        for at, token in enumerate(self.surrogate[:-1]):
            told *= float(literal[at][token].exp())
            row = literal[at + 1].exp() * told
            row[self.surrogate[at + 1]] += mass
            found.append((row / row.sum()).log())
        start = len(before) + len(self.name)
        done = (*before, *self.name)
        return [*found, *(self._moved(plain[start + at], (*done, *after[:at])) for at in range(len(after)))]

    def _moved(self, row: Tensor, written: Sequence[int]) -> Tensor:
        """A row with the mass of the whole name at the surrogate's first token instead of its own."""
        if float(row[self.name[0]]) < math.log(1e-4):
            return row
        moved, mass = row.exp(), math.exp(self._name_after(written))
        moved[self.name[0]] -= min(mass, float(moved[self.name[0]]))
        moved[self.surrogate[0]] += mass
        return moved.log()

    def _name_after(self, written: Sequence[int]) -> float:
        rows = self._read((*self.asked, *written), self.name)
        return sum(float(row[token]) for row, token in zip(rows, self.name, strict=False))

    def _read(self, prompt: tuple[int, ...], answer: Sequence[int]) -> list[Tensor]:
        session, first = self.slm.open([prompt])
        with session:
            rows = [first[0], *session.extend(torch.tensor([list(answer)]))[0]]
        return [torch.log_softmax(row.float(), -1) for row in rows]


@torch.inference_mode()
def forced(
    decoder: Decoder, row: Row, answer: Sequence[int], ours: Sequence[Tensor] | None
) -> tuple[list[float], list[Tensor]]:
    """The fused log-probability of each token and the rows; `ours` stand in for the SLM's rows."""
    processors = LogitsProcessors(Sampling(), decoder.vocabulary)
    nats, fused = [], []
    with closing(SessionPair(decoder, [row])) as pair:
        state = start_state(decoder.policy, pair.context(False))
        for at, (tokens, llm, slm) in enumerate(columns(pair, [answer])):
            slm = slm if ours is None else ours[at][None]
            rows = fuse(decoder.policy, processors, llm, slm, state, [(pair.prompts[0], ())])
            nats.append(float(rows.logprobs(tokens)[0, 2]))
            fused.append(torch.log_softmax(rows.fused[0], -1))
            state = advance_state(decoder.policy, state, tokens, rows)
    return nats, fused


def mentions(text: str, name: str) -> tuple[bool, bool]:
    """Whether a text has the whole name, and whether it has a part of it beside that."""
    rest = text.casefold().replace(name.casefold(), "")
    return name in text, any(part in rest for part in name.casefold().split())


def main(pair: Path) -> None:
    """Print the comparison."""
    plugins = load_plugins(())
    llm, slm = (plugins.source(str(pair / side)) for side in ("llm", "slm"))
    decoder = Decoder(llm, slm, plugins.policy("balanced").bind(slm.vocabulary))
    right: dict[str, list[float]] = {"surrogate": [], "truth": []}
    other: dict[str, list[float]] = {"surrogate": [], "truth": []}
    raw: dict[str, list[float]] = {"surrogate": [], "truth": []}
    for name, shown in NAMES.items():
        for asked, said in ANSWERS.items():
            first, last = said.split(" {name}")
            before, after = read(slm, first), read(slm, last)
            true, veiled = read(slm, f" {name}"), read(slm, f" {shown}")
            answer, part = (*before, *veiled, *after), slice(len(before), len(before) + len(veiled))
            session, _ = slm.open([prompt(name, asked)])
            session.close()
            truth = Truth(slm, tuple(session.prompts[0].tokens), true, veiled)
            with torch.inference_mode():
                ours = truth.rows(before, after)
            same = prompt(shown, asked)
            for way, row, rows in (
                ("surrogate", Row(same), None),
                ("truth", Row(prompt(name, asked), same), ours),
            ):
                nats, fused = forced(decoder, row, answer, rows)
                right[way].append(math.exp(sum(nats[part])))
                other[way] += [each for at, each in enumerate(nats) if not part.start <= at < part.stop]
                raw[way].append(sum(float(each[true[0]].exp()) for each in fused))
    print("way        right name  perplexity of the rest  true name begun, an answer")
    for way in right:
        perplexity = math.exp(-fmean(other[way]))
        print(f"{way:10} {fmean(right[way]):10.3f}  {perplexity:22.2f}  {fmean(raw[way]):26.4f}")
    alone = Purifier(slm, slm, plugins.policy("geometric"))
    asked = [prompt(name, each) for name in NAMES for each in ANSWERS for _ in range(DRAWS)]
    found = alone.generate(asked, Sampling(max_tokens=TOKENS, seed=0), errors="raise")
    names = [name for name in NAMES for _ in ANSWERS for _ in range(DRAWS)]
    counts = [mentions(each.text, name) for each, name in zip(found, names, strict=True)]
    print(f"{len(counts)} answers of the SLM: {sum(whole for whole, _ in counts)} with the whole name,")
    print(f"{sum(part for _, part in counts)} with a part of it beside that")


if __name__ == "__main__":
    typer.run(main)
