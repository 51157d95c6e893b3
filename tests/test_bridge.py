"""A model in smaller symbols is the same model of text; two of them fuse by the same law as any two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from purify_plugins import NumericError, PromptError, Sampling, SourceError
from purify_plugins.decode.replay import replay
from purify_plugins.testing import SourceConformance, ToySession, ToySource
from purify_plugins.tokenizers.cross.source import SymbolSource
from purify_plugins.tokenizers.cross.symbols import SymbolSet, byte_symbols, common_tokens
from purify_plugins.types import Prompt, Vocabulary
from tests.toys import Failing, pair

BYTES = byte_symbols()


def spelling(*tokens: str, ends: int = 1) -> Vocabulary:
    """Text tokens, then a control token, then `ends` tokens that end an answer."""
    control = {len(tokens) + at: name for at, name in enumerate(["<tool>", *["<end>"] * ends])}
    eos = frozenset(range(len(tokens) + 1, len(tokens) + 1 + ends))
    return Vocabulary((*(token.encode() for token in tokens), *[b""] * len(control)), eos, control)


@dataclass(frozen=True)
class Exact(ToySource):
    """A toy in double precision."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return super().logits(tokens).double()


@dataclass(frozen=True)
class Pairs(Exact):
    """A model of letters, seen two letters at a time: the same texts are as likely as they are."""

    letters: Any = None

    def logits(self, tokens: Sequence[int]) -> Tensor:
        text = self.vocabulary.spell(tokens)
        read = tuple(self.letters.vocabulary.tokens.index(bytes([byte])) for byte in text)
        if len(self.vocabulary.tokens[tokens[-1]]) == 1 and len(tokens) > 1:
            return torch.full((len(self.vocabulary),), -math.inf).index_fill(0, torch.tensor(self.end), 0.0)
        return torch.tensor([self._logprob(read, token) for token in range(len(self.vocabulary))])

    @property
    def end(self) -> int:
        return min(self.vocabulary.eos)

    def _logprob(self, read: tuple[int, ...], token: int) -> float:
        end = min(self.letters.vocabulary.eos)
        spelled = [
            self.letters.vocabulary.tokens.index(bytes([byte])) for byte in self.vocabulary.tokens[token]
        ]
        if token in self.vocabulary.control and token != self.end:
            return -math.inf
        following = [*spelled, end] if len(spelled) < 2 else spelled
        total = 0.0
        for symbol in following:
            row = self.letters.logits(read)
            row[[i for i in self.letters.vocabulary.control if i != end]] = -math.inf
            total += float(torch.log_softmax(row, -1)[symbol])
            read = (*read, symbol)
        return total


@dataclass(frozen=True)
class Enumerated:
    """A toy in bytes, by adding up every run of tokens that spells a text: slow, and surely right."""

    source: ToySource
    symbol_set: SymbolSet = BYTES
    context_length: int | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        return self.symbol_set.vocabulary

    def row(self, prompt: tuple[int, ...], text: bytes) -> Tensor:
        masses = torch.zeros(257, dtype=torch.float64)
        for byte in set(b"".join(self.source.vocabulary.tokens)):
            masses[byte] = self.begins(prompt, text + bytes([byte]))
        masses[256] = self.ends(prompt, text)
        return (masses / self.begins(prompt, text)).log()

    def law(self, tokens: tuple[int, ...]) -> tuple[list[tuple[int, bytes, float]], float]:
        """The text tokens' probabilities after `tokens`, and the end's."""
        vocabulary = self.source.vocabulary
        mass = torch.softmax(self.source.logits(tokens), -1).tolist()
        texts = [i for i in range(len(vocabulary)) if i not in vocabulary.control]
        end = sum(mass[i] for i in vocabulary.eos)
        total = end + sum(mass[i] for i in texts)
        return [(i, vocabulary.tokens[i], mass[i] / total) for i in texts], end / total

    def begins(self, tokens: tuple[int, ...], text: bytes) -> float:
        """How likely what follows `tokens` begins with `text`."""
        if not text:
            return 1.0
        found = 0.0
        for token, spelled, mass in self.law(tokens)[0]:
            if spelled.startswith(text):
                found += mass
            elif text.startswith(spelled):
                found += mass * self.begins((*tokens, token), text[len(spelled) :])
        return found

    def ends(self, tokens: tuple[int, ...], text: bytes) -> float:
        """How likely what follows `tokens` is just `text`."""
        options, end = self.law(tokens)
        runs = (
            mass * self.ends((*tokens, token), text[len(spelled) :])
            for token, spelled, mass in options
            if text.startswith(spelled)
        )
        return sum(runs) if text else end

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[EnumeratedSession, Tensor]:
        session = EnumeratedSession(self, [self.source.encode(prompt) for prompt in prompts])
        return session, session.current()

    def identity(self) -> dict[str, Any]:
        return {"name": "enumerated"}


