"""Forced suites, measured in pieces: every missing system over some texts, whose rows are read once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from purify_hooks.evaluation.eval.results_cache import Cell, lines
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Items, Samples, texts
from purify_hooks.evaluation.eval.systems import ALONE, System
from purify_plugins.utils.files import write_whole

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_plugins.decode.forced_text import ForcedText, Likelihood

PIECE = 2500
"""What a piece costs at most, in tokens that both models read: about twenty seconds of one core for a pair of
a hundred million parameters each."""
RUN = 0.1
"""What a policy costs over one row, in the same unit."""


class CellWork(NamedTuple):
    """One cell to be measured."""

    key: str
    system: System
    suite: str
    mode: str


class PieceScores(NamedTuple):
    """The scores of a piece's texts under each system, and the CPU seconds they took."""

    scores: list[tuple[Likelihood, ...]]
    seconds: float

    def line(self, key: str) -> str:
        """As one line of JSON, by the piece's key."""
        scores = [[astuple(each) for each in text] for text in self.scores]
        return json.dumps({"key": key, "seconds": self.seconds, "scores": scores})


def kept_pieces(file: Path) -> dict[str, PieceScores]:
    """The pieces of a file by their keys, but for a line that a killed run was writing."""
    from purify_plugins.decode.forced_text import Likelihood

    found: dict[str, PieceScores] = {}
    for line in lines(file):
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            scores = [tuple(Likelihood(*map(tuple, each)) for each in text) for text in record["scores"]]
            found[record["key"]] = PieceScores(scores, record["seconds"])
    return found


def drop_pieces(file: Path, finished: Measurement) -> None:
    """Remove a finished suite's pieces; those of a suite that another run has begun stay."""
    used = {finished.key(piece) for piece in finished.pieces}
    left = [found.line(key) for key, found in kept_pieces(file).items() if key not in used]
    if left:
        write_whole(file, "\n".join([*left, ""]))
    else:
        file.unlink(missing_ok=True)


def score(systems: Sequence[System], piece: Sequence[ForcedText], pair: ModelPair) -> PieceScores:
    """Run the systems over a piece of a suite's texts."""
    start = time.process_time()
    return PieceScores(pair.scores(systems, piece), time.process_time() - start)


@dataclass(eq=False)
class Measurement:
    """One forced suite, of those systems that lack a cell of it."""

    suite: ForcedSuite
    missing: Sequence[CellWork]
    """Its cells that are not there, one or more."""
    items: Items
    texts: list[ForcedText] = field(init=False)
    pieces: list[list[int]] = field(init=False)
    """Places in `texts`."""
    _scores: dict[int, tuple[Likelihood, ...]] = field(default_factory=dict)
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self.texts = texts(self.items)
        self.pieces = list(pieces(self.texts, len(self.run)))

    @property
    def name(self) -> str:
        return self.missing[0].suite

    @property
    def systems(self) -> list[System]:
        """Those that lack a cell, in an order that does not depend on the plan's: kept scores are in it."""
        ordered = sorted(self.missing, key=lambda each: each.key)
        return list({each.system.key: each.system for each in ordered}.values())

    @property
    def run(self) -> list[System]:
        """The systems that are run: both models alone are in every verdict."""
        return [*ALONE, *self.systems]

    def key(self, piece: Sequence[int]) -> str:
        """SHA-256 of everything a piece's scores depend on: what the missing cells do, and its texts."""
        depends = [*sorted(each.key for each in self.missing), piece]
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()

    def add(self, piece: Sequence[int], found: PieceScores, pair: ModelPair) -> list[Cell]:
        """Keep a piece's scores; the missing cells, once every piece is there."""
        self._scores.update(zip(piece, found.scores, strict=True))
        self._seconds += found.seconds
        return self.cells(pair) if len(self._scores) == len(self.texts) else []

    def cells(self, pair: ModelPair) -> list[Cell]:
        """The missing cells, once every piece is there; without a figure where nothing is asked."""
        keys = {(each.system.key, each.mode): each.key for each in self.missing}
        scores = [self._scores[at] for at in range(len(self.texts))]
        each = round(self._seconds / max(len(keys), 1), 2)
        nothing: Sequence[dict[str, Samples]] = [
            {mode: {} for mode in self.suite.modes} for _ in self.systems
        ]
        found = self.suite.judged(pair, self.items, scores) if scores else nothing
        return [
            Cell(key, system.key, self.name, mode, each, samples)
            for system, by_mode in zip(self.systems, found, strict=True)
            for mode, samples in by_mode.items()
            if (key := keys.get((system.key, mode)))
        ]


def pieces(every: Sequence[ForcedText], systems: int) -> Iterator[list[int]]:
    """The texts' places in pieces of about the same cost; texts with one prompt stay together."""
    from purify_plugins.decode.forcing import by_prompt, size

    piece: list[int] = []
    spent = 0.0
    for places in sorted(by_prompt(every), key=lambda places: size(every[places[0]].prompt)):
        tokens = sum(len(every[at].tokens) for at in places)
        cost = size(every[places[0]].prompt) + (1 + RUN * systems) * tokens
        if piece and spent + cost > PIECE:
            yield piece
            piece, spent = [], 0.0
        piece += places
        spent += cost
    if piece:
        yield piece
