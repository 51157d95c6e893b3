"""A vLLM logits processor that fuses rows, for a trusted server with an untrusted model.

    vllm serve models/large --generation-config vllm \\
        --logits-processors purify_adapters.vllm_engine:PurifyLogitsProcessor

reads `[slm]`, `[policy]` and `[sampling]` of $PURIFY_CONFIG or `purify.toml`. `ledger` keeps what is
drawn, for certificates. Tokens are drawn here, and vLLM gets a row with a single
token: its own generator has seed 0 unless a request sets another, so weights could predict its draws.

This module is for Model Runner V1 (which also needs --no-async-scheduling), `slots` for V2.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_adapters.vllm_engine.contracts import admit, refuse_options, refuse_shown, v1_base
from purify_adapters.vllm_engine.ledger import OTHERS, Ledger, RequestRecord, note
from purify_adapters.vllm_engine.running import (
    LEFT,
    asked_of,
    ending,
    finite_rows,
    forgotten,
    one_device,
    one_token_rows,
    purifier_of,
    require_last,
    shapes,
    sound,
    unreadable,
    unscored,
)
from purify_adapters.vllm_engine.slots import SlotLogitsProcessor
from purify_plugins.decode.batch import settings
from purify_plugins.decode.draw_keys import KeyedPlaces, request, system
from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse
from purify_plugins.errors import ConfigError, PromptError, SourceError
from purify_plugins.sampling import Sampling

LogitsProcessor: Any = v1_base()

if TYPE_CHECKING:
    from purify_plugins.policy import State
    from purify_plugins.protocols import Session


@dataclass(eq=False)
class EngineRow:
    """One request: its `prompt`, vLLM's live list of its `answer`, how much of that was `read`.

    `slm` is the SLM's logits (1, V) after that, `drawn` the token drawn with them, `state` the policy's
    memory before it and `after` that after it. `alone`: the SLM's own row from here on; `refused`: it
    cannot read the prompt, and the answer ends. `asked` is a digest of the prompt and the settings; a seed's
    `numbers` draw its tokens.
    """

    prompt: tuple[int, ...]
    answer: list[int]
    sampling: Sampling
    params: Any
    asked: bytes = b""
    numbers: KeyedPlaces | None = None
    read: int = 0
    alone: bool = False
    refused: bool = False
    state: State | None = None
    drawn: int | None = None
    after: State = ()
    session: Session | None = None
    record: RequestRecord | None = None
    recorded: bool = False
    slm: Tensor = field(default_factory=lambda: torch.empty(0))

    def unread(self) -> list[int]:
        """The tokens that vLLM has appended since. Raises SourceError for a placeholder."""
        new = self.answer[self.read :]
        if any(token < 0 for token in new):
            raise SourceError("vLLM has not said which token it drew; start it with --no-async-scheduling")
        return new

    def luck(self) -> float:
        """The uniform in [0, 1) that draws the next token; with a seed, fixed for each position."""
        return next(system()) if self.numbers is None else self.numbers.at(len(self.answer))

    def was(self, row: EngineRow) -> bool:
        """Whether this left row held the request that another resumes: its tokens, and the one drawn last."""
        known = len(self.answer)
        if len(row.answer) - known not in (0, 1) or self.asked != row.asked or self.sampling != row.sampling:
            return False
        return row.answer[known:] in ([], [self.drawn]) and row.answer[:known] == self.answer


class PurifyLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM's, which may not be installed
    """Replaces vLLM's rows by fused rows; must be the last logits processor on vLLM's command line.

    It has the interface of Model Runner V1. V2 constructs with two arguments, and gets the processor that has
    V2's. Raises ConfigError, ModelError or VocabularyError where vLLM runs what could not be purified.
    """

    def __new__(cls, vllm_config: Any, device: Any, is_pin_memory: bool | None = None) -> Any:
        if is_pin_memory is None:
            require_last(vllm_config.model_config, cls)
            return SlotLogitsProcessor(vllm_config, req_states=device)
        return super().__new__(cls)

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool | None = None) -> None:
        _check(vllm_config)
        self.purifier, self.defaults = purifier_of(vllm_config.model_config)
        self.slm: Any = self.purifier.slm
        self.rows: dict[int, EngineRow] = {}
        # Alike requests may be taken out together, and vLLM may take out all that it runs.
        self.left: deque[EngineRow] = deque(maxlen=max(LEFT, vllm_config.scheduler_config.max_num_seqs))
        self.shape = shapes(self.purifier)
        self.ledger = Ledger(self.purifier)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for an option that would undo purification, or is unknown."""
        refuse_options(sampling_params)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Apply vLLM's removed, added and moved requests, in this order."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._leave(index)
        for index, params, prompt, answer in batch_update.added:
            self._leave(index)
            self.rows[index] = self._join(params, prompt, answer)
        for start, end, direction in batch_update.moved:
            self._move(start, end, direction.name == "SWAP")
        for index, row in self.rows.items() if self.ledger.id_of else ():
            self._begin_record(index, row)

    def _begin_record(self, index: int, row: EngineRow) -> None:
        """Record a request that joined, once the rows stand where vLLM will show them."""
        if row.recorded:
            return
        row.recorded, before = True, row.record
        row.record = self.ledger.begin(index, row.sampling, row.params)
        if row.record is not None:
            row.record.prompt = row.prompt
            if row.answer:
                row.record.resume(before)

    def _move(self, start: int, end: int, swap: bool) -> None:
        here, there = self.rows.pop(start, None), self.rows.get(end)
        if swap and there is not None:
            self.rows[start] = self.rows.pop(end)
        self._leave(end)
        if here is not None:
            self.rows[end] = here

    def _join(self, params: Any, prompt: Sequence[int] | None, answer: list[int]) -> EngineRow:
        if prompt is None:
            raise PromptError(
                "the SLM reads tokens, not embeddings; start vLLM without --enable-prompt-embeds"
            )
        refuse_shown(params)
        asked = asked_of(params, self.defaults)
        digest = request([tuple(prompt)], settings(self.purifier, asked))
        numbers = None if params.seed is None else KeyedPlaces(params.seed, digest)
        row = EngineRow(tuple(prompt), answer, asked, params, digest, numbers)
        row.refused = unreadable(prompt, self.purifier)
        known = next((each for each in reversed(self.left) if answer and each.was(row)), None)
        if known is not None:
            self.left.remove(known)
            row.read, row.state, row.alone = known.read, known.state, known.alone
            row.drawn, row.after, row.record = known.drawn, known.after, known.record
        return row

    def _leave(self, index: int) -> None:
        """Close a request's session; its policy state is kept, since vLLM may resume a preempted request."""
        row = self.rows.pop(index, None)
        if row is None:
            return
        if row.session is not None:
            row.session.close()
        row.session, row.slm = None, torch.empty(0)
        if not self._ended(row) and (row.state or row.alone or row.record is not None):
            row.answer = row.answer[: row.read]  # vLLM may go on writing to its own
            self.left.append(row)

    def _ended(self, row: EngineRow) -> bool:
        """Whether vLLM took the request out because its answer is whole: it will not resume it."""
        most = row.params.max_tokens
        last = None if row.sampling.ignore_eos or not row.answer else row.answer[-1]
        return last in self.purifier.vocabulary.eos or (most is not None and len(row.answer) >= most)

    @torch.inference_mode()
    def apply(self, logits: Tensor) -> Tensor:
        """vLLM's logits (rows, V) -> (rows, V) with one token left each, drawn from the fused row.

        A row that could not be fused is drawn from the SLM's. Raises SourceError for a row of an unknown
        request.
        """
        if set(range(len(logits))) - self.rows.keys():
            raise SourceError("vLLM shows a row of a request that it has not added")
        self._catch_up()
        self._give_up(logits)
        for (asked, alone), indices in self._alike(len(logits)).items():
            at = torch.tensor(indices, device=logits.device)
            rows = [self.rows[index] for index in indices]
            column = self._fuse(asked, alone, rows, logits[at])
            weights = one_token_rows(column, None if asked.greedy else [row.luck() for row in rows])
            self._note(rows, column, weights.argmax(dim=-1))
            spare = logits.shape[-1] - weights.shape[-1]
            logits[at] = pad(weights, (0, spare), value=-torch.inf).to(logits)
        for index in (each for each in range(len(logits)) if self.rows[each].refused):
            logits[index] = ending(logits[index], self.purifier)
        return logits

    def _alike(self, size: int) -> dict[tuple[Sampling, bool], list[int]]:
        """The indices of rows that can be fused together."""
        groups: dict[tuple[Sampling, bool], list[int]] = {}
        for index in (each for each in range(size) if not self.rows[each].refused):
            groups.setdefault((self.rows[index].sampling, self.rows[index].alone), []).append(index)
        return groups

    def _give_up(self, logits: Tensor) -> None:
        """With on_llm_failure "slm", rows whose LLM logits are not finite go on with the SLM alone."""
        if self.purifier.on_llm_failure == "slm":
            for index, finite in enumerate(finite_rows(logits)):
                self.rows[index].alone |= not finite

    def _fuse(self, asked: Sampling, alone: bool, rows: Sequence[EngineRow], logits: Tensor) -> FusedLogits:
        """Fuse rows with the same settings; each row keeps its own for a policy with state."""
        size = len(self.purifier.vocabulary)
        llm = None if alone else logits[:, :size]
        states = [row.state or () for row in rows]
        state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        slm = torch.cat([row.slm for row in rows])
        history = [(row.prompt, row.answer) for row in rows]
        return sound(fuse(self.purifier.policy, self.shape(asked), llm, slm, state, history))

    def _note(self, rows: Sequence[EngineRow], column: FusedLogits, tokens: Tensor) -> None:
        """Keep each row's token, and the policy's memory of it, till vLLM says what it took."""
        states = [row.state or () for row in rows]
        state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        after = advance_state(self.purifier.policy, state, tokens, column)
        for at, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            row.drawn, row.after = token, tuple(part[at : at + 1] for part in after)
            if row.record is not None:
                row.record.drawn = array("f")
        note([row.record for row in rows], column, tokens, rows[0].sampling.greedy)

    def _catch_up(self) -> None:
        """Feed the tokens that vLLM has appended to the SLM and to the policy's state."""
        new = [(row, row.unread()) for row in self.rows.values() if not row.refused]
        self._read([(row, tokens) for row, tokens in new if tokens and row.session is not None])
        for row, tokens in new:
            if row.session is None:
                row.session, row.slm = self.slm.open([row.prompt + tuple(row.answer)])
            self._remember(row, tokens)

    def _read(self, behind: Sequence[tuple[EngineRow, list[int]]]) -> None:
        """One forward pass of the SLM for all rows, if the source can batch sessions."""
        if not behind:
            return
        sessions: list[Any] = [row.session for row, _ in behind]
        read = self.slm.extend_all(sessions, [torch.tensor([each]) for _, each in behind])
        for (row, _), logits in zip(behind, read, strict=True):
            row.slm = logits[:, -1]

    def _remember(self, row: EngineRow, tokens: Sequence[int]) -> None:
        """Go on after tokens that vLLM has taken; were they not drawn here, with the SLM alone."""
        if row.state is None:
            row.state = self.purifier.policy.start(unscored(row.sampling.greedy, row.slm.device))
            row.alone |= bool(row.state and tokens) and forgotten()
        elif tokens == [row.drawn]:
            row.state = row.after
            if row.record is not None:
                row.record.take(1)
        elif tokens:
            row.alone = True
            if row.record is not None:
                row.record.void = OTHERS
        row.read += len(tokens)


admit(PurifyLogitsProcessor)


def _check(vllm_config: Any) -> None:
    """Raise ConfigError if another processor, or vLLM's speculation, would change or bypass the fused row."""
    require_last(vllm_config.model_config, PurifyLogitsProcessor)
    one_device(vllm_config)
    if getattr(vllm_config, "speculative_config", None) is not None:
        raise ConfigError(
            "under Model Runner V1 vLLM's own speculation passes by logits processors; leave "
            "--speculative-config out, or run Model Runner V2"
        )
    if LogitsProcessor is not object and not hasattr(LogitsProcessor, "validate_params"):
        raise ConfigError("this vLLM lets no logits processor refuse a request; use a newer one")