class EnumeratedSession(ToySession):
    def __init__(self, source: Enumerated, rows: Sequence[tuple[int, ...]]) -> None:
        self.toy = source
        super().__init__(source.source, rows)
        self.texts: list[bytes] = [b""] * len(rows)

    def current(self) -> Tensor:
        return torch.stack(
            [self.toy.row(prompt.tokens, text) for prompt, text in zip(self.prompts, self.texts, strict=True)]
        )

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            self.texts = [text + bytes([byte % 256]) for text, byte in zip(self.texts, column, strict=True)]
            columns.append(self.current())
        return torch.stack(columns, dim=1)


def read(source: Any, prompt: Prompt, text: bytes) -> Tensor:
    """The rows before each byte of a text and after the last, (n + 1, 257) log-probabilities."""
    session, first = source.open([prompt])
    with session:
        rows = [first[0], *(session.extend(torch.tensor([[byte]]))[0, 0] for byte in text)]
    return torch.stack(rows)


VOCABULARY = spelling("a", "b", "ab", "ab", "ba", "abb", "bbb", "baa", ends=2)
STRINGS = [bytes(text) for n in range(6) for text in product(b"ab", repeat=n)]


@pytest.mark.parametrize("seed", range(2))
def test_a_text_is_as_likely_as_all_its_spellings_together(seed: int) -> None:
    toy = Exact(VOCABULARY, seed)
    bridged, slow = SymbolSource(toy, BYTES, eps=0), Enumerated(toy)
    for text in STRINGS[-32:]:
        rows = read(bridged, (-2,), text).exp()
        expected = torch.stack([slow.row((0,), text[:n]) for n in range(len(text) + 1)]).exp()
        torch.testing.assert_close(rows, expected, rtol=1e-9, atol=0)


words = st.lists(st.text("ab", min_size=1, max_size=3), max_size=6).map(lambda more: ["a", "b", *more])


@given(words, st.integers(1, 2), st.integers(0, 99), st.text("ab", max_size=4))
def test_any_vocabulary_spells_a_text_in_every_way(
    tokens: list[str], ends: int, seed: int, text: str
) -> None:
    toy = Exact(spelling(*tokens, ends=ends), seed)
    rows = read(SymbolSource(toy, BYTES, eps=0), (-2,), text.encode())
    torch.testing.assert_close(
        rows[-1].exp(), Enumerated(toy).row((0,), text.encode()).exp(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(rows), dtype=torch.float64))


@pytest.mark.parametrize("eps", [0, 0.03])
def test_what_may_come_next_adds_up_to_one(eps: float) -> None:
    rows = read(SymbolSource(Exact(VOCABULARY, 3), BYTES, eps), (-2,), b"abbabaab")
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(9, dtype=torch.float64))


@dataclass(frozen=True)
class Rare(ToySource):
    """A model that hardly ever writes any token but its second."""

    share: float = 1e-6

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = torch.full((len(self.vocabulary),), math.log(self.share))
        return row.index_fill(0, torch.tensor(1), 0.0)


@pytest.mark.parametrize("share", [1e-2, 1e-6])
@pytest.mark.parametrize("eps", [0, 0.03])
def test_a_text_may_go_on_in_a_way_less_likely_than_any_number(eps: float, share: float) -> None:
    """In a run of spaces a long token of spaces had begun, and another way went on: NaN."""
    toy = Rare(spelling("a", "a" * 200, "b"), share=share)
    rows = read(SymbolSource(toy, BYTES, eps), (-2,), b"a" * 190 + b"b")
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(192, dtype=torch.float64), rtol=1e-6, atol=0)


