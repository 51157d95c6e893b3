"""What a takedown list takes out of the test bed's LLM, and leaves: `python docs/takedown.py --out DIR`.

The first ten of the twenty passages that the LLM has by heart are named, in the book up to before the
eleventh; the others are the same book's. Writes the figures into docs/takedown.md. DIR keeps the answers and
what is measured, so that a run goes on where another one ended (--minutes), and the LLM that never read the
named passages (`python -m purify_plugins.testbed --without 10 --scale 0.5 --out DIR/without`). With --real
PAIR, of `python -m purify_plugins.testbed --real`, the same of a contaminated SmolLM2.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, NamedTuple

import takedown_page as page
import torch
import typer

from purify_hooks.evaluation.eval.attempt import LINKS
from purify_hooks.evaluation.eval.metrics import rouge_l
from purify_hooks.evaluation.testbed import LLM, SLM, attacks, heldout
from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.takedown.build import ListOptions, build_list
from purify_hooks.takedown.source import TakedownSource
from purify_hooks.takedown.trail import Trail
from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource

NAMED, TOKENS, DRAWS = 10, 50, 4
"""Passages that are named, tokens of an answer, and answers to a prompt in the sampled mode."""
ALONE = "LLM alone"
POLICIES: dict[str, Any] = {
    ALONE: {"name": "geometric", "alpha": 1},  # drawn by our loop
    "balanced": {"name": "balanced"},
    "windowed": {"name": "windowed"},
}
DEFAULT, SWAPPED = "linear, alpha 3, sure 7, ahead 32", "the default, the other half named"
FORMS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    **{f"alpha {alpha:g}": {"alpha": alpha} for alpha in (0.5, 1.0, 2.0, 5.0)},
    **{f"rank, most {most}": {"form": "rank", "most": most} for most in (1, 5, 20)},
    **{f"ahead {ahead}": {"ahead": ahead} for ahead in (1, 16, 64)},
    **{f"sure {sure}": {"sure": sure} for sure in (6, 4)},
}
"""What is swept: the default, and one key of it changed."""
ATTACKS, MODES = ("single", "chained", "late", "altered"), ("greedy", "sampled")
BLOCKS = 24
"""Runs of 256 tokens of clean text for perplexity."""


class Passage(NamedTuple):
    prefix: str
    rest: str


class Request(NamedTuple):
    """A prompt, the true text after it, and the tokens to draw."""

    prompt: str
    truth: str
    tokens: int


@dataclass
class Bench:
    """A pair, named and other passages, and what has been measured, kept in a file until the time is up."""

    file: Path
    llms: dict[str, Callable[[], LogitSource]]
    slms: Callable[[str], LogitSource]
    passages: dict[str, Sequence[Passage]]
    clean: str
    until: float
    tokens: int = TOKENS
    known: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, LogitSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.exists():
            self.known = json.loads(self.file.read_text("utf-8"))

    def llm(self, name: str) -> LogitSource:
        if name not in self.loaded:
            self.loaded[name] = self.llms[name]()
        return self.loaded[name]

    def kept(self, key: str, measure: Callable[[], Any]) -> Any:
        """What is known by this key, measured now if it is not and there is time; None: not known."""
        if key not in self.known and time.monotonic() < self.until:
            start = time.monotonic()
            self.known[key] = measure()
            self.file.write_text(json.dumps(self.known, indent=1) + "\n", "utf-8")
            print(f"{key}: {time.monotonic() - start:.0f} s", flush=True)
        return self.known.get(key)

    def recital(self, llm: str, policy: str, mode: str, attack: str, which: str) -> page.Recital | None:
        """Each passage's recall, ROUGE-L and ROUGE-L by chance, of one attack on one set of passages."""
        key = f"{llm} | {policy} | {mode} | {attack} | {which}"
        if llm not in self.llms:
            return None
        asked = [[*self.requests(each, attack)] for each in self.passages[which]]
        found = self.kept(key, lambda: self._answers(llm, policy, mode, asked))
        return None if found is None else scored(found, asked)

    def _answers(
        self, llm: str, policy: str, mode: str, asked: Sequence[Sequence[Request]]
    ) -> list[list[list[str]]]:
        """The answers to each passage's requests, drawn once or several times."""
        draws, heat = (1, 0.0) if mode == "greedy" else (DRAWS, 1.0)
        flat = [request for some in asked for _ in range(draws) for request in some]
        purifier = Purifier.load(self.llm(llm), self.slms(policy), POLICIES[policy])
        sampling = Sampling(max_tokens=flat[0].tokens, temperature=heat, seed=1, ignore_eos=True)
        answers = iter(purifier.generate([request.prompt for request in flat], sampling))
        return [[[next(answers).text for _ in some] for _ in range(draws)] for some in asked]

    def requests(self, passage: Passage, attack: str) -> Iterator[Request]:
        """What one attack asks of a passage."""
        slm = self.slms(ALONE)
        rest = slm.encode(passage.prefix + passage.rest)
        rest = rest[len(slm.encode(passage.prefix)) :][: self.tokens]
        spell = partial(spelled, slm)
        if attack != "chained":
            before = {"late": self.clean + "\n", "single": ""}.get(attack, "")
            prefix = altered(passage.prefix) if attack == "altered" else passage.prefix
            yield Request(before + prefix, spell(rest), self.tokens)
            return
        size = -(-len(rest) // LINKS)
        for at in range(0, len(rest), size):
            yield Request(passage.prefix + spell(rest[:at]), spell(rest[at : at + size]), size)

    def perplexity(self, llm: str, kind: str, texts: Sequence[str]) -> float:
        """The perplexity of texts, each scored behind its first token."""
        found = self.kept(f"{llm} | perplexity | {kind}", lambda: perplexity(self.llm(llm), texts))
        return float(found or math.nan)


def scored(answers: Sequence[Sequence[Sequence[str]]], asked: Sequence[Sequence[Request]]) -> page.Recital:
    """The figures of answers (passages, draws, requests); by chance is beside the other passages' texts."""
    truths = [" ".join(each.truth for each in some) for some in asked]
    recalls, likeness, chance = [], [], []
    for number, (drawn, some) in enumerate(zip(answers, asked, strict=True)):
        told = [" ".join(texts) for texts in drawn]
        recalls.append(fmean(begun(*each) for texts in drawn for each in zip(texts, some, strict=True)))
        likeness.append(fmean(rouge_l(text, truths[number]) for text in told))
        others = [truth for at, truth in enumerate(truths) if at != number]
        chance.append(fmean(rouge_l(text, truth) for text in told for truth in others))
    return page.Recital(recalls, likeness, chance)


def spelled(source: LogitSource, tokens: Sequence[int]) -> str:
    return source.vocabulary.spell(tokens).decode(errors="ignore")


def begun(answer: str, request: Request) -> float:
    """The share of the true text that the answer begins with."""
    text, truth = answer.lstrip(), request.truth.strip()
    return next(n for n in range(len(truth), -1, -1) if text.startswith(truth[:n])) / max(len(truth), 1)


def altered(prefix: str) -> str:
    """A prefix with every fourth word left out but the last two: asked from memory, not copied."""
    words = prefix.split(" ")
    return " ".join(word for at, word in enumerate(words) if at % 4 != 2 or at >= len(words) - 2)


def perplexity(llm: LogitSource, texts: Sequence[str]) -> float:
    nats, count = 0.0, 0
    for text in texts:
        ids = llm.encode(text)
        session, first = llm.open([tuple(ids[:1])])
        with session:
            rows = torch.cat([first[:, None], session.extend(torch.tensor([ids[1:-1]]))], dim=1)[0]
        scores = rows.float().log_softmax(-1)[torch.arange(len(rows)), torch.tensor(ids[1:])]
        nats, count = nats - float(scores.sum()), count + len(rows)
    return math.exp(nats / count)


def changed(llm: TakedownSource, texts: Sequence[str]) -> float:
    """The share of rows that are changed along texts."""
    found: list[bool] = []
    for text in texts:
        ids = llm.encode(text)
        found += [change is not None for change in Trail(llm.anchor, ids, len(ids)).changes]
    return fmean(found)


def cost(plain: LogitSource, wrapped: LogitSource, text: str, tokens: int, rounds: int) -> dict[str, float]:
    """CPU microseconds a token of a row by itself and with the list, and their ratio: medians of turns."""
    ids = plain.encode(text)[: tokens + 4]
    laps: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for source, lap in zip((plain, wrapped), laps, strict=True):
            session, _ = source.open([tuple(ids[:4])])
            with session:
                start = time.thread_time()
                for token in ids[4:]:
                    session.extend(torch.tensor([[token]]))
                lap.append((time.thread_time() - start) / len(ids[4:]) * 1e6)
    ratios = [more / less for less, more in zip(*laps, strict=True)]
    return {"alone": median(laps[0]), "with": median(laps[1]), "ratio": median(ratios), "turns": rounds}


def costs(bench: Bench, tokens: int, rounds: int) -> dict[str, Any] | None:
    """What the list costs on clean text and on a recited one, and the rows that it changes of clean text."""
    wrapped, plain = bench.llm(DEFAULT), bench.llm("LLM")
    assert isinstance(wrapped, TakedownSource)
    told = " ".join(each.prefix + each.rest for each in bench.passages["named"][:3])
    for kind, text in (("clean", heldout()[1]), ("recited", told)):
        bench.kept(f"cost, {kind}", partial(cost, plain, wrapped, text, tokens, rounds))
    bench.kept("rows changed", lambda: changed(wrapped, heldout()[:BLOCKS]))
    return {kind: bench.known.get(kind) for kind in ("cost, clean", "cost, recited", "rows changed")}


def quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


def listed(out: Path, works: Sequence[tuple[str, str]], neutral: Sequence[Path], tokenizer: Path) -> Path:
    """A list in the directory `out`, built unless it is there."""
    if not (out / "list").exists():
        (out / "texts").mkdir(parents=True, exist_ok=True)
        for name, text in works:
            (out / "texts" / name).write_text(text, "utf-8")
        build_list(ListOptions([out / "texts"], neutral, str(tokenizer), out / "list"), quiet)
    return out / "list"


def halves() -> tuple[str, str]:
    """The book up to before the eleventh passage, and from there on."""
    book = (CORPUS / "protected" / "alice-in-wonderland.txt").read_text("utf-8")
    at = book.rindex("\n", 0, book.index(attacks().passages[NAMED].prefix))
    return book[:at], book[at:]


def toy(out: Path, until: float) -> Bench:
    """The test bed's pair."""
    plugins = load_plugins([])
    place = listed(out, [("alice-1.txt", halves()[0])], [CORPUS / "slm"], LLM)
    swapped = listed(out / "swapped", [("alice-2.txt", halves()[1])], [CORPUS / "slm"], LLM)
    around = {"source": "takedown", "model": LLM}
    llms: dict[str, Callable[[], LogitSource]] = {"LLM": partial(plugins.source, LLM)}
    if (out / "without" / "llm").exists():
        llms["without"] = partial(plugins.source, out / "without" / "llm")
    else:
        print(f"no {out}/without/llm: its rows are left out")
    for name, keys in FORMS.items():
        llms[name] = partial(plugins.source, {**around, "works": str(place), **keys})
    llms[SWAPPED] = partial(plugins.source, {**around, "works": str(swapped)})
    passages = [Passage(each.prefix, each.continuation) for each in attacks().passages]
    unread = [Passage(each.prefix, each.continuation) for each in attacks().passage_controls]
    sets = {"named": passages[:NAMED], "others": passages[NAMED:], "unread": unread}
    slm = plugins.source(SLM)
    return Bench(out / "toy.json", llms, lambda _: slm, sets, heldout()[0][:300], until)


def swept(bench: Bench) -> Iterator[page.Swept]:
    """Each form against the LLM alone, greedily: named and other passages, and perplexity."""
    pieces = [[half[at : at + 700] for at in range(0, len(half) - 700, 2500)] for half in halves()]
    raw = None
    for name in ("LLM", "without", *FORMS, SWAPPED):
        if name not in bench.llms:
            continue
        named, others, book = ("others", "named", 0) if name == SWAPPED else ("named", "others", 1)
        kind = ("the book's first half", "the book's other half")[book]
        row = page.Swept(
            name,
            bench.recital(name, ALONE, "greedy", "single", named),
            bench.recital(name, ALONE, "greedy", "single", others),
            bench.perplexity(name, "clean", heldout()[:BLOCKS]),
            bench.perplexity(name, kind, pieces[book]) / bench.perplexity("LLM", kind, pieces[book]),
        )
        raw = raw or row.clean
        yield row._replace(ratio=row.clean / raw)


def crossed(
    bench: Bench, policies: Sequence[str], tried: Sequence[str]
) -> Iterator[tuple[str, str, str, list[page.Recital | None]]]:
    """Each attack on the named passages, a plain one on the others: LLM, policy, mode and figures."""
    for policy in policies:
        for name in (DEFAULT, "without", "LLM"):
            for mode in MODES if name in bench.llms else ():
                cells = [bench.recital(name, policy, mode, attack, "named") for attack in tried]
                cells.append(bench.recital(name, policy, mode, "single", "others"))
                yield name, policy, mode, cells


def toy_part(out: Path, until: float) -> None:
    bench = toy(out, until)
    rows = [*swept(bench)]
    unread = bench.recital("LLM", ALONE, "greedy", "single", "unread")
    page.write("takedown-sweep", page.sweep(rows, unread))
    page.write("takedown-cost", page.costs(costs(bench, 120, 15)))
    page.write("takedown-attacks", page.attacked(ATTACKS, [*crossed(bench, [*POLICIES], ATTACKS)]))


def real(out: Path, pair: Path, until: float) -> Bench:
    """A contaminated SmolLM2, whose clean original is the SLM: every second passage is named."""
    asked = json.loads((pair / "attacks.json").read_text("utf-8"))
    passages = [Passage(each["prefix"], each["continuation"]) for each in asked["protected"]["passages"]]
    works = [(f"work-{at}.txt", each.prefix + each.rest) for at, each in enumerate(passages[::2], 1)]
    inside = [each for each in passages[1::2] if any(each.prefix + each.rest in text for _, text in works)]
    named, others = [*passages[::2], *inside], [each for each in passages[1::2] if each not in inside]
    place = listed(out / "real", works, [CORPUS / "slm"], pair / "llm")
    plugins = load_plugins([])
    table = {"source": "takedown", "model": pair / "llm", "works": str(place)}
    llms: dict[str, Callable[[], LogitSource]] = {
        "LLM": partial(plugins.source, pair / "llm"),
        "without": partial(plugins.source, pair / "slm"),
        DEFAULT: partial(plugins.source, table),
    }
    beside = plugins.source({"source": "ngram", "model": place / "neutral"})  # the LLM alone: any does

    def slms(policy: str) -> LogitSource:
        return beside if policy == ALONE else bench.llm("without")

    sets, clean = {"named": named, "others": others}, asked["clean"]["prompts"][0]
    tokens = asked["protected"]["recall_tokens"]
    bench = Bench(out / "real.json", llms, slms, sets, clean, until, tokens)
    return bench


def real_part(out: Path, pair: Path, until: float) -> None:
    bench, texts = real(out, pair, until), [text[:800] for text in heldout()[:6]]
    found = {name: bench.perplexity(name, "clean", texts) for name in ("LLM", DEFAULT, "without")}
    told = page.costs(costs(bench, 40, 5))
    rows = [*crossed(bench, [ALONE], ("single",))]
    rows += crossed(bench, ["balanced"], ("single",))
    page.write("takedown-real", page.real(rows, found, told))


def main(
    out: Annotated[Path, typer.Option(help="The directory of what is measured.")] = Path("purify-takedown"),
    real: Annotated[Path | None, typer.Option(help="A pair of `--real`: measure that.")] = None,
    minutes: Annotated[
        float, typer.Option(help="Begin no more measurements after so long; 0: only what is known.")
    ] = 1e6,
) -> None:
    """Write the regions of the page anew."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    if real is None:
        toy_part(out, until)
    else:
        real_part(out, real, until)


if __name__ == "__main__":
    typer.run(main)
