"""`FusionPolicy`: how the two models' rows are fused, with every optional member and its default.

Subclass it. An object of another class with the members `guarantee`, `lookback`, `start`, `fuse` and
`advance` works too: `adapted_policy` adds the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.protocols import member

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.types import Guarantee, Token, Vocabulary

State = tuple["Tensor", ...]
"""A policy's state: tensors whose first dimension is the row."""


@dataclass(frozen=True)
class Context:
    """The scored end of each prompt, given to a policy when a batch of `rows` answers begins.

    `llm` and `slm` are (rows, n) float32 log-probabilities (nats) of the prompt's last n tokens
    that both models read alike, right-aligned and zero-filled on the left; `lengths` (rows,) counts
    the real ones. With two tokenizers n counts symbols: a stretch of text that both models read in whole
    tokens has the sums of their log-probabilities at its first symbol, and 0 at the others.
    `greedy` (rows,) bool: the answer takes the arg-max instead of a draw. `tokens` (rows, n) are the ids of
    those tokens or symbols; None where there are only their scores. The last `turn` (rows,) of the real ones
    are of the turn that the answer goes on with, none of a chat whose answer is to begin; None: all are.
    """

    llm: Tensor
    slm: Tensor
    lengths: Tensor
    greedy: Tensor
    tokens: Tensor | None = None
    turn: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.lengths)


class FusionPolicy(ABC):
    """Fuses the two models' rows; a frozen dataclass whose fields are its options.

    A subclass has `fuse`; the other members have defaults: no guarantee, no memory.
    """

    @member
    def guarantee(self) -> Guarantee:
        """The guarantee that a certificate may claim for a sampled answer whose steps pass `holds`."""
        return "none"

    @member
    def lookback(self) -> int:
        """How many of the prompt's last tokens `start` needs scored; 0: none.

        They are the LLM's tokens, also after `in_symbols`: with two tokenizers `start` gets as many symbols
        as they come to on average.
        """
        return 0

    @member
    def shift_invariant(self) -> bool:
        """Whether adding a constant to a row only shifts the fused row, so that rows may be raw logits."""
        return False

    def start(self, context: Context) -> State:
        """The state before the first token; tensors (rows, …), or () for a policy without memory."""
        return ()

    @abstractmethod
    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        """Combine (rows, V) log-probabilities into (rows, V) log-weights; pure.

        The loop normalises the result. Minus infinity is an ordinary value in and out.
        """

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        """The state after `tokens` (rows,) were drawn from `fused`; the rows are (rows, V)."""
        return state

    @member
    def binds(self) -> bool:
        """Whether the policy depends on token ids, and needs whole rows: true of a class with `bind`."""
        return type(self).bind is not FusionPolicy.bind

    def bind(self, vocabulary: Vocabulary) -> FusionPolicy:
        """The policy for this vocabulary, once it is known. Raises ConfigError, VocabularyError."""
        return self

    def in_symbols(self, per_token: float) -> FusionPolicy:
        """The equally strict policy for symbols, of which a token of the LLM has `per_token` on average."""
        return self

    def tightened(self, factor: float) -> FusionPolicy | None:
        """The policy with its latitude times `factor`, from 1 (itself) down to 0 (the SLM alone).

        From equal states no row of it is further from the SLM's, and what it guarantees is no looser. None:
        it cannot, and a request that asks for less than its whole strength is refused. Raises ConfigError for
        another factor.
        """
        return None

    def holds(self, steps: Sequence[Token]) -> bool | None:
        """Whether an answer's recorded steps satisfy `guarantee`; `Token.llm` is not recorded.

        None: unknown; no guarantee is then ever issued.
        """
        return None

    def allowance(self, tokens: int, surprisal: float) -> float | None:
        """The most nats by which a passage may be likelier than under the SLM; None: there is no bound.

        `tokens` is the length of the passage, `surprisal` (nats) its surprisal under the SLM.
        """
        return None

    @member
    def sweep(self) -> tuple[str, tuple[float, ...]] | None:
        """The main option and the values an evaluation tries; None: the first number, around its default."""
        return None

    @member
    def unmeasured(self) -> str:
        """Why an evaluation cannot measure this policy with two models as they are; "": it can."""
        return ""

    @member
    def original(self) -> Any:
        """The author's own object: policies are named by its class, and its fields are the options."""
        return self
