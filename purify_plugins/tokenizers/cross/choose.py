"""Choose the symbols that two tokenizers are fused in, by how well they agree on a short text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, cast

from purify_plugins.errors import VocabularyError
from purify_plugins.tokenizers.cross.first_token import FirstTokenSource
from purify_plugins.tokenizers.cross.partial_source import PartialSymbolSource
from purify_plugins.tokenizers.cross.source import SymbolSource, own_tokens
from purify_plugins.tokenizers.cross.symbols import SymbolSet, byte_symbols, common_tokens, texts
from purify_plugins.tokenizers.cross.vocabulary_trie import VocabularyTrie

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Alignment, Fidelity, Vocabulary

EPS: Mapping[Fidelity, float] = {"exact": 1e-5, "default": 0.03, "fast": 0.1}
"""The share of a text's probability that a token sequence must hold to be evaluated."""
AGREEMENT = 0.005
"""The share of the LLM's token boundaries that the SLM may lack for whole tokens to be the symbols."""
NEEDED = frozenset(range(0x20, 0x7F)) | {0x0A}
"""The bytes of plain text: printable ASCII and the line feed."""
PROSE = """\
When the rain had stopped, the old man opened the door and looked out over the garden. Nothing moved. He had
told the children that they might come back before dinner, but it was late already, and he thought that they
would rather stay with their aunt in the village, where there was a fire, and bread, and somebody to talk to.
"""
SAMPLE = (
    PROSE
    + """\
It was the best of times, it was the worst of times; nobody knew which, and the clerks of 1789 kept no list.
"Did you read the report?" she asked. He hadn't. Its 42 pages (see Section 3.1) were due on 7 March 2024;
they cost €1,250.00 to print. The café near the old town hall opened at half past nine; naïve, he'd come.

## How to install

1. Download the archive from https://example.com/releases and unpack it.
2. Run `make install`, then check that `--version` prints 2.0.14.

def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values given")
    return sum(values) / len(values)  # not weighted

{"name": "Zoë", "age": 31, "tags": ["a", "b"], "active": true}
Unterwegs grüßten sie die Nachbarn, пока шёл дождь, and the weather-beaten ship sailed on towards the islands.
"""
)


@dataclass(frozen=True)
class Agreement:
    """How far two tokenizers segment one text alike.

    `common` tokens are in both vocabularies; `covered` is the share of the LLM's tokens of the text that are
    common, and `disagreement` the share of its token boundaries, in common tokens, that the SLM lacks.
    """

    common: int
    covered: float
    disagreement: float


def in_shared_symbols(
    llm: LogitSource, slm: LogitSource, alignment: Alignment = "auto", fidelity: Fidelity = "default"
) -> tuple[SymbolSource, SymbolSource]:
    """Both models in one set of symbols: common tokens where the tokenizers nearly agree, else bytes.

    Raises VocabularyError when one of them cannot spell plain text.
    """
    for source in (llm, slm):
        _require_spelling(source.vocabulary)
    _require_whole_rows(slm)
    symbol_set = byte_symbols()
    if alignment == "common_tokens" or (alignment == "auto" and agreement(llm, slm).disagreement < AGREEMENT):
        symbol_set = common_tokens(llm.vocabulary, slm.vocabulary)
    symbol_set = SymbolSet(symbol_set.kind, symbol_set.symbols, per_token(llm, symbol_set))
    eps = EPS[fidelity]
    ours = SymbolSource(slm, symbol_set, eps)
    if _shows_whole_rows(llm):
        return SymbolSource(llm, symbol_set, eps), ours
    return PartialSymbolSource(llm, symbol_set, eps, tail=ours), ours


def by_first_token(llm: LogitSource, slm: LogitSource) -> FirstTokenSource:
    """The SLM in the LLM's vocabulary, approximately. Raises VocabularyError if it lacks plain text."""
    _require_spelling(slm.vocabulary)
    _require_whole_rows(slm)
    return FirstTokenSource(slm, llm.vocabulary)


