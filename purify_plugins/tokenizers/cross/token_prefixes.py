"""What a model has been asked: a tree of token runs, read through one KV cache per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from purify_plugins.protocols import Session
    from purify_plugins.tokenizers.cross.vocabulary_trie import Table

    Array = ndarray[Any, Any]

REMEMBERED = 256
"""Distributions kept for each row; older ones are asked for again if anybody comes back to them."""


class Opinion:
    """What the model says after some tokens; worked out of its logits (V,) when somebody looks.

    `tokens` (n,) are the probabilities of the sorted ordinary tokens, `end` the end's; together 1.
    `first` are the masses of the symbols the next token may begin with, `masked` what the model gave
    to control tokens.
    """

    def __init__(self, table: Table, logits: Tensor) -> None:
        self._table, self._logits = table, logits

    @cached_property
    def _read(self) -> tuple[Array, float, float]:
        found = self._table.read(self._logits)
        del self._logits
        return found

    @property
    def tokens(self) -> Array:
        return self._read[0]

    @property
    def end(self) -> float:
        return self._read[1]

    @property
    def masked(self) -> float:
        return self._read[2]

    @cached_property
    def first(self) -> Array:
        return self._table.root.mass(self.tokens)


class Context:
    """A run of the model's own tokens after the prompt; the same run is always the same object."""

    __slots__ = ("_children", "column", "length", "opinion", "parent", "token")

    def __init__(self, parent: Context | None = None, token: int = -1) -> None:
        self.parent, self.token = parent, token
        self.length: int = 0 if parent is None else parent.length + 1
        self.opinion: Opinion | None = None
        self.column = -1  # where a cache that holds several runs has its last token, if it does
        self._children: dict[int, Context] = {}

    def then(self, token: int) -> Context:
        """This run and one more token."""
        if token not in self._children:
            self._children[token] = Context(self, token)
        return self._children[token]

    def back(self, length: int) -> Context:
        """The first `length` tokens of this run."""
        at = self
        while at.length > length and at.parent is not None:
            at = at.parent
        return at

    def after(self, other: Context) -> list[Context]:
        """The contexts from `other`, which begins this one, up to this one."""
        path: list[Context] = []
        at: Context | None = self
        while at is not None and at is not other:
            path.append(at)
            at = at.parent
        return path[::-1]


def common(one: Context, other: Context) -> Context:
    """The longest run both begin with."""
    length = min(one.length, other.length)
    one, other = one.back(length), other.back(length)
    while one is not other and one.parent is not None and other.parent is not None:
        one, other = one.parent, other.parent
    return one


class Reader:
    """Asks a session about contexts; rows of a batch that want something are asked together.

    `calls` counts passes of the model. Each row's cache holds one context at a time: to read another
    it goes back to what the two have in common. `spare` is how many contexts more than it must a pass
    reads, in case they are asked about next.
    """

    spare = 0

    def __init__(self, session: Session, table: Table, rows: int) -> None:
        self.session, self.table = session, table
        self.roots = [Context() for _ in range(rows)]
        self.calls = 0
        self._at = list(self.roots)
        self._cached = [0] * rows
        self._remembered: list[dict[Context, None]] = [{} for _ in range(rows)]

    def note(self, row: int, context: Context, logits: Tensor) -> None:
        """Keep what the model said (V,) after a context."""
        context.opinion = Opinion(self.table, logits)
        kept = self._remembered[row]
        kept.pop(context, None)
        kept[context] = None

    @property
    def masked(self) -> float:
        """The most mass that control tokens had in any row that is remembered."""
        known = [context.opinion for kept in self._remembered for context in kept]
        return max((opinion.masked for opinion in known if opinion is not None), default=0.0)

    def _forget(self) -> None:
        """Keep what was said last; before a pass, so that all that comes of it is there."""
        for kept in self._remembered:
            for context in [*kept][: max(len(kept) - REMEMBERED, 0)]:
                context.opinion = None
                del kept[context]

    def read(self, wanted: Sequence[Sequence[Context]]) -> None:
        """Ask for the contexts each row wants and does not have; one of every row in each pass."""
        for turn in _turns(wanted):
            self._pass(
                [context if context is not None and context.opinion is None else None for context in turn]
            )

    def _pass(self, turn: Sequence[Context | None]) -> None:
        import torch

        if not any(turn):
            return
        self._forget()
        paths = [self._rewound(row, context) for row, context in enumerate(turn)]
        kept = [at.length for at in self._at]
        if kept != self._cached:
            self.session.rewind(torch.tensor(kept))
        width = max(map(len, paths))
        tokens = [[*(each.token for each in path), *[0] * (width - len(path))] for path in paths]
        self._cached = [-1] * len(paths)  # not known, should the pass fail half way
        logits = self.session.extend(torch.tensor(tokens))
        self.calls += 1
        for row, path in enumerate(paths):
            for place, context in enumerate(path):
                if context.opinion is None:
                    self.note(row, context, logits[row, place])
            self._at[row] = path[-1] if path else self._at[row]
            self._cached[row] = kept[row] + width

    def _rewound(self, row: int, context: Context | None) -> list[Context]:
        """Step back to what a row's cache and `context` share; what must be read from there.

        A context that was read once and forgotten is read again with its last token.
        """
        if context is None:
            return []
        shared = common(self._at[row], context)
        if shared is context and context.parent is not None:
            shared = context.parent
        self._at[row] = shared
        return context.after(shared)