def test_whole_tokens_are_symbols_too() -> None:
    """In its own tokens, none of which has a namesake, a model says what it always said."""
    vocabulary = spelling("a", "b", "c", "d")
    toy, alphabet = Exact(vocabulary, 4), common_tokens(vocabulary, vocabulary)
    session, first = SymbolSource(toy, alphabet, 0).open([(-2,)])
    rows = torch.cat([first, session.extend(torch.tensor([[1, 3, 0]]))[0]])
    own = torch.stack([toy.logits(context) for context in ([0], [0, 1], [0, 1, 3], [0, 1, 3, 0])])
    torch.testing.assert_close(rows, torch.log_softmax(own[:, [0, 1, 2, 3, 5]], -1))


LETTERS = Exact(spelling("a", "b"), 5)
TWO = Pairs(spelling("a", "b", "aa", "ab", "ba", "bb"), letters=LETTERS)


@pytest.mark.parametrize("text", [b"", b"a", b"bab", b"abba"])
def test_two_views_of_one_model_are_one_model_of_text(text: bytes) -> None:
    one, other = (read(SymbolSource(each, BYTES, 0), (-2,), text) for each in (LETTERS, TWO))
    torch.testing.assert_close(one.exp(), other.exp())


def test_a_model_fused_with_itself_under_two_tokenizers_is_itself() -> None:
    fused = pair(SymbolSource(TWO, BYTES, 0), SymbolSource(LETTERS, BYTES, 0), "geometric")
    answers = [(*text, 256) for text in STRINGS if len(text) < 5]
    for answer, row in zip(answers, replay(fused, [(-2,)] * len(answers), answers), strict=True):
        alone = read(SymbolSource(LETTERS, BYTES, 0), (-2,), bytes(answer[:-1]))
        expected = float(sum(alone[at, symbol] for at, symbol in enumerate(answer)))
        assert sum(token.fused for token in row) == pytest.approx(expected, abs=1e-4)


LLM, SLM = Exact(VOCABULARY, 6, sharpness=1.5), Exact(spelling("b", "a", "bb", "aab"), 7, sharpness=1.5)
SHORT = Sampling(max_tokens=3, seed=0)


@pytest.mark.parametrize("policy", ["geometric", "windowed"])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_the_fused_law_is_the_enumerated_one(policy: str, walk: Any) -> None:
    slow = pair(Enumerated(LLM), Enumerated(SLM), policy)
    endings = [bytes(text) for n in range(4) for text in product(b"ab", repeat=n)]
    answers = [(*text, *[256] * (len(text) < 3)) for text in endings]
    law = [
        math.exp(math.fsum(token.fused for token in replay(slow, [(0,)], [answer])[0])) for answer in answers
    ]
    assert sum(law) == pytest.approx(1.0, abs=1e-4)
    purifier = pair(
        SymbolSource(LLM, BYTES, 0), SymbolSource(SLM, BYTES, 0), policy, walk=walk, batch_size=200
    )
    drawn = [completion.tokens for completion in purifier.generate([(-2,)] * 500, SHORT)]
    counts = [drawn.count(answer) for answer in answers]
    assert sum(counts) == len(drawn)
    assert chisquare(counts, numpy.array(law) / sum(law) * len(drawn)).pvalue > 1e-3


class TestBridged(SourceConformance):
    prompts = ("a", "the thing and")

    def source(self) -> SymbolSource:
        return SymbolSource(Exact(full_bytes(), 8), BYTES, 0.03)


@cache
def full_bytes() -> Vocabulary:
    """Every byte, some words, an end."""
    tokens = (*(bytes([byte]) for byte in range(256)), b"th", b" the", b"ing", "é".encode(), b"")
    return Vocabulary(tokens, frozenset({260}), {260: "<end>"})


def test_a_row_of_another_length_is_refused() -> None:
    trie = SymbolSource(LLM, BYTES).trie
    with pytest.raises(SourceError, match="gave 5 numbers"):
        trie.read(torch.zeros(5))


