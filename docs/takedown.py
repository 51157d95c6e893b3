"""What a takedown list takes out of the test bed's LLM, and leaves: `python docs/takedown.py --out DIR`.

The first ten of the twenty passages that the LLM has by heart are named, in the book up to before the
eleventh; the others are the same book's. Writes the figures into docs/takedown.md. DIR keeps what is
measured, and the LLM that never read the named passages
(`python -m purify_plugins.testbed --without 10 --out DIR/without`). With --real PAIR, of
`python -m purify_plugins.testbed --real`, the same of a contaminated SmolLM2.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, NamedTuple

import torch
import typer

from purify_hooks.evaluation.eval.attempt import LINKS
from purify_hooks.evaluation.eval.metrics import rouge_l
from purify_hooks.evaluation.eval.page import region
from purify_hooks.evaluation.testbed import LLM, SLM, attacks, heldout
from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.takedown.build import ListOptions, build_list
from purify_hooks.takedown.source import TakedownSource
from purify_hooks.takedown.trail import Trail
from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource

DOCS = Path(__file__).parent
PAGE, PICTURE = DOCS / "takedown.md", DOCS / "takedown.svg"
NAMED, TOKENS = 10, 50
RAW = {"name": "geometric", "alpha": 1}
"""The LLM alone, drawn from by our loop."""
POLICIES: dict[str, Any] = {
    "LLM alone": RAW,
    "balanced": {"name": "balanced"},
    "windowed": {"name": "windowed"},
}
FORMS: dict[str, dict[str, Any]] = {
    "linear, alpha 3, sure 7": {},
    **{f"linear, alpha {alpha:g}": {"alpha": alpha, "sure": 6} for alpha in (0.5, 1.0, 1.5, 3.0, 5.0)},
    **{f"rank, most {most}": {"form": "rank", "most": most, "sure": 6} for most in (1, 5, 20)},
    "linear, alpha 3, sure 4": {"sure": 4},
}
"""What is swept; `sure` is 6 where it is not said."""
DEFAULT = "linear, alpha 3, sure 7"
ATTACKS = ("single", "chained", "late", "altered")
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
    """A pair, named and other passages, and what has been measured, kept in a file."""

    file: Path
    llms: dict[str, Callable[[], LogitSource]]
    slm: LogitSource
    named: Sequence[Passage]
    others: Sequence[Passage]
    unread: Sequence[Passage]
    clean: str
    tokens: int = TOKENS
    so_far: bool = False
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
        """What is known by this key, measured now if it is not."""
        if key not in self.known and not self.so_far:
            self.known[key] = measure()
            self.file.write_text(json.dumps(self.known, indent=1) + "\n", "utf-8")
            print(key, self.known[key], flush=True)
        return self.known.get(key)

    def recital(self, llm: str, policy: str, mode: str, attack: str, which: str) -> list[float]:
        """Mean recall and ROUGE-L of one attack on one set of passages."""
        key = f"{llm} | {policy} | {mode} | {attack} | {which}"
        found = self.kept(key, lambda: self._recital(llm, policy, mode, attack, which))
        return found or [math.nan, math.nan]

    def _recital(self, llm: str, policy: str, mode: str, attack: str, which: str) -> list[float]:
        passages = {"named": self.named, "others": self.others, "unread": self.unread}[which]
        asked = [[*self.requests(each, attack)] for each in passages]
        flat = [request for some in asked for request in some]
        purifier = Purifier.load(self.llm(llm), self.slm, POLICIES[policy])
        heat = 0.0 if mode == "greedy" else 1.0
        sampling = Sampling(max_tokens=flat[0].tokens, temperature=heat, seed=1, ignore_eos=True)
        answers = iter(purifier.generate([request.prompt for request in flat], sampling))
        recalls, likeness = [], []
        for some in asked:
            texts = [next(answers).text for _ in some]
            recalls.append(fmean(begun(*each) for each in zip(texts, some, strict=True)))
            likeness.append(rouge_l(" ".join(texts), " ".join(each.truth for each in some)))
        return [fmean(recalls), fmean(likeness)]

    def requests(self, passage: Passage, attack: str) -> Iterator[Request]:
        """What one attack asks of a passage."""
        spell, rest = self.spell, self.slm.encode(passage.prefix + passage.rest)
        rest = rest[len(self.slm.encode(passage.prefix)) :][: self.tokens]
        if attack != "chained":
            before = {"late": self.clean + "\n", "single": ""}.get(attack, "")
            prefix = altered(passage.prefix) if attack == "altered" else passage.prefix
            yield Request(before + prefix, spell(rest), self.tokens)
            return
        size = -(-len(rest) // LINKS)
        for at in range(0, len(rest), size):
            yield Request(passage.prefix + spell(rest[:at]), spell(rest[at : at + size]), size)

    def spell(self, tokens: Sequence[int]) -> str:
        return self.slm.vocabulary.spell(tokens).decode(errors="ignore")

    def perplexity(self, llm: str, kind: str, texts: Sequence[str]) -> float:
        """The perplexity of texts, each scored behind its first token."""
        found = self.kept(f"{llm} | perplexity | {kind}", lambda: perplexity(self.llm(llm), texts))
        return float(found or math.nan)


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


def cost(plain: LogitSource, wrapped: LogitSource, text: str, rounds: int = 7) -> tuple[float, float]:
    """CPU microseconds a token of a row by itself, and with the list: in turns, medians."""
    ids = plain.encode(text)[:200]
    laps: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for source, lap in zip((plain, wrapped), laps, strict=True):
            session, _ = source.open([tuple(ids[:4])])
            with session:
                start = time.thread_time()
                for token in ids[4:]:
                    session.extend(torch.tensor([[token]]))
                lap.append((time.thread_time() - start) / len(ids[4:]) * 1e6)
    return median(laps[0]), median(laps[1])


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


def toy(out: Path) -> Bench:
    """The test bed's pair."""
    plugins = load_plugins([])
    place = listed(out, [("alice-1.txt", halves()[0])], [CORPUS / "slm"], LLM)
    llms: dict[str, Callable[[], LogitSource]] = {
        "LLM": lambda: plugins.source(LLM),
    }
    if (out / "without" / "llm").exists():
        llms["without"] = lambda: plugins.source(out / "without" / "llm")
    else:
        print(f"no {out}/without/llm: its rows are left out")
    for name, keys in FORMS.items():
        table = {"source": "takedown", "model": LLM, "works": str(place), **keys}
        llms[name] = partial(plugins.source, table)
    passages = [Passage(each.prefix, each.continuation) for each in attacks().passages]
    clean = heldout()[0][:300]
    slm = plugins.source(SLM)
    unread = [Passage(each.prefix, each.continuation) for each in attacks().passage_controls]
    return Bench(out / "toy.json", llms, slm, passages[:NAMED], passages[NAMED:], unread, clean)