def _turns(wanted: Sequence[Sequence[Context]]) -> Iterator[list[Context | None]]:
    """The n-th wish of every row, for each n."""
    for at in range(max(map(len, wanted), default=0)):
        yield [row[at] if at < len(row) else None for row in wanted]


WASTE = 64
"""Columns of a cache that nobody may need again, beside twice as many as the longest run has."""


class Branching(Reader):
    """Asks about several contexts of every row in one pass: each sees the columns of its own run alone.

    The session's cache holds every run there is; where most of it is past use, all but the run that was
    asked about last is dropped.
    """

    spare = 4

    def __init__(self, session: Session, table: Table, rows: int) -> None:
        super().__init__(session, table, rows)
        self._columns = 0
        self._held: list[list[Context]] = [[] for _ in range(rows)]

    def read(self, wanted: Sequence[Sequence[Context]]) -> None:
        """Ask for all contexts the rows want and do not have, in one pass."""
        new = [_unread(contexts) for contexts in wanted]
        if not any(new):
            return
        self._forget()
        self._tidy()
        new = [_unread(contexts) for contexts in wanted]
        logits = self._asked(new, max(map(len, new)))
        self.calls += 1
        for row, contexts in enumerate(new):
            for place, context in enumerate(contexts):
                context.column = self._columns + place
                if context.opinion is None:
                    self.note(row, context, logits[row, place])
            self._held[row] += contexts
        self._columns += logits.shape[1]

    def _asked(self, new: Sequence[Sequence[Context]], width: int) -> Tensor:
        """The logits (rows, width, V) after each row's contexts, short rows filled up with nothing."""
        import numpy
        import torch

        tokens = numpy.zeros((len(new), width), dtype=int)
        seen = numpy.zeros((len(new), width, self._columns + width), dtype=bool)
        seen[:, range(width), range(self._columns, self._columns + width)] = True
        for row, contexts in enumerate(new):
            places = {context: self._columns + place for place, context in enumerate(contexts)}
            for place, context in enumerate(contexts):
                tokens[row, place] = context.token
                run = context.after(self.roots[row])
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
            for context in held:
                context.column = -1
            for at, context in enumerate(run):
                context.column = at
            held[:] = run
        self._columns = width


def _unread(wanted: Sequence[Context]) -> list[Context]:
    """The contexts without an opinion and what their runs lack in the cache, shortest first."""
    found: dict[Context, None] = {}
    for context in wanted:
        at: Context | None = context
        while (
            at is not None and at.parent is not None and (at.column < 0 or (at is context and not at.opinion))
        ):
            found[at] = None
            at = at.parent
    return sorted(found, key=lambda context: context.length)
