"""A beam over the token sequences that spell one row's text: the distribution of the next symbol.

The probability of a text is the sum over all token sequences that spell it. Most sequences have almost no
probability. The model is not run on the least likely ones, at most `eps` of the text's probability: for
these, the next-token distribution of their longest evaluated prefix is used. Of several sequences that end
at the same symbol, the likeliest also stands for others of at most three times `eps` in total. A row is
therefore within 4 `eps` in total variation of the row with every sequence of the beam evaluated. With `eps` 0
it is exact; with any `eps` it is a distribution that depends on this model alone.

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
"""Sequences of at most this many times `eps` of the text's probability are merged into a likelier one."""
NEGLIGIBLE = 1e-6
"""The share of `eps` below which a sequence is pruned; it is used again if no other can continue the text."""
MOST = 64
"""The most pruned sequences that are kept."""


class Head(NamedTuple):
    """A token sequence that spells the text up to symbol `start`, and the `node` of its unfinished token.

    `weight` is log p(sequence) - log p(text), in nats. The next token's distribution is the model's after
    `known`: the sequence itself, or a prefix of it while it is too unlikely to be evaluated. `estimated`
    (nats) is the part of `weight` that comes from such a prefix's distribution.
    """

    prefix: TokenPrefix
    weight: float
    node: Node
    start: int
    known: TokenPrefix
    estimated: float = 0.0


class Hidden(NamedTuple):
    """The share of a text's probability that goes through a token which a server did not show.

    From symbol `start` on, after `prefix`, this text is the SLM's. `drawn` is the SLM's probability of its
    last symbol.
    """

    share: float
    prefix: TokenPrefix
    start: int
    drawn: float = 1.0


class State(NamedTuple):
    """A beam between two symbols; `character` is the state of the UTF-8 decoder.

    `settled`: every token that ends here has a head of its own, and every head that must be is evaluated.
    """

    heads: tuple[Head, ...]
    pruned: tuple[Head, ...] = ()
    character: int = 0
    settled: bool = False
    ended: bool = False
    hidden: Hidden | None = None