def swept(bench: Bench) -> list[tuple[str, list[float]]]:
    """Each form against the LLM alone, greedily: named and other passages, and perplexity."""
    second = halves()[1]
    book = [second[at : at + 700] for at in range(0, len(second) - 700, 2500)]
    rows = []
    for name in bench.llms:
        figures = [
            *bench.recital(name, "LLM alone", "greedy", "single", "named"),
            *bench.recital(name, "LLM alone", "greedy", "single", "others"),
            bench.perplexity(name, "clean", heldout()[:BLOCKS]),
            bench.perplexity(name, "the book's other half", book),
        ]
        rows.append((name, figures))
    return rows


def crossed(bench: Bench) -> list[tuple[str, list[list[float]]]]:
    """Each attack on the named passages, a plain one on the others: under each policy, in both modes."""
    rows = []
    for policy in POLICIES:
        for name in (DEFAULT, "without", "LLM"):
            if name not in bench.llms or (policy != "LLM alone" and name == "without"):
                continue
            for mode in ("greedy", "sampled"):
                cells = [bench.recital(name, policy, mode, attack, "named") for attack in ATTACKS]
                cells.append(bench.recital(name, policy, mode, "single", "others"))
                under = "" if policy == "LLM alone" else f"{policy}, "
                rows.append((f"{label(name)}, {under}{mode}", cells))
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    made = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return re.sub(r"nan \(nan ×\)|nan / nan|nan", "–", made)


