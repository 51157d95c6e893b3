"""Token prefixes that a model was evaluated on: a tree per row, read through one KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from purify_plugins.protocols import Session
    from purify_plugins.tokenizers.cross.vocabulary_trie import TokenRow, VocabularyTrie

    Array = ndarray[Any, Any]

REMEMBERED = 256
"""Distributions kept for each row; older ones are computed again if they are needed."""


class NextTokenDistribution:
    """The next-token distribution after a prefix, computed lazily from logits (V,) or a partial row (V + 1,).

    `tokens` (n,) are the probabilities of the sorted ordinary tokens, `end` that of the end, `hidden` that of
    what a server did not show; together 1. `first` are the probabilities of the next token's first symbol,
    `masked` what the control tokens had.
    """

    def __init__(self, trie: VocabularyTrie, logits: Tensor) -> None:
        self._trie, self._logits = trie, logits

    @cached_property
    def _read(self) -> TokenRow:
        found = self._trie.read(self._logits)
        del self._logits
        return found

    @property
    def tokens(self) -> Array:
        return self._read.tokens

    @property
    def end(self) -> float:
        return self._read.end

    @property
    def hidden(self) -> float:
        return self._read.hidden

    @property
    def masked(self) -> float:
        return self._read.masked

    @cached_property
    def first(self) -> Array:
        return self._trie.root.mass(self.tokens)


class TokenPrefix:
    """A sequence of the model's own tokens after the prompt; equal sequences are the same object."""

    __slots__ = ("_children", "column", "distribution", "length", "parent", "token")

    def __init__(self, parent: TokenPrefix | None = None, token: int = -1) -> None:
        self.parent, self.token = parent, token
        self.length: int = 0 if parent is None else parent.length + 1
        self.distribution: NextTokenDistribution | None = None
        self.column = -1  # the last token's column in a cache that holds several prefixes; -1: not cached
        self._children: dict[int, TokenPrefix] = {}

    def then(self, token: int) -> TokenPrefix:
        """This prefix and one more token."""
        if token not in self._children:
            self._children[token] = TokenPrefix(self, token)
        return self._children[token]

    def back(self, length: int) -> TokenPrefix:
        """The first `length` tokens of this prefix."""
        at = self
        while at.length > length and at.parent is not None:
            at = at.parent
        return at

    def after(self, other: TokenPrefix) -> list[TokenPrefix]:
        """The prefixes after `other`, itself a prefix of this one, up to this one."""
        path: list[TokenPrefix] = []
        at: TokenPrefix | None = self
        while at is not None and at is not other:
            path.append(at)
            at = at.parent
        return path[::-1]


def common(one: TokenPrefix, other: TokenPrefix) -> TokenPrefix:
    """The longest common prefix."""
    length = min(one.length, other.length)
    one, other = one.back(length), other.back(length)
    while one is not other and one.parent is not None and other.parent is not None:
        one, other = one.parent, other.parent
    return one


class PrefixReader:
    """Evaluates prefixes with a session, the rows of a batch together.

    `calls` counts forward passes. Each row's cache holds one prefix at a time and is rewound to the common
    prefix before another is read. `spare` is how many prefixes beyond the required ones a pass may evaluate.
    """

    spare = 0

    def __init__(self, session: Session, trie: VocabularyTrie, rows: int) -> None:
        self.session, self.trie = session, trie
        self.roots = [TokenPrefix() for _ in range(rows)]
        self.calls = 0
        self._at = list(self.roots)
        self._cached = [0] * rows
        self._remembered: list[dict[TokenPrefix, None]] = [{} for _ in range(rows)]

    def note(self, row: int, prefix: TokenPrefix, logits: Tensor) -> None:
        """Keep the logits (V,) after a prefix."""
        # A view would keep the logits of the whole pass as long as one of its rows.
        prefix.distribution = NextTokenDistribution(self.trie, logits.clone())
        kept = self._remembered[row]
        kept.pop(prefix, None)
        kept[prefix] = None

    @property
    def masked(self) -> float:
        """The largest probability that control tokens had in any row that is kept."""
        known = [prefix.distribution for kept in self._remembered for prefix in kept]
        return max((distribution.masked for distribution in known if distribution is not None), default=0.0)

    def close(self) -> None:
        """Drop every distribution: prefixes refer to each other, and would be freed late."""
        for kept in self._remembered:
            for prefix in kept:
                prefix.distribution = None
            kept.clear()

    def _forget(self) -> None:
        """Drop the oldest distributions, but the prompts', which no pass could give again.

        Before a pass, so that all of its results are kept.
        """
        for root, kept in zip(self.roots, self._remembered, strict=True):
            old = [prefix for prefix in kept if prefix is not root]
            for prefix in old[: max(len(old) - REMEMBERED, 0)]:
                prefix.distribution = None
                del kept[prefix]

    def read(self, wanted: Sequence[Sequence[TokenPrefix]]) -> None:
        """Evaluate the prefixes each row wants and does not have; one per row in each pass."""
        for turn in _turns(wanted):
            self._pass(
                [prefix if prefix is not None and prefix.distribution is None else None for prefix in turn]
            )

    def _pass(self, turn: Sequence[TokenPrefix | None]) -> None:
        import torch

        if not any(turn):
            return
        self._forget()
        paths = [self._rewound(row, prefix) for row, prefix in enumerate(turn)]
        kept = [at.length for at in self._at]
        if kept != self._cached:
            self.session.rewind(torch.tensor(kept))
        width = max(map(len, paths))
        tokens = [[*(each.token for each in path), *[0] * (width - len(path))] for path in paths]
        self._cached = [-1] * len(paths)  # unknown if the pass fails half way
        logits = self.session.extend(torch.tensor(tokens))
        self.calls += 1
        for row, path in enumerate(paths):
            for place, prefix in enumerate(path):
                if prefix.distribution is None:
                    self.note(row, prefix, logits[row, place])
            self._at[row] = path[-1] if path else self._at[row]
            self._cached[row] = kept[row] + width

    def _rewound(self, row: int, prefix: TokenPrefix | None) -> list[TokenPrefix]:
        """Rewind a row's cache to its common prefix with `prefix`; return what must be read from there.

        A prefix whose distribution was dropped is read again with its last token.
        """
        if prefix is None:
            return []
        shared = common(self._at[row], prefix)
        if shared is prefix and prefix.parent is not None:
            shared = prefix.parent
        self._at[row] = shared
        return prefix.after(shared)


