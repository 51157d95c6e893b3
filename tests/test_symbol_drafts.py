"""Drafts in symbols smaller than tokens: they end where a token of the SLM's does, and change no law."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from purify_plugins import Purifier, Sampling
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.draft_size import DraftSize
from purify_plugins.decode.drafts import DraftRows, SlmDrafts
from purify_plugins.decode.replay import replay
from purify_plugins.testing import ToySource
from purify_plugins.tokenizers.cross.source import SymbolSource
from tests.test_bridge import BYTES, LLM, SHORT, SLM, VOCABULARY, Enumerated, spelling
from tests.test_tokenizer_pairs import ASKED, foreign
from tests.toys import both, pair


class Chosen(DraftLength):
    """Drafts of so many tokens of the SLM's, whatever they cost; `seen` is what was observed."""

    def __init__(self, tokens: int, unit: int = 4) -> None:
        super().__init__(unit=unit)
        self.chosen, self.seen = tokens, list[tuple[int, float, float]]()

    def length(self, remaining: int = sys.maxsize) -> int:
        return min(remaining, self.chosen)

    def observe(self, position: int, tried: float, accepted: float) -> None:
        self.seen.append((position, tried, accepted))


def crossed(tokens: int, **options: Any) -> Purifier:
    """The test bed's LLM with an SLM of another tokenizer, drafting so many of its tokens."""
    purifier = pair(both()[0], foreign(), "geometric", **options)
    length = Chosen(tokens)
    purifier.draft_lengths.of = lambda *_: length  # type: ignore[method-assign]  # not by the clock
    return purifier


@cache
def law() -> dict[tuple[int, ...], float]:
    """Every answer of at most three bytes, and its probability under the fused rows, by enumeration."""
    slow = pair(Enumerated(LLM), Enumerated(SLM), "windowed")
    endings = [bytes(text) for n in range(4) for text in product(b"ab", repeat=n)]
    answers = [(*text, *[256] * (len(text) < 3)) for text in endings]
    read = [replay(slow, [(0,)], [answer])[0] for answer in answers]
    masses = [math.exp(math.fsum(token.fused for token in row)) for row in read]
    return dict(zip(answers, masses, strict=True))


def fitting(tokens: int, batch_size: int, draws: int) -> float:
    """The p-value of the counts of so many drawn answers, by a test of chi-square."""
    models = (SymbolSource(each, BYTES, 0) for each in (LLM, SLM))
    purifier = pair(*models, "windowed", walk="speculative", batch_size=batch_size)
    purifier.draft_lengths.of = lambda *_: Chosen(tokens)  # type: ignore[method-assign]  # not by the clock
    drawn = Counter(completion.tokens for completion in purifier.generate([(-2,)] * draws, SHORT))
    assert drawn.keys() <= law().keys()
    expected = numpy.array(list(law().values()))
    return float(chisquare([drawn[each] for each in law()], expected * draws / expected.sum()).pvalue)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("tokens", "batch_size"),
    [(2, 200), pytest.param(0, 200, marks=SLOW), pytest.param(1, 200, marks=SLOW)],
)
def test_tokens_drafted_in_bytes_have_the_enumerated_law(tokens: int, batch_size: int) -> None:
    assert fitting(tokens, batch_size, 500) > 1e-3


