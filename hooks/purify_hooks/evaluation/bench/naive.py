"""Fusion as a LogitsProcessor that runs the SLM inside the LLM's `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def is_memoryless(policy: Any) -> bool:
    """Whether a policy has no state and no lookback, as a LogitsProcessor requires."""
    import torch

    from purify_plugins.policy import Context

    nothing = torch.zeros(1, 1)
    none = torch.zeros(1, dtype=torch.long)
    return not policy.lookback and not policy.start(Context(nothing, nothing, none, none.bool()))


class NaiveFusion:
    """Fuses the scores of one `generate` call with an SLM that keeps its own cache.

    `mask` (rows, n) is that of the prompts. It serves one call: make a new one for each.
    """

    def __init__(self, slm: Any, policy: Any, mask: Tensor) -> None:
        self.slm, self.policy, self.mask = slm, policy, mask
        self.eos = sorted(slm.vocabulary.eos)
        self.raw = policy.shift_invariant
        self.cache: Any = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (rows, V) of the LLM -> fused scores (rows, V)."""
        slm = self._read(input_ids)
        slm[:, self.eos] = -float("inf")
        if not self.raw:
            scores, slm = scores.log_softmax(dim=-1), slm.log_softmax(dim=-1)
        fused: Tensor = self.policy.fuse(scores, slm, ())
        return fused

    def _read(self, input_ids: Tensor) -> Tensor:
        """The SLM's logits (rows, V) in float32, after reading the tokens that are new."""
        import torch

        new, columns = (input_ids if self.cache is None else input_ids[:, -1:]), input_ids.shape[1]
        self.mask = torch.nn.functional.pad(self.mask, (0, columns - self.mask.shape[1]), value=1)
        read = self.slm.local_model.forward(
            new,
            self.cache,
            mask=self.mask,
            positions=(self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new.shape[1] :],
            last=1,
        )
        self.cache = read.cache
        logits: Tensor = read.logits[:, -1, : len(self.slm.vocabulary)]
        return logits.to(torch.float32, copy=True)
