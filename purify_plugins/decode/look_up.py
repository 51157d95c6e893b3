"""Prompt look-up: a draft copied from the text so far, for which no model takes a step.

Text repeats itself: names, code, quotations of the prompt. Source: prompt look-up decoding (A. Saxena 2023),
transformers' `prompt_lookup_num_tokens`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purify_plugins.decode.row import Row
    from purify_plugins.types import Vocabulary

MATCH = 4
"""Tokens that the text must end with as it did before."""
FIRST, LONGEST = 2, 16
"""Tokens of the first draft, and of the longest: twice as many after each that was accepted whole."""
UNIT = "I"
"""The array's type: four bytes, enough for any token id."""


class LookUp:
    """Drafts for one row; `text` are the prompt's symbols, `unit` of them in a token.

    A draft is what followed the latest time that the text ended with the same symbols. After a draft of which
    nothing was accepted twice as many must be the same.
    """

    def __init__(self, text: Sequence[int], unit: int) -> None:
        self._text, self._size = array(UNIT, text), len(text)
        self.unit, self.match, self.length = unit, MATCH * unit, FIRST * unit
        self._drafted = 0

    def draft(self, answer: Sequence[int], most: int) -> list[int]:
        """At most `most` symbols that may follow the answer so far; none where nothing is repeated."""
        known = len(self._text) - self._size
        self._text.extend(answer[known:])
        at = self._repeated()
        found = self._text[at : at + min(self.length, most)].tolist() if at else []
        self._drafted = len(found)
        return found

    def _repeated(self) -> int:
        """Where the text goes on after the latest earlier place that has its last symbols; 0: nowhere."""
        wide, text = self._text.itemsize, self._text.tobytes()
        last, end = text[-self.match * wide :], len(text) - wide
        if len(last) < self.match * wide:
            return 0
        while (at := text.rfind(last, 0, end)) > 0 and at % wide:  # between two symbols
            end = at + len(last) - 1
        return 0 if at < 0 else at // wide + self.match

    def observe(self, position: int, accepted: float) -> None:
        """Learn whether the drafted symbol at this position was accepted."""
        if position >= self._drafted:
            return
        if accepted and position == self._drafted - 1:
            self.length, self.match = min(2 * self.length, LONGEST * self.unit), MATCH * self.unit
        elif not accepted:
            self.length = FIRST * self.unit
            self.match *= 1 if position else 2


def symbols_before(row: Row, read: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """A row's prompt in symbols of the vocabulary; `read` are the ids that the SLM read.

    Where these are own tokens of the SLM's (negative), the prompt's bytes, if each is a symbol.
    """
    if min(read, default=0) >= 0:
        return [*read]
    prompt = row.prompt
    if isinstance(prompt, tuple):
        return [symbol for symbol in read if symbol >= 0]
    said = (
        [prompt] if isinstance(prompt, str) else [str(each.get("content") or "") for each in prompt.messages]
    )
    numbers = {symbol[0]: number for number, symbol in enumerate(vocabulary.tokens) if len(symbol) == 1}
    return [numbers[byte] for byte in "\n".join(said).encode() if byte in numbers]