def _turns(wanted: Sequence[Sequence[TokenPrefix]]) -> Iterator[list[TokenPrefix | None]]:
    """The n-th prefix of every row, for each n."""
    for at in range(max(map(len, wanted), default=0)):
        yield [row[at] if at < len(row) else None for row in wanted]


WASTE = 64
"""Unused cache columns that are tolerated, beside twice as many as the longest prefix has."""


class BranchingReader(PrefixReader):
    """Evaluates several prefixes of every row in one pass, by tree attention.

    The session's cache holds all of them; once most of its columns are unused, all but the prefix evaluated
    last are dropped.
    """

    spare = 4

    def __init__(self, session: Session, trie: VocabularyTrie, rows: int) -> None:
        super().__init__(session, trie, rows)
        self._columns = 0
        self._held: list[list[TokenPrefix]] = [[] for _ in range(rows)]

    def read(self, wanted: Sequence[Sequence[TokenPrefix]]) -> None:
        """Evaluate all prefixes the rows want and do not have, in one pass."""
        new = [_unread(prefixes) for prefixes in wanted]
        if not any(new):
            return
        self._forget()
        self._tidy()
        new = [_unread(prefixes) for prefixes in wanted]
        logits = self._asked(new, max(map(len, new)))
        self.calls += 1
        for row, prefixes in enumerate(new):
            for place, prefix in enumerate(prefixes):
                prefix.column = self._columns + place
                if prefix.distribution is None:
                    self.note(row, prefix, logits[row, place])
            self._held[row] += prefixes
        self._columns += logits.shape[1]

    def _asked(self, new: Sequence[Sequence[TokenPrefix]], width: int) -> Tensor:
        """The logits (rows, width, V) after each row's prefixes; short rows are padded."""
        import numpy
        import torch

        tokens = numpy.zeros((len(new), width), dtype=int)
        seen = numpy.zeros((len(new), width, self._columns + width), dtype=bool)
        seen[:, range(width), range(self._columns, self._columns + width)] = True
        for row, prefixes in enumerate(new):
            places = {prefix: self._columns + place for place, prefix in enumerate(prefixes)}
            for place, prefix in enumerate(prefixes):
                tokens[row, place] = prefix.token
                run = prefix.after(self.roots[row])
                seen[row, place, [places.get(each, each.column) for each in run]] = True
        return self.session.branch(torch.from_numpy(tokens), torch.from_numpy(seen))

    def _tidy(self) -> None:
        import torch

        runs = [
            held[-1].after(root) if held else [] for held, root in zip(self._held, self.roots, strict=True)
        ]
        width = max(map(len, runs))
        if self._columns <= 2 * width + WASTE:
            return
        columns = [[each.column for each in run] + [0] * (width - len(run)) for run in runs]
        self.session.select(torch.tensor(columns))
        for held, run in zip(self._held, runs, strict=True):
            for prefix in held:
                prefix.column = -1
            for at, prefix in enumerate(run):
                prefix.column = at
            held[:] = run
        self._columns = width


def _unread(wanted: Sequence[TokenPrefix]) -> list[TokenPrefix]:
    """The prefixes without a distribution and their own prefixes that are not cached, shortest first."""
    found: dict[TokenPrefix, None] = {}
    for prefix in wanted:
        at: TokenPrefix | None = prefix
        while (
            at is not None
            and at.parent is not None
            and (at.column < 0 or (at is prefix and not at.distribution))
        ):
            found[at] = None
            at = at.parent
    return sorted(found, key=lambda prefix: prefix.length)