@pytest.mark.parametrize("tokens", [pytest.param(0, marks=SLOW), 1, pytest.param(3, marks=SLOW)])
def test_a_draft_ends_where_a_token_of_the_slms_does(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or where the answer does; it takes no more passes than tokens, and the first rest of a token none."""
    ends: list[tuple[bool, int]] = []
    draft = SlmDrafts._draft

    def noted(self: SlmDrafts, pending: Tensor | None, length: int) -> DraftRows:
        if pending is not None:
            self._step(pending)  # which the draft itself then finds read
            self.pair.slm.rewind(torch.tensor([len(self.batch.answers[0]) - 1]))
        before = self.pair.slm.reader.calls  # type: ignore[attr-defined]  # a session in symbols
        found = draft(self, pending, length)
        asks = not found.tokens or self.pair.slm.asks(found.tokens[-1]) == 1.0
        whole = asks or len(found.tokens) == self.batch.remaining - 1
        ends.append((whole, self.pair.slm.reader.calls - before))  # type: ignore[attr-defined]  # as above
        return found

    monkeypatch.setattr(SlmDrafts, "_draft", noted)
    crossed(tokens, walk="speculative").generate(ASKED, Sampling(max_tokens=20, temperature=0))
    assert len(ends) > 4
    assert all(whole and passes <= tokens for whole, passes in ends)


def test_drafts_of_whole_tokens_spare_the_llm_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: dict[int, int] = {}
    texts: dict[int, str] = {}
    for tokens in (0, 3):
        sessions: list[Any] = []
        purifier = crossed(tokens, walk="speculative")
        opened = SymbolSource.open

        def noted(
            source: SymbolSource,
            prompts: Sequence[Any],
            scored: int = 0,
            *,
            llm: Any = purifier.llm,
            opened: Any = opened,
            sessions: list[Any] = sessions,
        ) -> Any:
            session, rows = opened(source, prompts, scored)
            sessions.extend([session] if source is llm else [])
            return session, rows

        with monkeypatch.context() as patch:
            patch.setattr(SymbolSource, "open", noted)
            texts[tokens] = purifier.generate(ASKED, Sampling(max_tokens=30, temperature=0))[0].text
        passes[tokens] = sum(session.reader.calls for session in sessions)
    assert texts[0] == texts[3]
    assert passes[3] < 0.8 * passes[0]


class Scripted:
    """A session that needs a pass for the symbols named."""

    def __init__(self, *asking: int) -> None:
        self.asking = asking

    def asks(self, tokens: Tensor) -> float:
        return float(int(tokens) in self.asking)


def drafted(size: DraftSize, most: int = 20) -> int:
    """How many symbols 0, 1, 2, ... the draft has."""
    symbols: list[Tensor] = []
    while size.goes_on(symbols) and len(symbols) < most:
        symbols.append(torch.tensor([[len(symbols)]]))
    return len(symbols)


@pytest.mark.parametrize(("tokens", "symbols"), [(0, 2), (1, 5), (2, 8), (3, 9)])
def test_a_draft_has_the_rest_of_a_token_and_as_many_more(tokens: int, symbols: int) -> None:
    """Symbols 1, 4 and 7 end a token; the answer has room for nine."""
    size = DraftSize(Chosen(tokens), tokens, Scripted(1, 4, 7), most=9)  # type: ignore[arg-type]  # asks only
    assert drafted(size) == symbols


@pytest.mark.parametrize(
    ("accepted", "seen"),
    [(1, [(0, 1, 0)]), (5, [(0, 1, 1), (1, 1, 0)]), (6, [(0, 1, 1), (1, 1, 0)]), (8, [(0, 1, 1), (1, 1, 1)])],
)
def test_a_token_is_accepted_if_all_its_symbols_are(
    accepted: int, seen: list[tuple[int, float, float]]
) -> None:
    length = Chosen(2)
    size = DraftSize(length, 2, Scripted(1, 4, 7), most=20)  # type: ignore[arg-type]  # asks only
    assert drafted(size) == 8
    for at in range(min(accepted + 1, 8)):
        size.observe(at, 1, int(at < accepted))
    assert length.seen == seen


def test_of_a_token_in_which_the_answer_ended_nothing_is_said() -> None:
    length = Chosen(2)
    size = DraftSize(length, 2, Scripted(1, 4, 7), most=20)  # type: ignore[arg-type]  # asks only
    drafted(size)
    for at, tried in enumerate([1, 1, 0]):
        size.observe(at, tried, tried)
    assert not length.seen


def test_a_fixed_length_counts_symbols() -> None:
    """A seeded answer must not depend on where the SLM's tokens end in the rows beside it."""
    size = DraftSize(DraftLength(2, unit=4), 8, Scripted(1), most=20)  # type: ignore[arg-type]  # asks only
    assert drafted(size) == 8


@pytest.mark.parametrize("rows", [1, 8])
def test_answers_that_end_in_a_draft_are_answers(rows: int) -> None:
    """Of an ended row nothing is asked: 14 of 20 answers, and every batch, were an IndexError."""
    symbols = replace(BYTES, per_token=4.0)
    models = (SymbolSource(ToySource(VOCABULARY, seed, sharpness=0.5), symbols, 0.03) for seed in (1, 2))
    purifier = pair(*models, walk="speculative", batch_size=rows)
    purifier.draft_lengths.of = lambda *_: Chosen(3)  # type: ignore[method-assign]  # not by the clock
    reasons = Counter(
        completion.finish_reason
        for prompt in range(1, 5)
        for completion in purifier.generate([(-2,) * prompt] * rows, Sampling(max_tokens=12))
    )
    assert reasons["eos"] > 0
    assert reasons.total() == 4 * rows


def test_an_slm_reads_no_symbol_of_a_copy_that_it_cannot_spell_and_that_is_not_drawn() -> None:
    """The prompt goes on with a "c" after the last "abba"; the SLM has no token with one."""
    llm, slm = Spelling(spelling("a", "b", "c", "ab"), 1), Spelling(spelling("a", "b", "ab", "bb"), 2)
    greedy = Sampling(max_tokens=12, temperature=0, ignore_eos=True)
    answers = [
        pair(*(SymbolSource(each, BYTES, 0.03) for each in (llm, slm)), walk=walk).generate(
            "abbacabbaabbacabba", greedy
        )
        for walk in ("lockstep", "speculative")
    ]
    assert answers[0][0].text == answers[1][0].text


@dataclass(frozen=True)
class Spelling(ToySource):
    """A toy that reads text letter by letter; a letter without a token is a control token."""

    encodes = True

    def encode(self, prompt: Any) -> tuple[int, ...]:
        if isinstance(prompt, tuple):
            return prompt
        ids = {text: at for at, text in enumerate(self.vocabulary.tokens) if text}
        return tuple(ids.get(bytes([letter]), min(self.vocabulary.control)) for letter in prompt.encode())