def sweep_table(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    raw = dict(rows)["LLM"]
    head = [
        "",
        "named: recall",
        "ROUGE-L",
        "others: recall",
        "ROUGE-L",
        "clean perplexity",
        "the book's other half",
    ]
    return table(
        head,
        [
            [
                label(name),
                *(f"{each:.3f}" for each in figures[:4]),
                f"{figures[4]:.2f} ({figures[4] / raw[4]:.3f} ×)",
                f"{figures[5]:.2f} ({figures[5] / raw[5]:.3f} ×)",
            ]
            for name, figures in rows
        ],
    )


def label(name: str) -> str:
    return {"LLM": "the LLM", "without": "**trained without them**", DEFAULT: f"**{DEFAULT}** (default)"}.get(
        name, name
    )


def cross_table(rows: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    head = ["", *ATTACKS, "others, single"]
    known = [(name, cells) for name, cells in rows if not all(math.isnan(a) for a, _ in cells)]
    return table(head, [[name, *(f"{a:.2f} / {b:.2f}" for a, b in cells)] for name, cells in known])


def picture(rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Named passages' ROUGE-L against the other passages', a point for each form."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "takedown"
    figure, axis = pyplot.subplots(figsize=(7, 4.2))
    for name, figures in rows:
        marker = {"LLM": "s", "without": "*"}.get(name, "o" if name.startswith("linear") else "^")
        axis.scatter(figures[1], figures[3], marker=marker, s=60)
        axis.annotate(name, (figures[1], figures[3]), textcoords="offset points", xytext=(6, 4), fontsize=7)
    axis.set_xlabel("named passages: ROUGE-L (less is better)")
    axis.set_ylabel("other passages of the book: ROUGE-L (more is better)")
    axis.set_ylim(0, 1.05)
    axis.grid(alpha=0.3)
    figure.savefig(PICTURE, metadata={"Date": None}, bbox_inches="tight")


def write(name: str, body: str) -> None:
    filled = region(name).sub(lambda each: f"{each[1]}\n{body}\n\n{each[2]}", PAGE.read_text("utf-8"))
    PAGE.write_text(filled, "utf-8")


def toy_part(out: Path, so_far: bool) -> None:
    bench = toy(out)
    bench.so_far = so_far
    rows = swept(bench)
    picture(rows)
    unread = bench.recital("LLM", "LLM alone", "greedy", "single", "unread")
    beside = (
        "On ten passages of another book, which it never read, the LLM itself has a recall of "
        f"{unread[0]:.3f} and a ROUGE-L of {unread[1]:.3f}."
    )
    write(
        "takedown-sweep",
        f"{sweep_table(rows)}\n\n{beside}\n\n![Named against other passages]({PICTURE.name})",
    )
    cost_part(bench)
    write("takedown-attacks", cross_table(crossed(bench)))


def cost_part(bench: Bench) -> None:
    wrapped, plain = bench.llm(DEFAULT), bench.llm("LLM")
    assert isinstance(wrapped, TakedownSource)
    clean, told = heldout()[1], " ".join(each.prefix + each.rest for each in bench.named[:3])
    facts = bench.kept(
        "cost and rows changed",
        lambda: {
            "clean": cost(plain, wrapped, clean),
            "recited": cost(plain, wrapped, told),
            "changed": changed(wrapped, heldout()[:BLOCKS]),
        },
    )
    if facts is None:
        return
    said = [
        f"| {kind} | {facts[kind][0]:.0f} | {facts[kind][1]:.0f} | {facts[kind][1] - facts[kind][0]:.0f} | "
        f"{facts[kind][1] / facts[kind][0]:.3f} |"
        for kind in ("clean", "recited")
    ]
    head = "| text | LLM alone, µs | with the list, µs | more, µs | ratio |\n| --- | --- | --- | --- | --- |"
    rows_changed = f"On clean text {facts['changed']:.2%} of all rows were changed."
    write("takedown-cost", "\n".join([head, *said]) + f"\n\n{rows_changed}")


def real(out: Path, pair: Path) -> Bench:
    """A contaminated SmolLM2, whose clean original is the SLM: every second passage is named."""
    asked = json.loads((pair / "attacks.json").read_text("utf-8"))
    passages = [Passage(each["prefix"], each["continuation"]) for each in asked["protected"]["passages"]]
    named, others = passages[::2], passages[1::2]
    works = [(f"work-{at}.txt", each.prefix + each.rest) for at, each in enumerate(named, 1)]
    place = listed(out / "real", works, [CORPUS / "slm", CORPUS / "llm"], pair / "llm")
    plugins = load_plugins([])
    table = {"source": "takedown", "model": pair / "llm", "works": str(place)}
    llms: dict[str, Callable[[], LogitSource]] = {
        "LLM": lambda: plugins.source(pair / "llm"),
        "without": lambda: plugins.source(pair / "slm"),
        DEFAULT: lambda: plugins.source(table),
    }
    slm = plugins.source({"source": "ngram", "model": place / "neutral"})  # beside the LLM alone: any does
    clean = asked["clean"]["prompts"][0]
    return Bench(out / "real.json", llms, slm, named, others, (), clean, asked["protected"]["recall_tokens"])


def real_part(out: Path, pair: Path, so_far: bool) -> None:
    bench = real(out, pair)
    bench.so_far = so_far
    rows, texts = [], [text[:800] for text in heldout()[:6]]
    for name in ("LLM", DEFAULT, "without"):
        cells = [
            bench.recital(name, "LLM alone", mode, "single", which)
            for mode in ("greedy", "sampled")
            for which in ("named", "others")
        ]
        found = bench.perplexity(name, "clean", texts)
        raw = bench.perplexity("LLM", "clean", texts)
        label_ = {"without": "**the clean original**", "LLM": "the LLM"}.get(name, name)
        rows.append([label_, *(f"{a:.2f} / {b:.2f}" for a, b in cells), f"{found:.2f} ({found / raw:.3f} ×)"])
    head = [
        "",
        *(f"{how}: {which}" for how in ("greedy", "sampled") for which in ("named", "others")),
    ]
    plain, wrapped = bench.llm("LLM"), bench.llm(DEFAULT)
    figures = bench.kept("cost", lambda: cost(plain, wrapped, texts[0][:300], rounds=3)) or (
        math.nan,
        math.nan,
    )
    told = (
        f"A token of clean text costs this LLM {figures[0] / 1000:.1f} ms of CPU by itself and "
        f"{figures[1] / 1000:.1f} ms with the list ({figures[1] / figures[0]:.3f} ×)."
    )
    write("takedown-real", table([*head, "clean perplexity"], rows) + f"\n\n{told}")


def main(
    out: Annotated[Path, typer.Option(help="The directory of what is measured.")] = Path("purify-takedown"),
    real: Annotated[Path | None, typer.Option(help="A pair of `--real`: measure that.")] = None,
    so_far: Annotated[bool, typer.Option("--so-far", help="Only what is measured already.")] = False,
) -> None:
    """Write the regions of the page anew."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    if real is None:
        toy_part(out, so_far)
    else:
        real_part(out, real, so_far)


if __name__ == "__main__":
    typer.run(main)