def _require_spelling(vocabulary: Vocabulary) -> None:
    if lacking := sorted(NEEDED - single_bytes(vocabulary)):
        raise VocabularyError(
            f"the tokens of {vocabulary.name!r} cannot spell {chr(lacking[0])!r} ({len(lacking)} of the "
            f"{len(NEEDED)} plain characters are missing), so no text can be shared with another tokenizer; "
            "choose a model with byte-level BPE, or SentencePiece with byte fallback"
        )


def _shows_whole_rows(source: LogitSource) -> bool:
    return source.capabilities is None or source.capabilities.max_n >= len(source.vocabulary)


def _require_whole_rows(source: LogitSource) -> None:
    capabilities = source.capabilities
    if capabilities is not None and not _shows_whole_rows(source):
        raise VocabularyError(
            f"the server of {source.vocabulary.name!r} shows the likeliest {capabilities.max_n} of "
            f"{len(source.vocabulary)} tokens, and another tokenizer needs them all; raise its limit, "
            "or run that model here"
        )


def single_bytes(vocabulary: Vocabulary) -> set[int]:
    """The bytes that are tokens of their own."""
    return {token[0] for token in texts(vocabulary) if len(token) == 1}


def agreement(llm: LogitSource, slm: LogitSource, text: str = SAMPLE) -> Agreement:
    """How far the two tokenizers segment a text alike, line by line."""
    common = common_tokens(llm.vocabulary, slm.vocabulary)
    theirs, ours = tokenised(llm, text), tokenised(slm, text)
    tokens = [token in common.numbers for line in theirs for token in line]
    cuts = [(_cuts(line, common), _cuts(other, common)) for line, other in zip(theirs, ours, strict=True)]
    differing = sum(len(one - other) for one, other in cuts) / sum(len(one) for one, _ in cuts)
    return Agreement(common.end, sum(tokens) / len(tokens), differing)


class Trial(NamedTuple):
    """Forward passes per own token, and the largest probability of control tokens in a row."""

    calls: float
    masked: float


def trial(source: LogitSource, text: str = PROSE, length: int = 160) -> Trial:
    """Measure a `SymbolSource` as it reads a text symbol by symbol."""
    import torch

    source = cast("SymbolSource", source)  # its caller has asked for `symbolic`
    start, rest = text[: text.index(" ")], text[text.index(" ") :][:length]
    symbols = source.symbol_set.spell(rest.encode()) or ()
    session, _ = source.open([start])
    with session:
        before = session.reader.calls
        for symbol in symbols:
            session.extend(torch.tensor([[symbol]]))
        calls = session.reader.calls - before
        masked = session.reader.masked
    return Trial(calls / sum(map(len, tokenised(source.source, rest))), masked)


def _cuts(tokens: Sequence[bytes], symbol_set: SymbolSet) -> set[int]:
    """Symbol boundaries in bytes, counted from the end, since SentencePiece puts a space at the beginning."""
    spelled = [symbol for token in tokens for symbol in symbol_set.spell(token) or ()]
    return set(accumulate(len(symbol_set.symbols[symbol]) for symbol in reversed(spelled)))


def per_token(source: LogitSource, symbol_set: SymbolSet, text: str = PROSE) -> float:
    """The average number of symbols in one of a model's tokens."""
    lengths = [len(symbol_set.spell(token) or ()) for line in tokenised(source, text) for token in line]
    return sum(lengths) / len(lengths)


def tokenised(source: LogitSource, text: str) -> list[list[bytes]]:
    """The bytes of a model's tokens, line by line; by longest match where there is no tokenizer."""
    vocabulary, lines = source.vocabulary, text.splitlines(keepends=True)
    if source.encodes:
        spelled = ([vocabulary.tokens[token] for token in own_tokens(source, line)] for line in lines)
        return [[token for token in line if token] for line in spelled]
    trie = VocabularyTrie(vocabulary, byte_symbols())
    return [[vocabulary.tokens[token] for token in trie.longest_run(list(line.encode()))] for line in lines]
