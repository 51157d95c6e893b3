"""Answers and their certificates stay what they were, whatever moves in the house.

`python -m tests.test_pinned` writes `tests/data/pinned.json` anew; do so only where a change is meant to
change answers, and say in the changelog that it does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_hooks.local.source import LocalSource
from purify_plugins import Completion, Purifier, Sampling
from purify_plugins.canonical_json import canonical
from purify_plugins.grammar import Grammar
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities, LogitSource
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.testing import ToySession, ToySource, letters
from purify_plugins.types import Prompt, Vocabulary

PINNED = Path(__file__).parent / "data" / "pinned.json"
ABC = letters("abcdefghijklmnop")
PROMPTS = ("abba", "face", "jig")
WORDED = {"limits", "digest", "columns", "totals", "steps"}
"""What a digest leaves out of a certificate: advice, and figures whose last places are a machine's own."""
METHOD = (
    "policy",
    "parameters",
    "sampling",
    "mode",
    "walk",
    "edits",
    "draws",
    "claimed",
    "guarantee",
    "adversary",
)
TOTALS = ("log_ratio", "kl", "largest_peak", "surprisal")


@dataclass(frozen=True)
class Steady(ToySource):
    """A toy whose logits are sixteen-bit fractions: the same on every machine, and hardly ever a tie."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        asked = repr((self.seed, *tokens[-self.order :])).encode()
        made = hashlib.shake_256(asked).digest(2 * len(self.vocabulary))
        numbers = [int.from_bytes(made[at : at + 2], "big") for at in range(0, len(made), 2)]
        return torch.tensor(numbers, dtype=torch.float32) / 2**13


@dataclass(frozen=True)
class Drafting(Steady):
    """A toy that says it is behind a server which drafts what the server likes best."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, len(self.vocabulary), True, scores_draft=False, streams_rows=True)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[DraftingSession, Tensor]:
        session = DraftingSession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])


class DraftingSession(ToySession):
    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        drafts = [self._likes(row, min(limit, 3)) for row in self.rows]
        return [draft if at in live else [0] * len(draft) for at, draft in enumerate(drafts)]

    def _likes(self, row: Sequence[int], length: int) -> list[int]:
        drafted: list[int] = []
        for _ in range(length):
            drafted.append(int(self.source.logits([*row, *drafted]).argmax()))
        return drafted


def merging(*longer: bytes) -> Vocabulary:
    """Every byte, longer tokens, and an end."""
    tokens = (*(bytes([byte]) for byte in range(256)), *longer)
    return Vocabulary((*tokens, b""), frozenset({len(tokens)}), {len(tokens): "<end>"})


Ask = Callable[[], list[Completion]]


def ask(
    llm: LogitSource,
    policy: Any,
    sampling: Sampling,
    rows: int = 1,
    slm: LogitSource | None = None,
    **options: Any,
) -> list[Completion]:
    """The answers to the first `rows` prompts."""
    plugins = load_plugins([])
    slm = Steady(llm.vocabulary, 2) if slm is None else slm
    purifier = Purifier(llm, slm, plugins.policy(policy), plugins=plugins, **options)
    return purifier.generate(PROMPTS[:rows], sampling)


POLICIES = (
    {"name": "balanced", "budget": 2.0},
    "windowed",
    {"name": "capped", "total": 3.0},
    "anchored",
    {"name": "geometric", "alpha": 0.5},
    "minimum",
    "linear",
    "cp_fuse",
    {"name": "consistency", "policy": {"name": "windowed"}},
    "contrastive",
)
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 5},
    {"top_p": 0.9, "repetition_penalty": 1.2},
    {"min_p": 0.05, "frequency_penalty": 0.3, "ignore_eos": True},
    {"stop": ("g", "ca")},
)


def toy_answers() -> Iterator[tuple[str, Ask]]:
    """Ten policies by three walks; batch sizes, ways of drawing and seeds take turns."""
    ways, sizes = cycle(WAYS), cycle((1, 3))
    for seed, (policy, walk) in enumerate(product(POLICIES, ("lockstep", "speculative", "readahead"))):
        llm, rows = (Drafting if walk == "readahead" else Steady)(ABC, 1), next(sizes)
        sampling = Sampling(max_tokens=12, seed=seed, **next(ways))
        name = policy["name"] if isinstance(policy, Mapping) else policy
        yield f"{name}, {walk}, {rows} at once", partial(ask, llm, policy, sampling, rows, walk=walk)


