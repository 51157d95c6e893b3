"""A server that shows the top of its rows, presented in symbols: its hidden tokens are the SLM's text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from purify_plugins.tokenizers.cross.partial_beam import PartialBeam
from purify_plugins.tokenizers.cross.source import PromptSplit, SymbolSession, SymbolSource

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Prompt


@dataclass(frozen=True, eq=False)
class PartialSymbolSource(SymbolSource):
    """A source of partial rows in symbols; `tail` is the SLM, which writes what the server does not show.

    Rows are 2 V wide, see `decode/partial_rows.py`. A prompt is read as its own tokenizer spells it.
    """

    tail: SymbolSource = field(kw_only=True)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SymbolSession, Tensor]:
        splits = [self.split(prompt) for prompt in prompts]
        reach = max(self._reach(split, scored) for split in splits)
        with ExitStack() as failing:
            tail, slm = self.tail.open(prompts)
            failing.callback(tail.close)
            session, logits = self.source.open([split.kept for split in splits], reach)
            failing.callback(session.close)
            opened = PartialSymbolSession(session, logits, self, splits, scored > 0)
            opened.follow(tail, slm)
            rows = opened.rows()
            failing.pop_all()
        return opened, rows

    def split(self, prompt: Prompt) -> PromptSplit:
        """The prompt in own tokens alone. Raises PromptError."""
        whole = super().split(prompt)
        if whole.symbols and not whole.tail:  # of a prompt that was read before: ids, then symbols
            return PromptSplit((*whole.kept, *self.trie.longest_run([*whole.symbols])), (), ())
        return PromptSplit((*whole.kept, *whole.tail), (), ())

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return replace(self, source=change(self.source), tail=cast("SymbolSource", self.tail.over(change)))


class PartialSymbolSession(SymbolSession):
    """An open batch; the SLM's own session is kept where this one is."""

    beam = PartialBeam
    _tail: SymbolSession

    def follow(self, tail: SymbolSession, slm: Tensor) -> None:
        """Read what is hidden from this session of the SLM, whose last log-probabilities are `slm`."""
        self._tail = tail
        self._read_slm(slm)

    def _read_slm(self, slm: Tensor) -> None:
        beams: list[Any] = self.beams
        for beam, row in zip(beams, slm.double().softmax(dim=-1).numpy(), strict=True):
            beam.slm = row

    def each(self, tokens: Tensor) -> Iterator[Tensor]:
        symbols = tokens.tolist()
        for at in range(tokens.shape[1]):
            for beam, row in zip(self.beams, symbols, strict=True):
                beam.push(row[at])
            self._read_slm(self._tail.extend(tokens[:, at : at + 1])[:, 0])
            yield self.rows([row[at + 1 :] for row in symbols])

    def rewind(self, lengths: Tensor) -> None:
        super().rewind(lengths)
        self._tail.rewind(lengths)
        self._read_slm(self._tail.rows())

    @property
    def full(self) -> set[int]:
        return super().full | self._tail.full

    def close(self) -> None:
        try:
            self._tail.close()
        finally:
            super().close()
