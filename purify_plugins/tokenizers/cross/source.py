"""A model presented in symbols instead of its own tokens: a source itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import CertificateError, PromptError, SourceError
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SpelledSource, closed_on_error
from purify_plugins.tokenizers.cross.beam import FOLD, Beam
from purify_plugins.tokenizers.cross.prefetch import ahead, needs_pass
from purify_plugins.tokenizers.cross.symbols import SymbolSet, byte_symbols
from purify_plugins.tokenizers.cross.token_prefixes import BranchingReader, PrefixReader, TokenPrefix
from purify_plugins.tokenizers.cross.vocabulary_trie import VocabularyTrie
from purify_plugins.types import Chat, Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

REOPENED = 8
"""Symbols at the end of a text prompt that are read in every spelling: their token may end in the answer."""
ROOM = 24
"""Tokens of the context that are left free for a draft and an unfinished token."""


class PromptSplit(NamedTuple):
    """A prompt: own tokens read as they are, own tokens read as text, and the symbols of the latter."""

    kept: tuple[int, ...]
    tail: tuple[int, ...]
    symbols: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The prompt in the ids that `SymbolSource` reads."""
        return (*(-2 - token for token in self.kept), *self.symbols)


@dataclass(frozen=True, eq=False)
class SymbolSource(SpelledSource):
    """A source whose ids are symbols; a beam over its own tokens computes their distribution.

    At each symbol, token sequences that hold at most `eps` of the text's probability are not evaluated. In a
    prompt of ids, id -2 - i is the source's own token i; symbols may only follow those.
    """

    source: LogitSource
    symbol_set: SymbolSet
    eps: float = 1e-3

    @property
    def vocabulary(self) -> Vocabulary:
        return self.symbol_set.vocabulary

    @property
    def symbolic(self) -> bool:
        return True

    @property
    def capabilities(self) -> None:
        """None: a server drafts and scores in its own tokens, not in symbols."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that a session's `prompts` have."""
        return self.split(prompt).ids

    def identity(self) -> Mapping[str, Any]:
        """The source's own, and how it is presented: `off_by` bounds each row's error in total variation."""
        presented = {
            "kind": self.symbol_set.kind,
            "eps": self.eps,
            "off_by": (1 + FOLD) * self.eps,
            "per_token": self.symbol_set.per_token,
        }
        return {**self.source.identity(), "alphabet": presented}

    @cached_property
    def trie(self) -> VocabularyTrie:
        return VocabularyTrie(self.source.vocabulary, self.symbol_set)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SymbolSession, Tensor]:
        """Read the prompts, the last bytes of each in every spelling.

        Scored are those bytes, and the own tokens before them as far as `scored` symbols reach.
        """
        splits = [self.split(prompt) for prompt in prompts]
        reach = max(self._reach(split, scored) for split in splits)
        session, logits = self.source.open([split.kept for split in splits], reach)
        with closed_on_error(session):
            bridged = SymbolSession(session, logits, self, splits, scored > 0)
            return bridged, bridged.rows()

    def _reach(self, split: PromptSplit, scored: int) -> int:
        """How many of the kept tokens at the end come to `scored` symbols, with those after them."""
        length, found = len(split.symbols), 0
        while length < scored and found < len(split.kept):
            found += 1
            length += len(self.symbols_of(split.kept[-found]))
        return found

    def split(self, prompt: Prompt) -> PromptSplit:
        """Split a prompt into own tokens and the symbols after them. Raises PromptError."""
        if isinstance(prompt, tuple) and prompt and prompt[0] < -1:
            return self._reread(prompt)
        if isinstance(prompt, tuple):
            prompt = self._text(prompt)
        tokens, at, length = own_tokens(self.source, prompt), 0, 0
        at = len(tokens)
        least = 1 if self.source.encodes else self._spelling(tokens)
        while not isinstance(prompt, Chat) and at > least and length < REOPENED:
            symbols = self.symbols_of(tokens[at - 1])
            if not symbols:
                break
            at, length = at - 1, length + len(symbols)
        return self._split(tokens[:at], tokens[at:])

    def _split(self, kept: tuple[int, ...], tail: tuple[int, ...]) -> PromptSplit:
        return PromptSplit(kept, tail, tuple(symbol for token in tail for symbol in self.symbols_of(token)))

    def _spelling(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's first tokens a server needs, so that they contain any text."""
        return next((at for at, token in enumerate(tokens, 1) if self.symbols_of(token)), len(tokens))

    def symbols_of(self, token: int) -> tuple[int, ...]:
        """The symbols of an own token; none for a control or end token."""
        vocabulary = self.source.vocabulary
        silent = token in vocabulary.control or token in vocabulary.eos
        return () if silent else self.symbol_set.spell(vocabulary.tokens[token]) or ()

    def _reread(self, prompt: tuple[int, ...]) -> PromptSplit:
        kept = tuple(-2 - token for token in prompt if token < -1)
        symbols = prompt[len(kept) :]
        if min(symbols, default=0) < 0 or max(kept) >= len(self.source.vocabulary):
            raise PromptError(
                "the prompt's ids are not those of a prompt these models have read; give it as text"
            )
        self._text(symbols)
        return PromptSplit(kept, (), symbols)

    def _text(self, symbols: tuple[int, ...]) -> str:
        if unknown_ids := [symbol for symbol in symbols if not 0 <= symbol < self.symbol_set.end]:
            raise PromptError(f"the prompt holds symbol {unknown_ids[0]}, which is none; give it as text")
        return self.vocabulary.spell(symbols).decode(errors="replace")


def as_recorded(source: LogitSource, identity: Mapping[str, Any]) -> LogitSource:
    """The source in bytes, if a certificate's identity records that; else the source itself.

    So is one that is read as recorded already, as a purifier's own is.
    """
    recorded = identity.get("alphabet")
    if not isinstance(recorded, Mapping) or recorded.get("kind") != "bytes":
        return source
    if source.identity().get("alphabet") == recorded:
        return source
    per_token, eps = recorded.get("per_token"), recorded.get("eps")
    if not (isinstance(per_token, int | float) and isinstance(eps, int | float)):
        raise CertificateError("the certificate does not say how its models were read in bytes")
    return SymbolSource(source, byte_symbols(per_token), eps)


def own_tokens(source: LogitSource, prompt: Prompt) -> tuple[int, ...]:
    """The ids of a prompt in the source's own tokens."""
    if source.encodes:
        return source.encode(prompt)
    session, _ = source.open([prompt])
    with session:
        return session.prompts[0].tokens


class SymbolSession(Session):
    """An open batch in symbols: a beam for each row, over one session in the model's own tokens.

    `prompts` are in the ids that `SymbolSource` reads.
    """

    beam = Beam

    def __init__(
        self,
        session: Session,
        logits: Tensor,
        source: SymbolSource,
        splits: Sequence[PromptSplit],
        scored: bool,
    ) -> None:
        self._session = session
        length = source.context_length
        self._most = [math.inf if length is None else length - len(split.kept) - ROOM for split in splits]
        self.reader = (BranchingReader if session.branches else PrefixReader)(
            session, source.trie, len(splits)
        )
        for row, root in enumerate(self.reader.roots):
            self.reader.note(row, root, logits[row])
        self.beams = [
            self.beam(source.trie, source.symbol_set, source.eps, root, self._asking(row))
            for row, root in enumerate(self.reader.roots)
        ]
        self._foresee([split.tail for split in splits])
        pushed = self._pushed([split.symbols for split in splits])
        self.prompts: Sequence[ScoredPrompt] = [ScoredPrompt(split.ids) for split in splits]
        if scored:
            rows = zip(splits, session.prompts, pushed, strict=True)
            self.prompts = [_scored(source, split, read.logprobs, last) for split, read, last in rows]

    @property
    def readings(self) -> Sequence[tuple[int, ...]]:
        return self._session.readings

    @property
    def full(self) -> set[int]:
        """The rows whose context is full."""
        return {row for row, beam in enumerate(self.beams) if beam.longest > self._most[row]}

    def _asking(self, row: int) -> Any:
        def read(prefixes: Sequence[TokenPrefix]) -> None:
            if prefixes:
                self.reader.read([prefixes if at == row else [] for at in range(len(self.reader.roots))])

        return read

    def _foresee(self, tails: Sequence[Sequence[int]]) -> None:
        """Evaluate each row's tail as the prompt's tokenizer spelled it, in one pass."""
        ends = []
        for root, tail in zip(self.reader.roots, tails, strict=True):
            for token in tail:
                root = root.then(token)
            ends.append([root])
        self.reader.read(ends)

    def _pushed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Push each prompt's symbols, all rows' together; return their log-probabilities."""
        found: list[list[float]] = [[] for _ in prompts]
        for at in range(max(map(len, prompts), default=0)):
            rows = list(zip(self.beams, prompts, found, strict=True))
            self.reader.read([beam.wanted() if at < len(symbols) else [] for beam, symbols, _ in rows])
            for beam, symbols, scores in rows:
                if at < len(symbols):
                    scores.append(beam.score(symbols[at]))
                    beam.push(symbols[at])
        for beam in self.beams:
            beam.begin()
        return found

    def rows(self, coming: Sequence[Sequence[int]] = ()) -> Tensor:
        """Log-probabilities (rows, n + 1) of the next symbol; `coming` are draft symbols, for prefetching."""
        import torch

        wanted = [beam.wanted() for beam in self.beams]
        if any(prefix.distribution is None for prefixes in wanted for prefix in prefixes):
            self._read(wanted, coming)
        masses = [torch.from_numpy(beam.row()) for beam in self.beams]
        return torch.stack(masses).log()

    def _read(self, wanted: Sequence[Sequence[TokenPrefix]], coming: Sequence[Sequence[int]]) -> None:
        """Evaluate the wanted prefixes, and prefetch others with them.

        If that pass fails it is repeated without the prefetched ones: a failure must not depend on the draft.
        """
        try:
            self.reader.read(self._with_hopes(wanted, coming or [()] * len(self.beams)))
        except SourceError:
            if not any(coming):
                raise
            self.reader.read(wanted)

    def _with_hopes(
        self, wanted: Sequence[Sequence[TokenPrefix]], coming: Sequence[Sequence[int]]
    ) -> list[Sequence[TokenPrefix]]:
        """For each row: the likeliest spelling of the draft, the wanted prefixes, and those to prefetch."""
        found: list[Sequence[TokenPrefix]] = []
        for beam, prefixes, symbols in zip(self.beams, wanted, coming, strict=True):
            guess = beam.guess(symbols) if symbols else None
            hopes = ahead(beam, symbols) if self.reader.spare else []
            more = [prefix for prefix in hopes if prefix not in prefixes][: self.reader.spare]
            found.append([*([guess] if guess else []), *prefixes, *more])
        return found

    def extend(self, tokens: Tensor) -> Tensor:
        """Append (rows, n) symbols; (rows, n, symbols + 1) logits of what may come after each."""
        import torch

        return torch.stack(list(self.each(tokens)), dim=1)

    def each(self, tokens: Tensor) -> Iterator[Tensor]:
        """The logits of `extend`, column by column, each computed when it is requested."""
        symbols = tokens.tolist()
        for at in range(tokens.shape[1]):
            for beam, row in zip(self.beams, symbols, strict=True):
                beam.push(row[at])
            yield self.rows([row[at + 1 :] for row in symbols])

    def asks(self, tokens: Tensor) -> float:
        pairs = zip(self.beams, (row[0] for row in tokens.tolist()), strict=True)
        going = [(beam, symbol) for beam, symbol in pairs if not beam.ends_with(symbol)]
        # Nothing is asked of a row that has ended; where all have, a draft must not go on for nothing.
        return sum(needs_pass(*each) for each in going) / len(going) if going else 1.0

    def rewind(self, lengths: Tensor) -> None:
        for beam, length in zip(self.beams, lengths.tolist(), strict=True):
            beam.rewind(length)

    def close(self) -> None:
        try:
            self._session.close()
        finally:
            self.reader.close()


def _scored(
    source: SymbolSource, split: PromptSplit, kept: Sequence[float], symbols: Sequence[float]
) -> ScoredPrompt:
    """A prompt with the scores of its last `kept` tokens and of the symbols after them."""
    tokens = split.kept[len(split.kept) - len(kept) :]
    spelled = (*map(source.symbols_of, tokens), *((symbol,) for symbol in split.symbols))
    return ScoredPrompt(split.ids, (*kept, *symbols), spelled)