def grammar_answers() -> Iterator[tuple[str, Ask]]:
    grammars = Grammar("regex", "(ab|ba|cad)+"), Grammar("lark", 'start: ("a" | "b")~3 "c"?')
    for grammar, walk in product(grammars, ("lockstep", "speculative")):
        sampling = Sampling(max_tokens=9, seed=7, grammar=grammar)
        yield f"{grammar.kind}, {walk}", partial(ask, Steady(ABC, 1), "balanced", sampling, 2, walk=walk)


def bridged_answers() -> Iterator[tuple[str, Ask]]:
    """Two tokenizers, in each alphabet that they may meet in."""
    llm, slm = Steady(merging(b"ab", b"ba", b"the"), 1), Steady(merging(b"bb", b"the"), 2)
    for alignment, policy in product(("bytes", "common_tokens"), ("balanced", "geometric")):
        sampling = Sampling(max_tokens=8, seed=3)
        asked = partial(ask, llm, policy, sampling, 2, slm, alignment=alignment, walk="lockstep")
        yield f"{alignment}, {policy}", asked


TESTBED = ("it was the best of", "the sea was")


@cache
def loaded(folder: Path) -> LocalSource:
    return LocalSource.load(folder, dtype="float32", device="cpu")


def written(slm: Path, policy: str, walk: Any) -> list[Completion]:
    """Greedy answers of the test bed's models: what they like best they like by more than rounding."""
    plugins = load_plugins([])
    purifier = Purifier(loaded(LLM), loaded(slm), plugins.policy(policy), plugins=plugins, walk=walk)
    return purifier.generate(TESTBED, Sampling(max_tokens=8, temperature=0))


def of_the_testbed() -> Iterator[tuple[str, Ask]]:
    for walk, policy in product(("lockstep", "speculative"), ("geometric", "balanced")):
        yield f"test bed, {policy}, {walk}", partial(written, SLM, policy, walk)
        yield f"test bed, two tokenizers, {policy}, {walk}", partial(written, SLM_1024, policy, walk)


CASES: dict[str, Ask] = dict([*toy_answers(), *grammar_answers(), *bridged_answers(), *of_the_testbed()])


def pin(answers: Sequence[Completion]) -> dict[str, Any]:
    """A digest of all that is the same on every machine, and the totals."""
    said = [
        [
            answer.text,
            answer.tokens,
            answer.finish_reason,
            [step.slm_only for step in answer.steps],
            certified(answer.certificate.body),
        ]
        for answer in answers
    ]
    return {
        "text": [answer.text for answer in answers],
        "digest": hashlib.sha256(canonical({"said": said}).encode()).hexdigest(),
        "totals": [[answer.certificate.body["totals"][name] for name in TOTALS] for answer in answers],
    }


def certified(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a certificate says, versions and wording aside."""
    kept = {name: body[name] for name in body if name not in WORDED}
    return {**kept, "method": {name: body["method"][name] for name in METHOD}}


@pytest.fixture(scope="module")
def pinned() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PINNED.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", CASES)
def test_an_answer_and_its_certificate_are_what_they_were(name: str, pinned: Mapping[str, Any]) -> None:
    found, known = pin(CASES[name]()), pinned[name]
    assert found["text"] == known["text"]
    assert found["digest"] == known["digest"]
    for figures, told in zip(found["totals"], known["totals"], strict=True):
        assert [*map(float, figures)] == pytest.approx([*map(float, told)], abs=2e-3)


def test_every_pinned_answer_is_asked_for(pinned: Mapping[str, Any]) -> None:
    assert pinned.keys() == CASES.keys()
    assert len(CASES) >= 40


def test_what_is_pinned_differs_from_case_to_case(pinned: Mapping[str, Any]) -> None:
    assert len({each["digest"] for each in pinned.values()}) == len(CASES)


if __name__ == "__main__":
    os.environ.update(PURIFY_SECRET="the secret of tests, which anybody may know", OMP_NUM_THREADS="1")
    found = {name: pin(asked()) for name, asked in CASES.items()}
    PINNED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
