"""CP-Fuse: lean towards whichever model finds the answer so far less likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from purify_plugins.policy import Context, FusionPolicy, State

from ._base import drawn, ledger
from ._path import Path

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 1e-6  # nats by which the two models' costs may differ
FORBIDDEN = -100.0  # nats: a token a model rules out, in the running log-likelihoods


@dataclass(frozen=True)
class CPFuse(FusionPolicy):
    """Keep the answer equally likely under both models, so that neither recites.

    r minimises the larger of KL(r‖p_llm) - L_llm and KL(r‖p_slm) - L_slm, where L is the
    log-likelihood (nats) of the answer so far. The minimum lies on the geometric path, r ∝ p_llm^μ
    p_slm^(1-μ): the dual -log Z(μ) - μ L_llm - (1-μ) L_slm is concave, and flat where the mean of
    log p_llm/p_slm under r is L_slm - L_llm. We solve that; the paper tries 324 pairs of weights.

    Guarantee "none". Source: 2412.06619, section 3, for two models of like strength.
    """

    name: ClassVar[str] = "cp_fuse"

    def start(self, context: Context) -> State:
        """The log-likelihood (rows,) of the answer so far under the LLM and under the SLM."""
        return ledger(context), ledger(context)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        path = Path.between(slm, llm)
        lead = (state[1] - state[0]).tolist()
        return path.at(path.largest_theta(lambda point: (point.mean, point.variance), lead, SLACK))

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        of_llm, of_slm = (drawn(row, tokens).clamp(min=FORBIDDEN) for row in (llm, slm))
        return state[0] + of_llm, state[1] + of_slm
