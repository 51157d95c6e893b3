"""How the two models' rows become one: `FusionPolicy`, with every optional member and its default.

Subclass it. An object of another class that has its five oldest members (`guarantee`, `lookback`, `start`,
`fuse`, `advance`) works too: `adapted_policy` adds the others.
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
"""What a policy remembers of each row: tensors whose first dimension is the row."""


@dataclass(frozen=True)
class Context:
    """What a policy may know when an answer begins; `rows` answers begin together.

    `llm` and `slm` are (rows, n) float32 log-probabilities (nats) of the prompt's last n tokens
    that both models read alike, right-aligned and zero-filled on the left; `lengths` (rows,) counts
    the real ones. `greedy` (rows,) bool: the answer takes the arg-max instead of a draw.
    """

    llm: Tensor
    slm: Tensor
    lengths: Tensor
    greedy: Tensor

    @property
    def rows(self) -> int:
        return len(self.lengths)


class FusionPolicy(ABC):
    """How the two models' rows become one; a frozen dataclass whose fields are its options.

    A subclass has `fuse`; the other members have defaults: no guarantee, no memory.
    """

    @member
    def guarantee(self) -> Guarantee:
        """What a certificate may claim of a sampled answer whose steps `holds` finds within the budget."""
        return "none"

    @member
    def lookback(self) -> int:
        """How many of the prompt's last tokens `start` wants scored; 0: none."""
        return 0

    @member
    def shift_invariant(self) -> bool:
        """Whether a constant added to a row only shifts the outcome, so that rows may be raw logits."""
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
        """Whether tokens are known by their ids, so that rows must be whole: true of a class with `bind`."""
        return type(self).bind is not FusionPolicy.bind

    def bind(self, vocabulary: Vocabulary) -> FusionPolicy:
        """The policy for this vocabulary, once it is known. Raises ConfigError, VocabularyError."""
        return self

    def in_symbols(self, per_token: float) -> FusionPolicy:
        """The same strictness in symbols smaller than tokens, of which a token of the LLM has `per_token`."""
        return self

    def holds(self, steps: Sequence[Token]) -> bool | None:
        """Whether an answer's recorded steps keep what `guarantee` says; `Token.llm` is not recorded.

        None: this policy cannot tell, and then no guarantee of it is ever issued.
        """
        return None

    def allowance(self, tokens: int, surprisal: float) -> float | None:
        """The most nats by which a passage may be likelier than under the SLM; None: there is no bound.

        The passage has so many `tokens` and costs the SLM `surprisal` nats.
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
        """The object that its author wrote: a name stands for its class, its fields are the options."""
        return self
