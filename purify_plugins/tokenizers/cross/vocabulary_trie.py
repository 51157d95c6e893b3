"""A vocabulary sorted by what its tokens spell: a trie whose nodes are intervals of the sorted tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from purify_plugins.errors import NumericError, SourceError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.tokenizers.cross.symbols import SymbolSet
    from purify_plugins.types import Vocabulary

    Array = numpy.ndarray[Any, Any]


class Node:
    """The sorted tokens `[low, high)` that share their first `depth` symbols.

    The first `ends` of them are exactly these symbols. The others continue with `symbols`, the tokens of each
    beginning at `starts`, counted from `low + ends`. `rest` is the node of the others alone.
    """

    __slots__ = ("children", "depth", "ends", "high", "low", "rest", "starts", "symbols")

    def __init__(self, trie: VocabularyTrie, low: int, high: int, depth: int) -> None:
        self.low, self.high, self.depth = low, high, depth
        self.ends = int(numpy.count_nonzero(trie.lengths[low:high] == depth))
        column = trie.spelled[trie.offsets[low + self.ends : high] + depth]
        first = numpy.ones(len(column), dtype=bool)
        first[1:] = column[1:] != column[:-1]
        self.starts = numpy.flatnonzero(first)
        self.symbols = column[self.starts]
        self.children: dict[int, Node | None] = {}
        self.rest: Node = self if not self.ends else Node(trie, low + self.ends, high, depth)

    def mass(self, probabilities: Array) -> Array:
        """The mass that continues with each of `symbols`, from probabilities over the sorted tokens."""
        if not len(self.starts):
            return self.starts
        rest: Array = probabilities[self.low + self.ends : self.high]
        return numpy.add.reduceat(rest, self.starts, dtype=numpy.float64)


class TokenRow(NamedTuple):
    """The probabilities (n,) of the sorted tokens, of the end, and of what a server did not show; together 1.

    `masked` is what the control tokens had.
    """

    tokens: Array
    end: float
    hidden: float
    masked: float


class VocabularyTrie:
    """The ordinary tokens of a vocabulary, sorted by their spelling in symbols.

    `order` (n,) are their ids, `ends` the ids that end a text. Every other token is masked out.
    """

    def __init__(self, vocabulary: Vocabulary, symbol_set: SymbolSet) -> None:
        self.size = len(vocabulary)
        silent = vocabulary.control.keys() | vocabulary.eos
        # bytes are compared far faster than tuples
        spell: Callable[[bytes], Any] = bytes if symbol_set.bytewise else symbol_set.spell
        spelled = {
            index: symbols
            for index, token in enumerate(vocabulary.tokens)
            if token and index not in silent and (symbols := spell(token))
        }
        order = sorted(spelled, key=spelled.__getitem__)  # of equal ones the smaller id first
        self.order = numpy.array(order)
        self.ends = numpy.array(sorted(vocabulary.eos), dtype=int)
        self.lengths = numpy.array([len(spelled[index]) for index in order])
        self.place = {index: place for place, index in enumerate(order)}
        self.offsets = numpy.cumsum(self.lengths) - self.lengths
        self.spelled = numpy.fromiter(chain.from_iterable(map(spelled.__getitem__, order)), dtype=int)
        self.root = Node(self, 0, len(order), 0)

    def child(self, node: Node, symbol: int) -> Node | None:
        """The tokens of `node` that continue with `symbol`; None if there are none."""
        if symbol not in node.children:
            node.children[symbol] = self._find(node, symbol)
        return node.children[symbol]

    def _find(self, node: Node, symbol: int) -> Node | None:
        at = int(numpy.searchsorted(node.symbols, symbol))
        if at == len(node.symbols) or node.symbols[at] != symbol:
            return None
        first, starts = node.low + node.ends, node.starts
        high = first + int(starts[at + 1]) if at + 1 < len(starts) else node.high
        return Node(self, first + int(starts[at]), high, node.depth + 1)

    def longest(self, symbols: list[int], at: int) -> tuple[int, int]:
        """The id and the length of the longest token that is a prefix of `symbols[at:]`; (-1, 0): none."""
        node: Node | None = self.root
        found = (-1, 0)
        while node is not None:
            if node.ends:
                found = int(self.order[node.low]), node.depth
            end = at + node.depth
            node = self.child(node, symbols[end]) if end < len(symbols) else None
        return found

    def longest_run(self, symbols: list[int]) -> list[int]:
        """The tokens that spell symbols by longest match, up to the first position without one."""
        found, at = [], 0
        while at < len(symbols) and (following := self.longest(symbols, at))[1]:
            found.append(following[0])
            at += following[1]
        return found

    def read(self, logits: Tensor) -> TokenRow:
        """The probabilities in logits (V,), or in a server's partial row (V + 1,), without control tokens.

        Raises NumericError on NaN, +inf or no possible token, SourceError for a row of another length.
        """
        import torch

        if len(logits) - self.size not in (0, 1):
            raise SourceError(f"a model gave {len(logits)} numbers for {self.size} tokens; see its version")
        with torch.inference_mode():
            wide = logits if logits.dtype == torch.float64 else logits.float()
            mass = torch.softmax(wide, dim=-1).cpu().numpy()
        ordinary = mass[self.order]
        end = float(mass[self.ends].sum(dtype=float))
        hidden = float(mass[-1]) if len(mass) > self.size else 0.0
        total = float(ordinary.sum(dtype=float)) + end + hidden
        if not 0 < total < 2:
            raise NumericError("a model returned NaN, +inf or no possible token; check its weights and dtype")
        return TokenRow(ordinary / total, end / total, hidden / total, max(0.0, 1.0 - total))
