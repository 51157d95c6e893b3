"""What a beam will be asked about next, so that a pass of the model may answer it beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from purify_plugins.tokenizers.cross.beam import Beam, exp

if TYPE_CHECKING:
    from purify_plugins.tokenizers.cross.beam import Head
    from purify_plugins.tokenizers.cross.token_prefixes import TokenPrefix

LIKELIEST = 4
"""Tokens that a head is thought to go on with."""


def ahead(beam: Beam, symbols: Sequence[int]) -> list[TokenPrefix]:
    """What will be asked about next, likeliest first, if the text goes on with `symbols` or as it may."""
    scout = LookaheadBeam(beam)
    for symbol in symbols:
        if not scout.follow(symbol):
            return scout.ranked()
    scout.settle()
    scout.spread()
    return scout.ranked()


class LookaheadBeam(Beam):
    """A beam that goes ahead and asks nothing new: `found` is what it would have asked about, and its share.

    Only what follows a prefix the model has been asked about can be told; beyond, nothing is.
    """

    def __init__(self, beam: Beam) -> None:
        super().__init__(beam.trie, beam.symbol_set, beam.eps, beam.state.heads[0].prefix, beam.read)
        self.symbols, self.states, self.least = list(beam.symbols), [beam.state], beam.least
        self.found: dict[TokenPrefix, float] = {}

    def ranked(self) -> list[TokenPrefix]:
        """What was found, likeliest first."""
        return sorted(self.found, key=lambda prefix: -self.found[prefix])

    def follow(self, symbol: int) -> bool:
        """Go on with a symbol, if any head does."""
        self.settle()
        state = None if symbol == self.symbol_set.end else self._onto(symbol)
        if state is None:
            return False
        self.symbols.append(symbol)
        self.states = [state]
        return True

    def settle(self) -> None:
        """What is asked about, as far as it has been answered, is known; the rest is noted."""
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
        """Note the likeliest tokens that would end what has begun."""
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
