"""Toys and contracts for plugin authors: small sources, and suites to subclass.

>>> class TestHalf(PolicyConformance):
...     def policy(self):
...         return Half()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor

from purify_plugins.canonical_json import canonical, jsonable
from purify_plugins.decode.fusion import where_rows
from purify_plugins.errors import PromptError
from purify_plugins.foreign import adapted_policy
from purify_plugins.policy import Context
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Chat, Guarantee, Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy, State


def byte_vocabulary() -> Vocabulary:
    """All 256 bytes, and an end token with id 256."""
    tokens = (*(bytes([byte]) for byte in range(256)), b"")
    return Vocabulary(tokens, frozenset({256}), {256: "<end>"}, frozenset({256}), "bytes")


def letters(alphabet: str) -> Vocabulary:
    """One token per letter and an end token after them; small enough to enumerate every answer."""
    end = len(alphabet)
    tokens = (*(letter.encode() for letter in alphabet), b"")
    return Vocabulary(tokens, frozenset({end}), {end: "<end>"}, frozenset({end}), alphabet)


@dataclass(frozen=True)
class ToySource(LogitSource):
    """A deterministic language model: each context's logits are drawn from a seed of their own.

    `order` tokens of context matter; `sharpness` scales the logits.
    """

    engine = "in-process"
    vocabulary: Vocabulary
    seed: int = 0
    order: int = 3
    sharpness: float = 2.0
    context_length: int | None = None

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """The logits (V,) of what follows `tokens`."""
        context = hash((self.seed, *tokens[-self.order :])) & 0x7FFFFFFF
        generator = torch.Generator().manual_seed(context)
        return self.sharpness * torch.randn(len(self.vocabulary), generator=generator)

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """One token per byte, or per letter of a small alphabet."""
        if isinstance(prompt, tuple):
            return prompt
        if isinstance(prompt, Chat):
            prompt = "\n".join(str(message["content"]) for message in prompt.messages)
        ids = {piece: index for index, piece in enumerate(self.vocabulary.tokens)}
        tokens = tuple(ids[bytes([byte])] for byte in prompt.encode())
        if not tokens or (self.context_length and len(tokens) >= self.context_length):
            raise PromptError(f"the prompt has {len(tokens)} tokens; this toy reads {self.context_length}")
        return tokens

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ToySession, Tensor]:
        session = ToySession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "toy", "name": f"toy {self.seed}"}


class ToySession(Session):
    """The rows a ToySource has read; it keeps no cache, so that it cannot be wrong."""

    prompts: Sequence[ScoredPrompt]

    def __init__(self, source: ToySource, rows: Sequence[tuple[int, ...]], scored: int = 0) -> None:
        self.source = source
        self.rows = [list(row) for row in rows]
        self.prompts = [ScoredPrompt(row, self._scores(row, scored) if scored else ()) for row in rows]
        self.open = True

    def _scores(self, row: tuple[int, ...], scored: int) -> tuple[float, ...]:
        first = max(1, len(row) - scored)
        logprobs = (torch.log_softmax(self.source.logits(row[:at]), -1) for at in range(first, len(row)))
        return tuple(float(row_[token]) for row_, token in zip(logprobs, row[first:], strict=True))

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.source.logits(row) for row in self.rows]))
        return torch.stack(columns, dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        self.rows, self.prompts = [self.rows[row] for row in rows], [self.prompts[row] for row in rows]

    def rewind(self, lengths: Tensor) -> None:
        for row, prompt, length in zip(self.rows, self.prompts, lengths.tolist(), strict=True):
            del row[len(prompt.tokens) + length :]

    def close(self) -> None:
        self.open = False


@dataclass(frozen=True)
class ScriptedSource(LogitSource):
    """A model that is sure of one text: `text` after any prompt, then the end. An attacker's dream."""

    engine = "in-process"
    vocabulary: Vocabulary
    text: bytes
    doubt: float = 1e-3
    context_length: int | None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ScriptedSession, Tensor]:
        toy = ToySource(self.vocabulary)
        session = ScriptedSession(self, [toy.encode(prompt) for prompt in prompts])
        return session, torch.stack([session.logits(row) for row in range(len(prompts))])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "name": "script"}


class ScriptedSession(ToySession):
    """Where each row is in the script."""

    def __init__(self, script: ScriptedSource, rows: Sequence[tuple[int, ...]]) -> None:
        self.script = script
        super().__init__(ToySource(script.vocabulary), rows)

    def logits(self, row: int) -> Tensor:
        """All but `doubt` on the script's next token."""
        at = len(self.rows[row]) - len(self.prompts[row].tokens)
        script, size = self.script.text, len(self.script.vocabulary)
        ids = {piece: index for index, piece in enumerate(self.script.vocabulary.tokens)}
        following = ids[script[at : at + 1]] if at < len(script) else min(self.script.vocabulary.eos)
        rest = math.log(self.script.doubt / (size - 1))
        return torch.full((size,), rest).index_fill(
            0, torch.tensor(following), math.log1p(-self.script.doubt)
        )

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)


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


