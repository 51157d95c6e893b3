"""How far one draft goes: a number of tokens or, in symbols smaller than tokens, as many of the SLM's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.draft_length import DraftLength
    from purify_plugins.protocols import Session


class DraftSize:
    """One draft of `tokens` tokens, at most `most` symbols; `length` learns which were accepted.

    A draft in symbols begins with the rest of the token under way, whose row both models have already, and
    goes on with `tokens` of the SLM's own. So it ends where a token of the SLM's ends, which is mostly where
    one of the LLM's does: of the tokens that the LLM reads none is a fragment.
    """

    # Where the draft ends depends on drafted symbols, all of which are kept, and on the SLM's rows after
    # them: not on a symbol drawn and then dropped, nor on the LLM. So the distribution stays.
    # A fixed length counts symbols: how much of a seeded row's randomness a draft uses must not depend on the
    # rows beside it.

    def __init__(self, length: DraftLength, tokens: int, slm: Session, most: int) -> None:
        self.length, self.tokens, self.slm, self.most = length, tokens, slm, most
        self._counts_symbols = length.unit == 1 or length.fixed is not None
        self._begun = 0.0  # tokens of the SLM's own that the draft has begun
        self._token_of: list[int] = []  # the token, counted from 0, that each drafted symbol belongs to
        self._tried = 0.0

    def goes_on(self, drafted: Sequence[Tensor]) -> bool:
        """Whether another symbol is drafted after these, columns (rows, 1)."""
        if self._counts_symbols:
            return len(drafted) < self.tokens
        if len(drafted) >= self.most or not self._may_begin(drafted):
            return False
        self._token_of.append(max(int(self._begun) - 1, 0))
        return True

    def _may_begin(self, drafted: Sequence[Tensor]) -> bool:
        """Whether the next symbol needs no pass of the SLM, or one that the draft may still take."""
        self._begun += self.slm.asks(drafted[-1]) if drafted else 0.0
        return self._begun <= self.tokens

    def observe(self, position: int, tried: float, accepted: float) -> None:
        """As in `Drafts.observe`; a token of several symbols was accepted if all of them were."""
        if self.length.unit == 1:
            self.length.observe(position, tried, accepted)
        elif position < len(self._token_of):
            self._observe_symbol(position, tried, accepted)

    def _observe_symbol(self, position: int, tried: float, accepted: float) -> None:
        token, after = self._token_of[position], self._token_of[position + 1 : position + 2]
        if position == 0 or self._token_of[position - 1] != token:
            self._tried = tried
        if tried and token < self.tokens and (not accepted or after != [token]):
            self.length.observe(token, self._tried, accepted)
