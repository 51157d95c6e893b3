"""Write the figures of docs/forget.md: `python docs/forget.py [--pair DIRECTORY]`, else the test bed's pair.

Compiles 1,000 targets, compares the gate's scores of requests about targets with those of others, and asks
the pair for facts whose answers are targets.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import typer

from purify_hooks.evaluation.eval.asked import models_and_questions
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.stages.forget import Forget
from purify_hooks.stages.gate import windows
from purify_plugins import Purifier, Sampling
from purify_plugins.decode.likelihood import loglikelihoods
from purify_plugins.testbed import LLM, SLM
from purify_plugins.utils.spelling import spelling

DOCS = Path(__file__).parent
EXAMPLES = DOCS / "examples" / "forget"
PAGE = DOCS / "forget.md"
TARGETS = 1_000
TEXTS, WORDS = 12, 100
"""Held-out texts whose perplexity is compared, and words of each."""
TOKENS, LONG = 24, 5
"""Tokens of an answer, and letters of the words that are made targets."""


def listed(name: str, folder: Path = EXAMPLES) -> list[str]:
    """The lines of an example file."""
    lines = (folder / name).read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def invented(folder: Path) -> str:
    """A file of 1,000 invented names, each with an alias and an example."""
    rng, parts = random.Random(7), ["bal", "kem", "lor", "nid", "pos", "rut", "sav", "tiv", "zan", "dor"]
    words = " ".join(listed("targets.txt")).split()
    lines = []
    for _ in range(TARGETS):
        first, last = ("".join(rng.choices(parts, k=3)).title() for _ in range(2))
        lines += [f"{first} {last} | {first[0]}. {last}", f"    {' '.join(rng.choices(words, k=15))}"]
    (folder / "targets.txt").write_text("\n".join(lines), "utf-8")
    return str(folder / "targets.txt")


def compiled(targets: str, purifier: Purifier) -> float:
    """Seconds of CPU time from the file to a stage that answers, the least of three."""
    spent = []
    for _ in range(3):
        began = process_time()
        Forget(targets).bind(purifier.slm)
        spent.append(process_time() - began)
    return min(spent[1:])  # the vocabulary's tokens are spelled once


def gate(folder: Path) -> tuple[float, float, float]:
    """The gate's AUROC, and the mean strength that requests about targets and others keep."""
    found = Forget(str(folder / "targets.txt")).gate
    about, others = listed("requests.txt", folder), listed("others.txt", folder)
    near, far = ([found.score(windows(text)) for text in texts] for texts in (about, others))
    pairs = [(one > other) + (one == other) / 2 for one in near for other in far]
    left = [sum(found.strength([text]) for text in texts) / len(texts) for texts in (about, others)]
    return sum(pairs) / len(pairs), left[0], left[1]


def gated(kind: str, folder: Path) -> dict[str, str]:
    """The rows of the gate."""
    area, near, far = gate(folder)
    return {
        f"gate, {kind}: AUROC of 48 paraphrases against 60 others": f"{area:.3f}",
        f"gate, {kind}: mean strength that paraphrases keep, and others": f"{near:.2f}, {far:.2f}",
    }


@dataclass(frozen=True)
class Kept:
    """What is measured once, as JSON files of a directory; None: nothing is kept."""

    folder: Path | None

    def made(self, name: str, measure: Callable[[], Any]) -> Any:
        """What a file holds, else what is measured, and then kept."""
        if self.folder is None:
            return measure()
        file = self.folder / f"{name}.json"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(measure()), "utf-8")
        return json.loads(file.read_text("utf-8"))


def told(purifier: Purifier, folder: Path, prompts: Sequence[str], kept: Kept) -> tuple[int, int]:
    """Answers that hold one of the pair's own 40 commonest long words, before these are targets and then."""
    plain = purifier.replace(batch_size=32, sampling=Sampling(max_tokens=TOKENS, seed=0))
    written = kept.made("written", lambda: _answers(plain, prompts))
    words = Counter(word for text in written for word in spelling(text).split() if len(word) >= LONG)
    names = [word for word, _ in words.most_common(40)]
    (folder / "words.txt").write_text("\n".join(names), "utf-8")
    masked = plain.replace(stages=[Forget(str(folder / "words.txt"), far=0.99, near=1.0)])  # the mask alone
    after = kept.made("masked", lambda: _answers(masked, prompts))
    return sum(_holds(text, names) for text in written), sum(_holds(text, names) for text in after)


def _answers(purifier: Purifier, prompts: Sequence[str]) -> list[str]:
    return [each.text for each in purifier.generate(prompts, errors="raise")]


def _holds(text: str, names: Sequence[str]) -> bool:
    return any(f" {name}" in spelling(f" {text}") for name in names)


def perplexities(purifier: Purifier, targets: str, texts: Sequence[str]) -> tuple[float, float]:
    """The perplexity of held-out texts without the mask of 1,000 targets, and with it."""
    parts = [text.split()[:WORDS] for text in texts[:TEXTS]]
    pairs = [(" ".join(each[:20]), " " + " ".join(each[20:])) for each in parts]
    masked = purifier.for_request(constraints=[Forget(targets).denied])
    found = []
    for decoder in (purifier, masked):
        scores = loglikelihoods(decoder, pairs)
        nats = math.fsum(each.nats for each in scores)
        found.append(math.exp(-nats / sum(len(each.tokens) for each in scores)))
    return found[0], found[1]


def main(
    pair: Annotated[Path | None, typer.Option(help="A directory with llm and slm.")] = None,
    answers: int = 256,
    keep: Annotated[Path | None, typer.Option(help="A directory that keeps what models were asked.")] = None,
) -> None:
    """Measure, and write the region of the page."""
    kept = Kept(keep)
    llm, slm, name = (pair / "llm", pair / "slm", "the real pair") if pair else (LLM, SLM, "the test bed")
    own = (str(llm), str(slm), pair / "attacks.json") if pair else (None, None, None)
    questions = models_and_questions(*own, batch=32)[1]
    purifier = Purifier.load(llm, slm)
    with tempfile.TemporaryDirectory() as made:
        targets = invented(Path(made))
        seconds = compiled(targets, purifier)
        prompts = [" ".join(text.split()[:10]) for text in questions.heldout]
        prompts = (prompts * answers)[:answers]
        plain, masked = kept.made("perplexities", lambda: perplexities(purifier, targets, questions.heldout))
        before, after = told(purifier, Path(made), prompts, kept)
    rows = {
        "1,000 targets with aliases and examples, compiled: seconds of CPU time": f"{seconds:.2f}",
        **gated("fresh requests", EXAMPLES / "fresh"),
        **gated("requests that `far` and `near` were set with", EXAMPLES),
        f"of {answers} answers those that hold a target, without the mask and with it": f"{before}, {after}",
        "perplexity of held-out texts under 1,000 targets, over that without": f"{masked / plain:.4f}",
    }
    cells = {"what": "figure", "---": "---", **rows}
    table = "\n".join(f"| {what} | {figure} |" for what, figure in cells.items())
    command = "python docs/forget.py" + (f" --pair pair --answers {answers}" if pair else "")
    said = f"`{command}`, on {name}; {'; '.join(facts().values())}."
    fill_region(PAGE, "forget-real" if pair else "forget", f"{table}\n\n{said}\n")


if __name__ == "__main__":
    typer.run(main)