def test_a_broken_row_is_refused() -> None:
    trie = SymbolSource(LLM, BYTES).trie
    with pytest.raises(NumericError, match="check its weights"):
        trie.read(torch.full((len(VOCABULARY),), math.nan))


def test_what_control_tokens_hold_is_told_and_given_to_the_others() -> None:
    logits = torch.zeros(len(VOCABULARY), dtype=torch.float64)  # eight texts, a control token, two ends
    tokens, end, _, masked = SymbolSource(LLM, BYTES).trie.read(logits)
    assert tokens.sum() == pytest.approx(8 / 10)
    assert (end, masked) == (pytest.approx(2 / 10), pytest.approx(1 / 11))


def test_a_reader_tells_what_control_tokens_held_at_most() -> None:
    session, _ = SymbolSource(LLM, BYTES).open([(-2,)])
    [control] = VOCABULARY.control.keys() - VOCABULARY.eos
    held = torch.softmax(LLM.logits([0]), -1)[control]
    assert session.reader.masked == pytest.approx(float(held))


def test_a_closed_session_keeps_no_row() -> None:
    """Rows of a large vocabulary waited for the garbage collector: half a gigabyte after nine answers."""
    session, _ = SymbolSource(LLM, BYTES).open([(-2,)])
    session.extend(torch.tensor([[97, 98]]))
    [root] = session.reader.roots
    read = [root, *root._children.values()]
    assert any(prefix.distribution is not None for prefix in read)
    session.close()
    assert not any(prefix.distribution is not None for prefix in read)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("", {0x00, 0x41, 0xC3, 0xF4, 256}), ("\xc3", {0x80, 0xBF}), ("\xe0", {0xA0}), ("\xf4", {0x80, 0x8F})],
)
def test_an_answer_is_valid_utf8_at_every_byte(text: str, allowed: set[int]) -> None:
    never = {"": {0x80, 0xC0, 0xC1, 0xF5}, "\xc3": {0x41, 0xC3, 256}, "\xe0": {0x9F}, "\xf4": {0x90}}[text]
    row = read(SymbolSource(Exact(full_bytes(), 9), BYTES), (-2,), text.encode("latin-1"))[-1]
    assert all(row[symbol] > -math.inf for symbol in allowed)
    assert all(row[symbol] == -math.inf for symbol in never)


def test_forced_text_never_comes_to_an_end() -> None:
    """Whatever was left out when it was unlikely is found again when nothing else goes on."""
    source = SymbolSource(Exact(full_bytes(), 10, sharpness=12.0), BYTES, 0.3)
    assert torch.isfinite(read(source, (-2,), bytes(range(0x20, 0x7F)) * 2)).any(-1).all()


@pytest.mark.parametrize("eps", [0.1, 0.01, 0.001])
def test_a_row_is_as_near_as_eps_says(eps: float) -> None:
    toy, text = Exact(VOCABULARY, 11, sharpness=1.0), b"abb"
    rows = read(SymbolSource(toy, BYTES, eps), (-2,), text).exp()
    exact = read(SymbolSource(toy, BYTES, 0), (-2,), text).exp()
    assert float((rows - exact).abs().sum(-1).max()) / 2 <= 4 * eps * len(text)


def test_an_llm_that_fails_inside_a_draft_leaves_the_rest_to_the_slm() -> None:
    """A draft is read as far as it is looked at; what was read before the failure stays fused."""
    vocabulary = full_bytes()
    llm, slm = (
        SymbolSource(Failing(vocabulary, at=6), BYTES, 0.03),
        SymbolSource(Exact(vocabulary, 7), BYTES, 0.03),
    )
    purifier = pair(llm, slm, "geometric", walk="speculative", on_llm_failure="slm")
    sampling = Sampling(max_tokens=12, seed=1, ignore_eos=True)
    alone = [token.slm_only for token in purifier.generate("the", sampling)[0].steps]
    assert alone == sorted(alone)
    assert set(alone) == {False, True}


def test_a_prompt_of_other_ids_is_refused() -> None:
    source = SymbolSource(LLM, BYTES)
    for prompt in [(-2, 97, -3), (-99,), (300,)]:
        with pytest.raises(PromptError, match="give it as text"):
            source.open([prompt])
