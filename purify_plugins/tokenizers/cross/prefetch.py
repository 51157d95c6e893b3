"""Prefixes that a beam will probably need next, so that the current forward pass can evaluate them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from purify_plugins.tokenizers.cross.beam import Beam, exp

if TYPE_CHECKING:
    from purify_plugins.tokenizers.cross.beam import Head
    from purify_plugins.tokenizers.cross.token_prefixes import TokenPrefix

LIKELIEST = 4
"""Continuations of a head that are prefetched."""
WORTH = 0.05
"""The least probability of a prefix that is prefetched: it spares a pass as often, and costs part of one."""


def ahead(beam: Beam, symbols: Sequence[int]) -> list[TokenPrefix]:
    """The prefixes needed next, likeliest first, if the text continues with `symbols` and then in any way."""
    scout = LookaheadBeam(beam)
    for symbol in symbols:
        if not scout.follow(symbol):
            return scout.ranked()
    scout.settle()
    scout.spread()
    return scout.ranked()


def needs_pass(beam: Beam, symbol: int) -> bool:
    """Whether the row after another symbol needs a forward pass."""
    scout = LookaheadBeam(beam)
    return scout.follow(symbol) and any(prefix.distribution is None for prefix in scout.wanted())


class LookaheadBeam(Beam):
    """A beam that advances without evaluating the model; `found` are the prefixes it lacked and their shares.

    It gets as far as one token beyond the prefixes that are evaluated.
    """

    def __init__(self, beam: Beam) -> None:
        super().__init__(beam.trie, beam.symbol_set, beam.eps, beam.state.heads[0].prefix, beam.read)
        self.symbols, self.states, self.least = list(beam.symbols), [beam.state], beam.least
        self.found: dict[TokenPrefix, float] = {}

    def ranked(self) -> list[TokenPrefix]:
        """The prefixes found that are likely enough to pay, likeliest first."""
        worth = [prefix for prefix, share in self.found.items() if share > WORTH]
        return sorted(worth, key=lambda prefix: -self.found[prefix])

    def follow(self, symbol: int) -> bool:
        """Append a symbol; False if no head continues with it."""
        self.settle()
        state = None if symbol == self.symbol_set.end else self._onto(symbol)
        if state is None:
            return False
        self.symbols.append(symbol)
        self.states = [state]
        return True

    def settle(self) -> None:
        """Use the distributions that are there, and note the prefixes that lack one."""
        if self.state.settled:
            return
        self._commit()
        heads = {id(head): head for head in self.state.heads}
        for head in self._asked():
            if head.prefix.distribution is not None:
                heads[id(head)] = self._known(head)
            elif head.known is head.prefix.parent:
                self.found.setdefault(head.prefix, self._share(head))
        self.states[-1] = self.state._replace(heads=self._normalised([*heads.values()]), settled=True)

    def spread(self) -> None:
        """Note the likeliest tokens that would finish what each head has begun."""
        for head in self.state.heads:
            if head.known is head.prefix:
                self._likeliest(head)

    def _likeliest(self, head: Head) -> None:
        low = head.node.low + head.node.ends
        masses = self._distribution(head).tokens[low : head.node.high] * exp(head.weight)
        few = (
            numpy.argpartition(masses, -LIKELIEST)[-LIKELIEST:]
            if len(masses) > LIKELIEST
            else range(len(masses))
        )
        for at in few:
            if (
                masses[at] > self.eps
                and (prefix := head.prefix.then(int(self.trie.order[low + at]))).distribution is None
            ):
                self.found.setdefault(prefix, float(masses[at]))
