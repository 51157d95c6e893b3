"""The beam over a server's partial rows: what a server did not show goes on as the SLM does.

A partial row is read as a mixture: of the tokens that were shown, and of the SLM's own text from there on,
with the probability that was left for the others. Of that hidden branch only its share of the text's
probability is carried along: each symbol multiplies it by the SLM's probability of that symbol. Where a
hidden word has ended, the branch becomes an ordinary token sequence again, that of its text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy

from purify_plugins.tokenizers.cross.beam import Beam, Head, Hidden, State, exp

if TYPE_CHECKING:
    from purify_plugins.tokenizers.cross.beam import Array
    from purify_plugins.tokenizers.cross.token_prefixes import TokenPrefix


LONGEST = 24
"""Symbols after which a hidden word ends at the next character: there are languages without spaces."""


class PartialBeam(Beam):
    """A beam with a hidden branch; `slm` (n + 1,) are the SLM's probabilities of the next symbol."""

    slm: Array

    def settle(self) -> None:
        if self.state.settled:
            return
        heads, hidden = self._together(self._evaluated(), self.state.hidden)
        self.states[-1] = self.state._replace(heads=tuple(heads), hidden=hidden, settled=True)
        if hidden is not None and hidden.share > self.eps and self._begins_word(hidden.start):
            self._rejoin(hidden)

    def _together(self, heads: Sequence[Head], hidden: Hidden | None) -> tuple[list[Head], Hidden | None]:
        """The heads and the hidden branch, their shares adding up to 1."""
        share = 0.0 if hidden is None else hidden.share
        total = math.fsum([share, *map(self._share, heads)])
        if not total:
            return [], None
        kept = [head._replace(weight=head.weight - math.log(total)) for head in heads if self._share(head)]
        return kept, None if hidden is None else hidden._replace(share=share / total)

    def _branches(self) -> Iterator[Hidden]:
        """The hidden branch so far, and those that begin here."""
        if self.state.hidden is not None:
            yield self.state.hidden
        for head in self.state.heads:
            if head.node is self.trie.root:
                share = exp(head.weight) * self._distribution(head).hidden
                yield Hidden(share, head.prefix, len(self.symbols))

    def _onto(self, symbol: int) -> State | None:
        moved = [
            head._replace(node=node)
            for head in self.state.heads
            if (node := self.trie.child(head.node, symbol))
        ]
        branches, drawn = [*self._branches()], float(self.slm[symbol])
        share = drawn * math.fsum(branch.share for branch in branches)
        hidden = None
        if share:
            likeliest = max(branches, key=lambda branch: branch.share)
            hidden = likeliest._replace(share=share, drawn=drawn)
        heads, hidden = self._together(moved, hidden)
        place = self._place(symbol)
        return State(tuple(heads), (), place, hidden=hidden) if heads or hidden else None

    def _begins_word(self, start: int) -> bool:
        """Whether the last symbol is the space after a hidden word; a long one ends after LONGEST symbols."""
        written = len(self.symbols) - start - 1
        if written < 1 or written >= LONGEST:
            return written >= LONGEST and self.state.character == 0
        before, last = (self.symbol_set.symbols[symbol] for symbol in self.symbols[-2:])
        return last[:1].isspace() and not before[-1:].isspace()

    def _rejoin(self, hidden: Hidden) -> None:
        """Turn the hidden branch into a head after its word, which has begun the token of the last symbol."""
        here = len(self.symbols) - 1
        prefix = self._spelled(hidden.prefix, self.symbols[hidden.start : here])
        node = self.trie.child(self.trie.root, self.symbols[here])
        if prefix is None or node is None:
            return
        head = Head(prefix, 0.0, node, here, prefix)
        unseen = self._distribution(head).hidden * hidden.drawn
        total = self._share(head) + unseen
        if not total:
            return
        head = head._replace(weight=math.log(hidden.share / total))
        left = Hidden(hidden.share * unseen / total, prefix, here, hidden.drawn)
        heads = (*self.state.heads, *([head] if self._share(head) else []))
        self.states[-1] = self.state._replace(heads=heads, hidden=left if left.share else None)

    def _spelled(self, prefix: TokenPrefix, symbols: Sequence[int]) -> TokenPrefix | None:
        """The prefix and the tokens that spell these symbols by longest match; None where there are none."""
        tokens = self.trie.longest_run([*symbols])
        if sum(int(self.trie.lengths[self.trie.place[token]]) for token in tokens) < len(symbols):
            return None
        for token in tokens:
            prefix = prefix.then(token)
        return prefix

    def row(self) -> Array:
        """(2 n + 2,) the masses of the symbols of shown tokens, and of the hidden branch's; together 1."""
        if self.state.ended:
            return numpy.concatenate([super().row(), numpy.zeros(self.symbol_set.end + 1)])
        allowed = self.symbol_set.allowed[self.state.character]
        shown = self.masses()
        hidden = self.slm * math.fsum(branch.share for branch in self._branches())
        return numpy.concatenate([numpy.where(allowed, shown, 0.0), numpy.where(allowed, hidden, 0.0)])

    def _pruned(self) -> list[Head]:
        """None: what was pruned has a hidden branch beside it, which can spell any text."""
        return []
