"""A server's partial rows in symbols are a mixture: of what was shown, and of the SLM's own text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import Sampling
from purify_plugins.certificates import verify
from purify_plugins.decode.partial_rows import complete
from purify_plugins.decode.replay import replay
from purify_plugins.protocols import Capabilities
from purify_plugins.testing import ToySource
from purify_plugins.tokenizers.cross.partial_beam import LONGEST
from purify_plugins.tokenizers.cross.partial_source import PartialSymbolSource
from purify_plugins.tokenizers.cross.source import SymbolSource
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.vocabulary_map import align
from tests.test_bridge import Exact, full_bytes, read, spelling
from tests.toys import pair

BYTES = byte_symbols()


@dataclass(frozen=True)
class Shown(Exact):
    """A toy behind a server that shows its likeliest `top` tokens."""

    top: int = 2

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, self.top, True, scores_draft=True, streams_rows=False)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = torch.log_softmax(super().logits(tokens), -1)
        kept = row.topk(min(self.top, len(row))).indices
        shown = torch.full((len(row) + 1,), -math.inf, dtype=torch.float64)
        shown[kept] = row[kept]
        rest = 1 - float(row[kept].exp().sum())
        shown[-1] = math.log(rest) if self.top < len(row) and rest > 0 else -math.inf
        return shown


LLM = Shown(spelling("a", "b", "ab", "ba", "abb", ends=2), 3, sharpness=1.5)
SLM = Exact(spelling("b", "a", "bb", "aab"), 7, sharpness=1.5)
STRINGS = [bytes(text) for n in range(5) for text in product(b"ab", repeat=n)]


def presented(llm: Shown = LLM, slm: ToySource = SLM, eps: float = 0) -> tuple[Any, Any]:
    ours = SymbolSource(slm, BYTES, eps)
    return PartialSymbolSource(llm, BYTES, eps, tail=ours), ours


def begins(text: bytes, at: int = 0, prompt: tuple[int, ...] = (0,)) -> float:
    """How likely the mixture goes on with `text[at:]` after `prompt`, whose tokens spell `text[:at]`."""
    if at == len(text):
        return 1.0
    vocabulary = LLM.vocabulary
    mass = torch.softmax(LLM.logits(prompt), -1)
    spoken = [token for token in range(len(vocabulary)) if token not in vocabulary.control]
    total = float(sum(mass[[*spoken, *vocabulary.eos, len(vocabulary)]]))
    found = float(mass[-1]) / total * slm_wrote(text, at)
    for token in spoken:
        piece, rest = vocabulary.tokens[token], text[at:]
        if piece.startswith(rest):
            found += float(mass[token]) / total
        elif rest.startswith(piece):
            found += float(mass[token]) / total * begins(text, at + len(piece), (*prompt, token))
    return found


def slm_wrote(text: bytes, at: int) -> float:
    """How likely the SLM goes on with `text[at:]` after `text[:at]`."""
    rows = read(SymbolSource(SLM, BYTES, 0), (-2,), text[:-1])
    return math.exp(math.fsum(float(rows[place, text[place]]) for place in range(at, len(text))))


def test_a_text_is_as_likely_as_the_mixture_says() -> None:
    llm, slm = presented()
    assert 0.05 < math.exp(float(LLM.logits((0,))[-1])) < 0.95
    for text in STRINGS[-16:]:
        own, shared = read(slm, (-2,), text), read(llm, (-2,), text)
        rows = complete(shared, own)[0]
        wrote = math.fsum(float(rows[place, symbol]) for place, symbol in enumerate(text))
        assert wrote == pytest.approx(math.log(begins(text)), abs=1e-5)
        torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(rows), dtype=rows.dtype))


def test_with_every_token_shown_it_is_the_whole_model() -> None:
    whole = replace(LLM, top=len(LLM.vocabulary))
    llm, slm = presented(whole)
    for text in STRINGS[-4:]:
        rows = complete(read(llm, (-2,), text), read(slm, (-2,), text))[0]
        expected = read(SymbolSource(Exact(LLM.vocabulary, 3, sharpness=1.5), BYTES, 0), (-2,), text)
        torch.testing.assert_close(rows.exp(), expected.exp().float(), rtol=1e-4, atol=1e-6)


WORDS = spelling("a", "b", " ", " a", " b", "ab", "ba", " ab", ends=1)


def test_a_hidden_word_without_an_end_ends_after_some_symbols() -> None:
    source, _ = presented()
    session, _ = source.open([(-2,)])
    with session:
        session.extend(torch.tensor([list(b"ab" * LONGEST)]))
        [beam] = session.beams
        assert beam.state.hidden.start > 2


@pytest.mark.parametrize("eps", [0, 0.03])
def test_after_a_hidden_word_the_llm_is_asked_again(eps: float) -> None:
    llm = Shown(WORDS, 5, sharpness=1.5)
    source, _ = presented(llm, Exact(spelling("a", "b", " ", "ba"), 8), eps)
    session, _ = source.open([(-2,)])
    shares = []
    with session:
        for symbol in b"ab ba a":
            row = session.extend(torch.tensor([[symbol]]))[0, 0].exp()
            assert float(row.sum()) == pytest.approx(1.0)
            [beam] = session.beams
            shares.append(beam.state.hidden.share if beam.state.hidden else 0.0)
    assert shares[2] < shares[1]
    assert shares[5] < shares[4]


def test_rewinding_forgets_the_hidden_branch_too() -> None:
    source, _ = presented()
    session, _ = source.open([(-2,)])
    with session:
        expected = session.extend(torch.tensor([list(b"ab")]))
        session.extend(torch.tensor([list(b"bb")]))
        session.rewind(torch.tensor([0]))
        torch.testing.assert_close(session.extend(torch.tensor([list(b"ab")])), expected)


def shown_pair(policy: str = "geometric", top: int = 20, **options: Any) -> Any:
    vocabulary = full_bytes()
    return pair(
        Shown(vocabulary, 4, top=top, sharpness=3.0), Exact(spelled_otherwise(), 5), policy, **options
    )


def spelled_otherwise() -> Any:
    known = full_bytes()
    return replace(known, tokens=(*known.tokens[:256], b"an", b" a", b"er", b"o ", b""))


def test_a_server_that_shows_its_top_tokens_needs_no_tokenizer_in_common() -> None:
    llm, slm = align(Shown(full_bytes(), 4, top=20), Exact(spelled_otherwise(), 5), "bytes")
    assert isinstance(llm, PartialSymbolSource)
    assert llm.tail is slm


@pytest.mark.parametrize("policy", ["geometric", "balanced"])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_what_was_hidden_stands_in_the_certificate(policy: str, walk: Any) -> None:
    purifier = shown_pair(policy, walk=walk)
    sampling = Sampling(max_tokens=12, seed=1, ignore_eos=True)
    answer = purifier.generate("the thing", sampling)[0]
    verify(answer.certificate, purifier.plugins)
    assert 0 < max(step.revealed for step in answer.steps) < 1
    assert 0 < max(step.hidden for step in answer.steps) <= 1
    again = replay(purifier, ["the thing"], [answer.tokens], sampling)[0]
    for one, other in zip(answer.steps, again, strict=True):
        assert one.fused == pytest.approx(other.fused, abs=1e-3)
        assert one.hidden == pytest.approx(other.hidden, abs=1e-3)
