"""`PolicyConformance`: what every fusion policy must do."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor

from purify_plugins.canonical_json import canonical, jsonable
from purify_plugins.decode.fusion import where_rows
from purify_plugins.foreign import adapted_policy
from purify_plugins.policy import Context
from purify_plugins.types import Guarantee

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy, State


def random_rows(rows: int = 4, size: int = 17, seed: int = 0, holes: bool = False) -> Tensor:
    """Log-probabilities (rows, size); with `holes`, some are minus infinity."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, size, generator=generator)
    if holes:
        missing = torch.rand(rows, size, generator=generator) < 0.3
        missing[:, 0] = False
        logits = logits.masked_fill(missing, -torch.inf)
    return torch.log_softmax(logits, dim=-1)


def no_context(rows: int, greedy: bool = False) -> Context:
    """The context of answers to prompts without scores."""
    empty = torch.zeros(rows, 0)
    return Context(empty, empty, torch.zeros(rows, dtype=torch.long), torch.full((rows,), greedy))


def _alike(found: Tensor, expected: Tensor, advice: str) -> None:
    """Fail with advice where two tensors are not the same within rounding."""
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=lambda why: f"{advice}\n\n{why}")


class PolicyConformance:
    """What every fusion policy must do; subclass it and return yours from `policy`."""

    def policy(self) -> FusionPolicy:
        """The policy under test."""
        raise NotImplementedError("return your policy from `policy`")

    def _fused(self, llm: Tensor, slm: Tensor, state: State | None = None) -> Tensor:
        policy = self.policy()
        state = policy.start(no_context(len(llm))) if state is None else state
        return torch.log_softmax(policy.fuse(llm, slm, state).float(), dim=-1)

    def test_it_names_its_guarantee(self) -> None:
        known = get_args(Guarantee)
        assert self.policy().guarantee in known, f"claim one of {', '.join(known)}; no kind can be added"
        assert self.policy().lookback >= 0, "lookback is a number of tokens, 0 for none"

    def test_it_is_a_frozen_dataclass_whose_fields_are_its_options(self) -> None:
        policy, kind = self.policy(), cast("Any", type(self.policy()))
        assert is_dataclass(kind), f"put @dataclass(frozen=True) above {kind.__name__}"
        assert cast("Any", kind).__dataclass_params__.frozen, "write @dataclass(frozen=True), with frozen"
        assert hash(policy) == hash(self.policy()), "two policies of the same options must be equal"

    def test_what_it_guarantees_it_can_tell_from_the_steps(self) -> None:
        policy = self.policy()
        told = policy.guarantee == "none" or adapted_policy(policy).holds([])
        assert told, "`holds` must say of recorded steps whether they keep the claim; of no steps, True"

    def test_its_options_can_be_written_in_a_certificate(self) -> None:
        assert canonical(jsonable(self.policy())), "options are numbers, texts, lists and tables of these"

    def test_the_fused_row_is_a_distribution(self) -> None:
        fused = self._fused(random_rows(seed=1), random_rows(seed=2))
        _alike(fused.exp().sum(-1), torch.ones(4), "`fuse` returns finite log-weights, or minus infinity")

    def test_minus_infinity_is_an_ordinary_value(self) -> None:
        fused = self._fused(random_rows(seed=1, holes=True), random_rows(seed=2, holes=True))
        assert not torch.isnan(fused).any(), "0 * -inf is NaN: select with torch.where, don't multiply"

    def test_it_leaves_its_inputs_alone(self) -> None:
        llm, slm = random_rows(seed=1), random_rows(seed=2)
        before = llm.clone(), slm.clone()
        self._fused(llm, slm)
        assert torch.equal(llm, before[0]), "`fuse` wrote into `llm`: return a new tensor instead"
        assert torch.equal(slm, before[1]), "`fuse` wrote into `slm`: return a new tensor instead"

    def test_a_batch_is_its_rows(self) -> None:
        llm, slm = random_rows(seed=1), random_rows(seed=2)
        alone = [self._fused(llm[row : row + 1], slm[row : row + 1]) for row in range(len(llm))]
        together = self._fused(llm, slm)
        _alike(together, torch.cat(alone), "a row must not depend on the others: reduce over dim=-1 only")

    def test_permuting_the_vocabulary_permutes_the_result(self) -> None:
        llm, slm = random_rows(seed=1), random_rows(seed=2)
        order = torch.randperm(llm.shape[1], generator=torch.Generator().manual_seed(3))
        moved = self._fused(llm[:, order], slm[:, order])
        _alike(moved, self._fused(llm, slm)[:, order], "a rule that knows ids asks for them with `bind`")

    def test_half_precision_is_widened(self) -> None:
        llm, slm = random_rows(seed=1).bfloat16(), random_rows(seed=2).bfloat16()
        wide = self._fused(llm.float(), slm.float())
        _alike(self._fused(llm, slm), wide, "rows may be bfloat16: begin with llm.float(), slm.float()")

    def test_its_state_is_a_row_each_and_can_be_kept_by_row(self) -> None:
        policy, llm, slm = self.policy(), random_rows(seed=1), random_rows(seed=2)
        old = policy.start(no_context(4))
        fused = self._fused(llm, slm, old)
        new = policy.advance(old, fused.argmax(-1), llm, slm, fused)
        assert all(len(tensor) == 4 for tensor in new), "each tensor of the state is (rows, …)"
        where_rows(torch.tensor([True, False, True, False]), new, old)
