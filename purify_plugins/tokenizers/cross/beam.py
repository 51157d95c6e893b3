"""One row's text, and every way in which the model's own tokens may have spelled it.

The probability of a text is the sum over all token runs that spell it. Most of them hold next to
nothing, so the model is not asked about the least likely, `eps` of the text's mass at most: they are
estimated to go on as the model last said before them. And of several ways to the same place the
likeliest speaks for others that hold at most three times `eps`. So a row is off by less than 4 `eps` in
total variation from that of the same ways, all asked about. With `eps` 0 the masses are exact; with
any `eps` they are those of a model, and only this model's rows went into it.

Source: the beam of heads over a sorted vocabulary follows Vieira et al. (2412.03719) and genlm-bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy

from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_plugins.tokenizers.cross.symbols import SymbolSet
    from purify_plugins.tokenizers.cross.token_prefixes import NextTokenDistribution, TokenPrefix
    from purify_plugins.tokenizers.cross.vocabulary_trie import Node, VocabularyTrie

    Array = numpy.ndarray[Any, Any]

FOLD = 3
"""How many times `eps` of the text's mass the ways may hold for which a likelier one speaks."""
NEGLIGIBLE = 1e-6
"""The share of `eps` below which a way is put pruned, for when no other can go on."""
MOST = 64
"""Ways kept pruned."""


class Head(NamedTuple):
    """Tokens that spell the text up to symbol `start`, and a token (`node`) that has only begun.

    `weight` is the logarithm of the probability of those tokens over that of the whole text: a long run of
    unlikely tokens may yet be the only way on. What comes next is what the model says after `known`: these
    tokens, or fewer while they are too unlikely to ask. Of `weight`, `estimated` is the part, likewise a
    logarithm, that is only estimated in that way.
    """

    prefix: TokenPrefix
    weight: float
    node: Node
    start: int
    known: TokenPrefix
    estimated: float = 0.0


class State(NamedTuple):
    """A beam between two symbols; `character` is the place within a UTF-8 character.

    Once `settled`, every token that ends here has a head, and every head that should be is known.
    """

    heads: tuple[Head, ...]
    pruned: tuple[Head, ...] = ()
    character: int = 0
    settled: bool = False
    ended: bool = False


