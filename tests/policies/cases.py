"""What the policy tests share: one of each policy, random rows, and every answer of a tiny vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from purify_hooks.policies import POLICIES
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Vocabulary

SEEDS = st.integers(0, 2**31 - 1)
WORDS = Vocabulary((b" the", b" of", b" cat", b"the", b" sat", b" mat", b""), frozenset({6}), {6: "<end>"})
EACH = {name: make().bind(WORDS) if name == "token_swap" else make() for name, make in POLICIES.items()}
"""One of every bundled policy, with its defaults."""


def rows(
    seed: int, count: int = 3, size: int = 7, holes: float = 0.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Random log-probabilities (count, size), some sharp, some flat; a share of `holes` is -inf."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, size, generator=generator, dtype=torch.float64)
    logits *= torch.rand(count, 1, generator=generator, dtype=torch.float64) * 8
    missing = torch.rand(count, size, generator=generator) < holes
    missing[torch.arange(count), torch.randint(size, (count,), generator=generator)] = False
    return logits.masked_fill(missing, -torch.inf).log_softmax(dim=-1).to(dtype)


def both(seed: int, holes: float = 0.0) -> tuple[Tensor, Tensor]:
    """The LLM's rows and the SLM's, in float64."""
    return rows(seed, holes=holes, dtype=torch.float64), rows(seed + 1, holes=holes, dtype=torch.float64)


def prompted(llm: Tensor, slm: Tensor, greedy: bool = False) -> Context:
    """The context of prompts whose tokens both models scored, (rows, n)."""
    lengths = torch.full((len(llm),), llm.shape[1])
    return Context(llm, slm, lengths, torch.full((len(llm),), greedy))


def unprompted(count: int, greedy: bool = False) -> Context:
    """The context of `count` prompts nobody scored."""
    return prompted(torch.zeros(count, 0), torch.zeros(count, 0), greedy)


def law(policy: FusionPolicy, llm: Tensor, slm: Tensor, state: State | None = None) -> Tensor:
    """The log-probabilities a policy gives, as the loop would normalise them."""
    state = policy.start(unprompted(len(llm))) if state is None else state
    return policy.fuse(llm, slm, state).log_softmax(dim=-1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q), in nats, of log-probabilities (…, V)."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(dim=-1)


class Answers(NamedTuple):
    """Every answer of a fixed length: each token's log-probability, (answers, length)."""

    fused: Tensor
    slm: Tensor

    @property
    def ratio(self) -> Tensor:
        """log r/p_slm of each token of the answers that can come up."""
        return torch.where(self.fused > -torch.inf, self.fused - self.slm, -torch.inf)


def every_answer(
    policy: FusionPolicy, seed: int, size: int = 3, length: int = 5, holes: float = 0.2
) -> Answers:
    """Walk both models, random after every prefix, through all size^length answers at once."""
    fused_path = slm_path = torch.zeros(1, 0, dtype=torch.float64)
    state = policy.start(unprompted(1))
    for column in range(length):
        count = size**column
        llm, slm = (rows(seed + 2 * column + side, count, size, holes, torch.float64) for side in (0, 1))
        fused = law(policy, llm, slm, state)
        fused = torch.where(fused.isnan(), slm, fused)  # nothing in common: the loop falls back to the SLM
        tokens = torch.arange(size).repeat(count)
        parent = torch.arange(count).repeat_interleave(size)
        state = tuple(tensor[parent] for tensor in state)
        state = policy.advance(state, tokens, llm[parent], slm[parent], fused[parent])
        fused_path = torch.cat((fused_path[parent], fused[parent, tokens][:, None]), dim=1)
        slm_path = torch.cat((slm_path[parent], slm[parent, tokens][:, None]), dim=1)
    return Answers(fused_path, slm_path)