class Beam:
    """The distribution of the next symbol of one row, updated symbol by symbol.

    `read` evaluates the model after prefixes. `states` has an entry for each symbol since the prompt, so
    that rewinding costs nothing.
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
        """The length in tokens of the longest sequence in the beam."""
        return max((head.prefix.length for head in self.state.heads), default=0)

    def wanted(self) -> list[TokenPrefix]:
        """The prefixes that must be evaluated before the state is settled, likeliest last."""
        if self.state.settled:
            return []
        self._commit()
        return [head.prefix for head in self._asked()]

    def _commit(self) -> None:
        """Add a head for every token that ends here, and prune the negligible ones.

        One that ends here is kept at least: with unfinished tokens alone, what none of them goes on with had
        no probability at all.
        """
        state = self.state
        found = self._folded(sorted(self._ending(), key=lambda head: head.weight))
        going = [head._replace(node=head.node.rest) for head in state.heads]
        heads = [*(head for head in going if len(head.node.symbols)), *found]
        pruned = [head for head in heads if self._share(head) < self.least]
        heads = [head for head in heads if self._share(head) >= self.least]
        ended = [head for head in pruned if head.node is self.trie.root and head.start == len(self.symbols)]
        if ended and all(head.node is not self.trie.root for head in heads):
            kept = max(ended, key=lambda head: head.weight)
            heads, pruned = [*heads, kept], [head for head in pruned if head is not kept]
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
        """The heads (ascending by weight) without the least likely, whose mass is added to the likeliest."""
        masses = numpy.cumsum([exp(head.weight) for head in found])
        few = min(int(numpy.searchsorted(masses, FOLD * self.eps, side="right")), len(found) - 1)
        if few < 1:
            return found
        weight = numpy.logaddexp(found[-1].weight, log(float(masses[few - 1])))
        return [*found[few:-1], found[-1]._replace(weight=float(weight))]

    def _asked(self) -> list[Head]:
        """The heads to evaluate, likeliest last, so that those left estimated hold at most `eps`."""
        guessed = [head for head in self.state.heads if head.known is not head.prefix]
        guessed.sort(key=self._share)
        masses = numpy.cumsum([self._share(head) for head in guessed])
        return guessed[int(numpy.searchsorted(masses, self.eps, side="right")) :]

    def _share(self, head: Head) -> float:
        """The share of the text's probability that a head holds."""
        return math.exp(head.weight + log(self._within(head, head.node)))

    def _within(self, head: Head, node: Node) -> float:
        """The probability, after a head, of the tokens below a node."""
        if node is self.trie.root:
            return 1.0
        return float(self._distribution(head).tokens[node.low : node.high].sum(dtype=float))

    def _distribution(self, head: Head) -> NextTokenDistribution:
        if head.known.distribution is None:
            self.read([head.known])
        assert head.known.distribution is not None
        return head.known.distribution

    def settle(self) -> None:
        """Evaluate every head that must be, and normalise the weights."""
        if self.state.settled:
            return
        self.states[-1] = self.state._replace(heads=self._normalised(self._evaluated()), settled=True)

    def _evaluated(self) -> list[Head]:
        """The heads, with distributions of their own where these must be read."""
        self.read(self.wanted())
        asked = set(map(id, self._asked()))
        return [self._known(head) if id(head) in asked else head for head in self.state.heads]

    def _known(self, head: Head) -> Head:
        """The head with its own distribution in place of an estimated one."""
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
        """The heads, weights normalised so that their shares add up to 1; those without mass are dropped."""
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
        """The probability of each symbol and of the end, (n + 1,); together 1."""
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
        """`masses` (n + 1,) with 0 for symbols that cannot continue valid UTF-8."""
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

    def score(self, symbol: int) -> float:
        """The log-probability of a symbol, nats."""
        masses = self.row()
        return math.log(masses[symbol] / masses.sum()) if masses[symbol] else -math.inf

    def ends_with(self, symbol: int) -> bool:
        """Whether the text has ended, or does with this symbol."""
        return self.state.ended or symbol == self.symbol_set.end

    def push(self, symbol: int) -> None:
        """Append a symbol. Raises SourceError when no token sequence of the model spells the text."""
        self.settle()
        if self.ends_with(symbol):
            state: State | None = State((), settled=True, ended=True)
        else:
            state = self._onto(symbol) or self._revived(symbol)
        if state is None:
            spelled = self.symbol_set.symbols[symbol]
            raise SourceError(f"none of a model's tokens goes on with {spelled!r}; choose another SLM or LLM")
        self.symbols.append(symbol)
        self.states.append(state)

    def _onto(self, symbol: int) -> State | None:
        """The state after a symbol; None if no head continues with it."""
        moved = [
            head._replace(node=node)
            for head in self.state.heads
            if (node := self.trie.child(head.node, symbol))
        ]
        heads = self._normalised(moved)
        return State(heads, self.state.pruned, self._place(symbol)) if heads else None

    def _place(self, symbol: int) -> int:
        """The state of the UTF-8 decoder after a symbol; the initial state after an invalid one."""
        return max(int(self.symbol_set.characters[self.state.character, symbol]), 0)

    def _revived(self, symbol: int) -> State | None:
        """The state after a symbol that only a pruned sequence continues with."""
        found = (self._from(head, [symbol]) for head in self._pruned())
        return next((state._replace(character=self._place(symbol)) for state in found if state), None)

    def _pruned(self) -> list[Head]:
        """The pruned heads, latest first."""
        return sorted(self.state.pruned, key=lambda head: -head.start)

    def _from(self, head: Head, more: list[int]) -> State | None:
        """The state of a beam that starts from this head alone, after the text and `more`; None if it cannot.

        Nothing is pruned in that beam.
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
        """Make what was pushed so far the prompt, which `rewind` never removes."""
        self.base, self.states = len(self.symbols), [self.state]
        return self

    def rewind(self, length: int) -> None:
        """Remove all but the first `length` symbols after the prompt."""
        del self.symbols[self.base + length :], self.states[length + 1 :]

    def guess(self, symbols: Sequence[int]) -> TokenPrefix | None:
        """The likeliest head's prefix, extended by longest match over its unfinished token and `symbols`."""
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
    """e^weight, clipped to the range of a float: an unfinished, unlikely token's weight may exceed it."""
    return math.exp(min(weight, 700.0))