class Beam:
    """Pushes symbols and says what may come next.

    `read` makes the model say what comes after prefixes. `states` are the moments since the prompt's
    end, so that going back costs nothing.
    """

    def __init__(
        self,
        trie: VocabularyTrie,
        symbol_set: SymbolSet,
        eps: float,
        root: TokenPrefix,
        read: Callable[[Sequence[TokenPrefix]], None],
    ) -> None:
        self.trie, self.symbol_set, self.eps, self.read = trie, symbol_set, eps, read
        self.least = NEGLIGIBLE * eps
        self.symbols: list[int] = []
        self.base = 0
        self.states = [State((Head(root, 0.0, trie.root, 0, root),))]

    @property
    def state(self) -> State:
        return self.states[-1]

    @property
    def longest(self) -> int:
        """The most tokens in any way that is followed."""
        return max((head.prefix.length for head in self.state.heads), default=0)

    def wanted(self) -> list[TokenPrefix]:
        """What the model must be asked before the state is settled, likeliest last."""
        if self.state.settled:
            return []
        self._commit()
        return [head.prefix for head in self._asked()]

    def _commit(self) -> None:
        """Open a head wherever a token of the text ends."""
        state = self.state
        found = self._folded(sorted(self._ending(), key=lambda head: head.weight))
        going = [head._replace(node=head.node.rest) for head in state.heads]
        heads = [*(head for head in going if len(head.node.symbols)), *found]
        pruned = [head for head in heads if self._share(head) < self.least]
        heads = [head for head in heads if self._share(head) >= self.least]
        self.states[-1] = state._replace(heads=tuple(heads), pruned=(*state.pruned, *pruned)[-MOST:])

    def _ending(self) -> Iterator[Head]:
        """A head for each token that ends with the text."""
        here, root, order = len(self.symbols), self.trie.root, self.trie.order
        for head in self.state.heads:
            low, ends = head.node.low, head.node.ends
            tokens = self._distribution(head).tokens[low : low + ends] if ends else ()
            for token, mass in zip(order[low : low + ends], map(float, tokens), strict=True):
                if mass:
                    more = math.log(mass)
                    estimated = 0.0 if head.known is head.prefix else head.estimated + more
                    prefix = head.prefix.then(int(token))
                    yield Head(prefix, head.weight + more, root, here, head.known, estimated)

    def _folded(self, found: list[Head]) -> list[Head]:
        """The heads, lightest first, without the least likely: the likeliest speaks for those."""
        masses = numpy.cumsum([exp(head.weight) for head in found])
        few = min(int(numpy.searchsorted(masses, FOLD * self.eps, side="right")), len(found) - 1)
        if few < 1:
            return found
        weight = numpy.logaddexp(found[-1].weight, log(float(masses[few - 1])))
        return [*found[few:-1], found[-1]._replace(weight=float(weight))]

    def _asked(self) -> list[Head]:
        """The heads, likeliest last, without which those that are only estimated hold at most `eps`."""
        guessed = [head for head in self.state.heads if head.known is not head.prefix]
        guessed.sort(key=self._share)
        masses = numpy.cumsum([self._share(head) for head in guessed])
        return guessed[int(numpy.searchsorted(masses, self.eps, side="right")) :]

    def _share(self, head: Head) -> float:
        """How much of the text's mass a head holds."""
        return math.exp(head.weight + log(self._within(head, head.node)))

    def _within(self, head: Head, node: Node) -> float:
        """The mass of a node's tokens after a head."""
        if node is self.trie.root:
            return 1.0
        return float(self._distribution(head).tokens[node.low : node.high].sum(dtype=float))

    def _distribution(self, head: Head) -> NextTokenDistribution:
        if head.known.distribution is None:
            self.read([head.known])
        assert head.known.distribution is not None
        return head.known.distribution

    def settle(self) -> None:
        """Ask about every head that should be, and weigh all of them anew."""
        if self.state.settled:
            return
        self.read(self.wanted())
        asked = set(map(id, self._asked()))
        heads = [self._known(head) if id(head) in asked else head for head in self.state.heads]
        self.states[-1] = self.state._replace(heads=self._normalised(heads), settled=True)

    def _known(self, head: Head) -> Head:
        """The same head with what the model says of its last tokens in place of what was estimated."""
        weight, here = head.weight - head.estimated, head.prefix
        while here.parent is not None and here.parent is not head.known:
            weight += log(self._probability(here.parent, here.token))
            here = here.parent
        return head._replace(weight=weight, known=head.prefix, estimated=0.0)

    def _probability(self, prefix: TokenPrefix, token: int) -> float:
        if prefix.distribution is None:
            self.read([prefix])
        assert prefix.distribution is not None
        return float(prefix.distribution.tokens[self.trie.place[token]])

    def _normalised(self, heads: Sequence[Head]) -> tuple[Head, ...]:
        """The heads with weights that add up to 1 with what they hold; none for those that hold nothing."""
        shares = [head.weight + log(self._within(head, head.node)) for head in heads]
        most = max(shares, default=-math.inf)
        if most == -math.inf:
            return ()
        total = most + math.log(math.fsum(math.exp(share - most) for share in shares))
        return tuple(
            head._replace(weight=head.weight - total)
            for head, share in zip(heads, shares, strict=True)
            if share > -math.inf
        )

    def masses(self) -> Array:
        """(n + 1,) the probability of each symbol and of the end; together 1."""
        self.settle()
        found = numpy.zeros(self.symbol_set.end + 1)
        for head in self.state.heads:
            distribution, weight = self._distribution(head), exp(head.weight)
            if head.node is self.trie.root:
                found[head.node.symbols] += weight * distribution.first
                found[-1] += weight * distribution.end
            else:
                found[head.node.symbols] += weight * head.node.mass(distribution.tokens)
        return found

    def row(self) -> Array:
        """(n + 1,) `masses` of what may come next in a UTF-8 text; what may not has none."""
        if self.state.ended:
            row: Array = numpy.eye(1, self.symbol_set.end + 1, self.symbol_set.end)[0]
            return row
        allowed = self.symbol_set.allowed[self.state.character]
        found = numpy.where(allowed, self.masses(), 0.0)
        for head in self._pruned() if not found.any() else ():
            if not found.any() and (state := self._from(head, [])):
                self.states[-1] = state._replace(character=self.state.character)
                found = numpy.where(allowed, self.masses(), 0.0)
        return found

    def push(self, symbol: int) -> None:
        """Go on with a symbol. Raises SourceError when none of the model's tokens can spell the text."""
        self.settle()
        if self.state.ended or symbol == self.symbol_set.end:
            state: State | None = State((), settled=True, ended=True)
        else:
            state = self._onto(symbol) or self._revived(symbol)
        if state is None:
            spelled = self.symbol_set.symbols[symbol]
            raise SourceError(f"none of a model's tokens goes on with {spelled!r}; choose another SLM or LLM")
        self.symbols.append(symbol)
        self.states.append(state)

    def _onto(self, symbol: int) -> State | None:
        """The state after a symbol; None if no head goes on with it."""
        moved = [
            head._replace(node=node)
            for head in self.state.heads
            if (node := self.trie.child(head.node, symbol))
        ]
        heads = self._normalised(moved)
        return State(heads, self.state.pruned, self._place(symbol)) if heads else None

    def _place(self, symbol: int) -> int:
        """The place within a character after a symbol; between two after one that fits nowhere."""
        return max(int(self.symbol_set.characters[self.state.character, symbol]), 0)

    def _revived(self, symbol: int) -> State | None:
        """The state after a symbol that only a way put pruned goes on with."""
        found = (self._from(head, [symbol]) for head in self._pruned())
        return next((state._replace(character=self._place(symbol)) for state in found if state), None)

    def _pruned(self) -> list[Head]:
        """What was put pruned, the last first."""
        return sorted(self.state.pruned, key=lambda head: -head.start)

    def _from(self, head: Head, more: list[int]) -> State | None:
        """The state of a beam that had only this head, after the text and `more`; None if it cannot.

        That beam puts nothing pruned.
        """
        beam = type(self)(self.trie, self.symbol_set, self.eps, head.prefix, self.read)
        beam.least, beam.symbols = 0.0, self.symbols[: head.start]
        beam.states = [State((Head(head.prefix, 0.0, self.trie.root, head.start, head.prefix),))]
        for symbol in [*self.symbols[head.start :], *more]:
            beam.settle()
            if (state := beam._onto(symbol)) is None:
                return None
            beam.states[-1] = state
            beam.symbols.append(symbol)
        return beam.state._replace(pruned=tuple(other for other in self.state.pruned if other is not head))

    def begin(self) -> Self:
        """Call what was pushed so far the prompt: `rewind` never goes back behind it."""
        self.base, self.states = len(self.symbols), [self.state]
        return self

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` symbols after the prompt."""
        del self.symbols[self.base + length :], self.states[length + 1 :]

    def guess(self, symbols: Sequence[int]) -> TokenPrefix | None:
        """The tokens that most likely spell what has begun and `symbols`: always the longest that fits."""
        head = max(self.state.heads, key=lambda head: head.weight, default=None)
        if head is None:
            return None
        prefix = head.prefix
        for token in self.trie.longest_run([*self.symbols[head.start :], *symbols]):
            prefix = prefix.then(token)
        return prefix


def log(mass: float) -> float:
    return math.log(mass) if mass else -math.inf


def exp(weight: float) -> float:
    """e^weight, as far as there are numbers: before an unlikely token ends, its weight may be greater."""
    return math.exp(min(weight, 700.0))