class SourceConformance:
    """What every logit source must do; subclass it and return yours from `source`."""

    prompts: Sequence[Prompt] = ("a", "abc")

    def source(self) -> LogitSource:
        """The source under test."""
        raise NotImplementedError("return your source from `source`")

    def _answer(self, rows: int, length: int) -> Tensor:
        size = len(self.source().vocabulary)
        return torch.randint(0, size, (rows, length), generator=torch.Generator().manual_seed(0))

    def _close(self, one: Tensor, other: Tensor) -> None:
        one, other = torch.log_softmax(one.float(), -1), torch.log_softmax(other.float(), -1)
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)

    def test_rows_are_as_wide_as_the_vocabulary(self) -> None:
        source = self.source()
        session, first = source.open(self.prompts)
        with session:
            assert first.shape == (len(self.prompts), len(source.vocabulary))
            assert session.extend(self._answer(len(self.prompts), 2)).shape[1:] == (2, first.shape[1])

    def test_a_batch_is_its_rows(self) -> None:
        tokens = self._answer(len(self.prompts), 3)
        together = self._read(self.prompts, tokens)
        for row, prompt in enumerate(self.prompts):
            self._close(together[row : row + 1], self._read([prompt], tokens[row : row + 1]))

    def _read(self, prompts: Sequence[Prompt], tokens: Tensor) -> Tensor:
        session, first = self.source().open(prompts)
        with session:
            return torch.cat([first[:, None], session.extend(tokens)], dim=1)

    def test_many_tokens_at_once_are_as_one_by_one(self) -> None:
        tokens = self._answer(1, 4)
        session, first = self.source().open(self.prompts[:1])
        with session:
            steps = [first[:, None], *(session.extend(tokens[:, at : at + 1]) for at in range(4))]
        self._close(torch.cat(steps, dim=1), self._read(self.prompts[:1], tokens))

    def test_rewinding_forgets(self) -> None:
        rows = len(self.prompts)
        good, bad = self._answer(rows, 4), self._answer(rows, 6)
        expected = self._read(self.prompts, good)
        session, _ = self.source().open(self.prompts)
        with session:
            kept = torch.tensor([row % 3 for row in range(rows)])
            session.extend(torch.cat([good[:, :2], bad[:, 2:]], dim=1))
            session.rewind(kept)
            rest = torch.stack([row[n : n + 2] for row, n in zip(good, kept.tolist(), strict=True)])
            after = session.extend(rest)
        for row, n in enumerate(kept.tolist()):
            self._close(after[row], expected[row, n + 1 : n + 3])

    def test_rows_that_are_let_go_are_not_missed(self) -> None:
        """Where sessions offer `keep`: the others go on in their places, whatever was read before."""
        rows = len(self.prompts)
        tokens = self._answer(rows, 4)
        expected = self._read(self.prompts, tokens)
        session: Any
        session, _ = self.source().open(self.prompts)
        with session:
            if rows > 1 and session.keeps:
                session.extend(tokens[:, :3])
                session.keep([*range(1, rows)])
                session.rewind(torch.full((rows - 1,), 2))
                self._close(session.extend(tokens[1:, 2:]), expected[1:, 3:])

    def test_scored_prompts_are_what_reading_them_says(self) -> None:
        session, _ = self.source().open(self.prompts, 2)
        with session:
            prompts = [prompt.last(2) if prompt.spelled else prompt for prompt in session.prompts]
        for prompt in prompts:
            scored = len(prompt.logprobs)
            assert scored == min(2, len(prompt.tokens) - 1)
            if scored:
                start = len(prompt.tokens) - scored
                read = self._read([prompt.tokens[:start]], torch.tensor([prompt.tokens[start:]]))
                rows = torch.log_softmax(read[0].float(), -1)
                expected = [float(rows[at, token]) for at, token in enumerate(prompt.tokens[start:])]
                torch.testing.assert_close(
                    torch.tensor(prompt.logprobs), torch.tensor(expected), atol=1e-3, rtol=1e-3
                )

    def test_closing_twice_is_harmless(self) -> None:
        session, _ = self.source().open(self.prompts[:1])
        session.close()
        session.close()

    def test_it_says_who_it_is(self) -> None:
        assert "name" in self.source().identity()
