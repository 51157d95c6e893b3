"""What a beam will be asked about next, so that a pass of the model may answer it beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from purify_plugins.tokenizers.cross.beam import Beam, exp

if TYPE_CHECKING:
    from purify_plugins.tokenizers.cross.beam import Head
    from purify_plugins.tokenizers.cross.token_prefixes import Context

LIKELIEST = 4
"""Tokens that a head is thought to go on with."""


def ahead(beam: Beam, symbols: Sequence[int]) -> list[Context]:
    """What will be asked about next, likeliest first, if the text goes on with `symbols` or as it may."""
    scout = Scout(beam)
    for symbol in symbols:
        if not scout.follow(symbol):
            return scout.ranked()
    scout.settle()
    scout.spread()
    return scout.ranked()


class Scout(Beam):
    """A beam that goes ahead and asks nothing new: `found` is what it would have asked about, and its share.

    Only what follows a context the model has been asked about can be told; beyond, nothing is.
    """

    def __init__(self, beam: Beam) -> None:
        super().__init__(beam.table, beam.alphabet, beam.eps, beam.state.heads[0].context, beam.read)
        self.symbols, self.states, self.least = list(beam.symbols), [beam.state], beam.least
        self.found: dict[Context, float] = {}

    def ranked(self) -> list[Context]:
        """What was found, likeliest first."""
        return sorted(self.found, key=lambda context: -self.found[context])

    def follow(self, symbol: int) -> bool:
        """Go on with a symbol, if any head does."""
        self.settle()
        state = None if symbol == self.alphabet.end else self._onto(symbol)
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
            if head.context.opinion is not None:
                heads[id(head)] = self._known(head)
            elif head.known is head.context.parent:
                self.found.setdefault(head.context, self._share(head))
        self.states[-1] = self.state._replace(heads=self._normalised([*heads.values()]), settled=True)

    def spread(self) -> None:
        """Note the likeliest tokens that would end what has begun."""
        for head in self.state.heads:
            if head.known is head.context:
                self._likeliest(head)

    def _likeliest(self, head: Head) -> None:
        low = head.node.low + head.node.ends
        masses = self._opinion(head).tokens[low : head.node.high] * exp(head.weight)
        few = (
            numpy.argpartition(masses, -LIKELIEST)[-LIKELIEST:]
            if len(masses) > LIKELIEST
            else range(len(masses))
        )
        for at in few:
            if (
                masses[at] > self.eps
                and (context := head.context.then(int(self.table.order[low + at]))).opinion is None
            ):
                self.found.setdefault(context, float(masses[at]))
