"""Runs: words of protected works that a text ends with, followed from one letter to the next.

The index says of each word of the works how many letters it has, and which print ends with it. So a run
goes on where, so many letters later, a print ends with the work's next word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from purify_hooks.protected.prints import Roller

if TYPE_CHECKING:
    from purify_hooks.protected.index import FoundPrint, PrintIndex

FREQUENT: Final = 64
"""Places of a print that a run may begin at; of one with more, a run goes on at any."""


class CopiedRun(NamedTuple):
    """Words of a work with which an answer's letters end: the last one's position, its end, and how many.

    `end` is a number of letters since the answer, or what stands before it, began.
    """

    word: int
    end: int
    words: int


class RunPosition(NamedTuple):
    """Where an answer is: how many letters it has, the last ones with their print, and the runs that go on.

    `frequent` are the last ends of prints with more than `FREQUENT` places, `pending` bytes of a character
    that is not complete. Before the first letter stand up to `unseen` others, of whatever work.
    """

    length: int
    last: str
    print: int
    runs: tuple[CopiedRun, ...] = ()
    frequent: tuple[int, ...] = ()
    pending: bytes = b""
    unseen: int = 0


class WorkRuns:
    """What follows the runs of protected works; those `quotable` may go on for ever."""

    def __init__(self, index: PrintIndex, longest: int, quotable: frozenset[str]) -> None:
        self.index, self.longest, self.quotable = index, longest, quotable
        self.roller = Roller(index.header.length)
        self.beginning = RunPosition(0, " " * index.header.length, 0)
        # What stands before an answer is not known, but that it ends with no whole print: `CopyMask.after`.
        self.answering = self.beginning._replace(unseen=index.header.length - 1)

    def completed(self, run: CopiedRun) -> tuple[int, int]:
        """Which word would make a run too long, and where that word ends."""
        word = run.word + max(1, self.longest - run.words)
        return word, run.end + sum(self.index.lengths[run.word + 1 : word + 1])

    def read(self, position: RunPosition, letters: str, pending: bytes = b"") -> RunPosition:
        """The position after these letters."""
        if not letters:
            return position._replace(pending=pending)
        prints = self.roller.rolled(position.print, position.last, letters)
        for found in self.index.found(prints):
            position = self._hit(position, position.length + found.at + 1, prints[found.at], found)
        _, last, _, runs, frequent, _, unseen = position
        length = position.length + len(letters)
        last = (last + letters)[-len(last) :]
        if runs:
            runs = tuple(run for run in runs if self._goes_on(run, length))
        return RunPosition(length, last, prints[-1], runs, frequent, pending, unseen)

    def _goes_on(self, run: CopiedRun, length: int) -> bool:
        """Whether a run's next word is not complete yet, or the run is complete at this length."""
        return run.end + self._following(run) > length

    def _following(self, run: CopiedRun) -> int:
        """How many letters the work's next word has; 0 at the end of all works."""
        following = run.word + 1
        return self.index.lengths[following] if following < len(self.index.lengths) else 0

    def _hit(self, position: RunPosition, end: int, print_: int, record: FoundPrint) -> RunPosition:
        """The position with the runs that a print in the index goes on with, and those that it begins."""
        found, on = [], set()
        for run in position.runs:
            left = run.end + self._following(run) - end  # letters of the work's next word
            if left > 0:
                found.append(run)
            elif left == 0 and self.index.complete(print_, run.word + 1):
                found.append(CopiedRun(run.word + 1, end, run.words + 1))
                on.add(run.word + 1)
        places = self.index.places(record, FREQUENT + 1)
        if len(places) > FREQUENT:
            position = position._replace(frequent=(*position.frequent[-self.longest :], end))
        for word in places[:FREQUENT]:
            if word not in on and not self._free(word):
                found.append(CopiedRun(word, end, self._begun(position, word, end)))
        return position._replace(runs=tuple(found))

    def _free(self, word: int) -> bool:
        return bool(self.quotable) and self.index.source(word) in self.quotable

    def _begun(self, position: RunPosition, word: int, end: int) -> int:
        """The most words that a run can have when its first print ends with this one."""
        lengths = self.index.lengths
        words, start = 1, end - lengths[word]
        while (
            word > 0 and start in position.frequent
        ):  # words whose prints have too many places to follow each
            word, words = word - 1, words + 1
            start -= lengths[word]
        # Of more letters before, a print would have been found with the word that they end with.
        print_ = self.index.header.length
        left = start + position.unseen if start < print_ else print_ - 1
        while word > 0 and left >= lengths[word - 1]:
            word, words = word - 1, words + 1
            left -= lengths[word]
        return words
