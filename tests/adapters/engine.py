"""A stand-in for vLLM, no more than its source says of logits processors, around a local model.

Both contracts of `purify_adapters.vllm_engine.contracts` have one: the base classes, the loaders' checks
and what chooses between them, as of 0.32 and 0.33. Only V1's engine runs here: V2 needs Triton.

One persistent batch: who ends leaves a hole that the last row fills, rows are swapped, and a request may be
taken out and resumed. The processor is told of it all before the pass, and sees every row after it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from purify_adapters.vllm_engine.contracts import CONTRACTS, V1, V2, Contract


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: Sequence[int]
    added: Sequence[tuple[int, Any, list[int] | None, list[int]]]
    moved: Sequence[tuple[int, int, MoveDirectionality]]


class LogitsProcessor(ABC):
    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        return None

    @abstractmethod
    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None: ...

    @abstractmethod
    def apply(self, logits: Tensor) -> Tensor: ...

    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...

    @abstractmethod
    def update_state(self, batch_update: Any) -> None: ...


class LogitsProcessorV2(ABC):
    """Model Runner V2's base class."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None: ...  # noqa: B027  # as vLLM has it

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        return None

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        return True

    def apply_staged_writes(self) -> None: ...  # noqa: B027  # as vLLM has it

    @abstractmethod
    def apply(self, logits: Tensor, ctx: Any) -> Tensor: ...


BASES = {V1: LogitsProcessor, V2: LogitsProcessorV2}


def runner(override: str | None, triton: bool, unsupported: bool = False) -> Contract:
    """Which runner vLLM chooses: the switch decides, else V2 where Triton is and no feature forbids it."""
    if override is not None:
        return V2 if override == "1" else V1
    return V2 if triton and not unsupported else V1


def load(contract: Contract, module: ModuleType, name: str, told: Any) -> Any:
    """What a runner's loader does with `module:name`: one check of its base, then the constructor."""
    found = getattr(module, name)
    base = BASES[contract]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{name} is not a subclass of {contract.module}.{contract.name}")
    arguments = {V1: (told, torch.device("cpu"), False), V2: (told, SimpleNamespace(max_num_reqs=4))}
    return found(*arguments[contract])


@dataclass
class SamplingParams:
    """The options that the tests set; the others are vLLM's defaults, as absent ones are."""

    temperature: float = 1.0
    max_tokens: int = 16
    ignore_eos: bool = False
    seed: int | None = None
    top_p: float = 1.0
    top_k: int = 0
    logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    stop: list[str] | None = None
    steering: float = 0.0  # no option of vLLM's, yet

    @staticmethod
    def for_sampler_warmup() -> SamplingParams:
        return SamplingParams(temperature=0.9, top_p=0.9, top_k=50, logit_bias={0: -1.0}, logprobs=5)


def installed(monkeypatch: Any, *contracts: Contract) -> None:
    """A `vllm` in which these contracts' base classes are where its source has them."""
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    for contract in contracts:
        parts = contract.module.split(".")
        for end in range(2, len(parts) + 1):
            name = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for contract in contracts:
        setattr(sys.modules[contract.module], contract.name, BASES[contract])


def loaded(monkeypatch: Any, *contracts: Contract) -> ModuleType:
    """`vllm_engine.processor` as vLLM would load it: `vllm` is this stand-in, with both contracts."""
    installed(monkeypatch, *(contracts or CONTRACTS))
    spec = find_spec("purify_adapters.vllm_engine.processor")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def config(model: Any, length: int = 256, **others: Any) -> Any:
    """What a processor is told of vLLM."""
    named = ["purify_adapters.vllm_engine:PurifyLogitsProcessor"]
    told = {"tokenizer": str(model), "max_model_len": length, "logits_processors": named}
    apart = {
        name: others.pop(name, None) for name in ("speculative_config", "parallel_config", "watermark_config")
    }
    scheduler = SimpleNamespace(max_num_seqs=4)
    return SimpleNamespace(model_config=SimpleNamespace(**told | others), scheduler_config=scheduler, **apart)


@dataclass(eq=False)
class Request:
    prompt: tuple[int, ...]
    params: SamplingParams
    answer: list[int] = field(default_factory=list)
    name: str = ""

    def ended(self, eos: frozenset[int]) -> bool:
        done = bool(self.answer) and self.answer[-1] in eos and not self.params.ignore_eos
        return done or len(self.answer) >= self.params.max_tokens


class Engine:
    """vLLM's loop: tell of the batch, run the LLM, ask the processor, draw."""

    def __init__(self, llm: Any, processor: Any, padding: int = 3) -> None:
        self.llm, self.processor, self.padding = llm, processor, padding
        self.batch: list[Request] = []
        self.removed: list[int] = []
        self.added: list[Any] = []
        self.moved: list[Any] = []

    def add(self, request: Request, resumed: bool = False) -> Request:
        type(self.processor).validate_params(request.params)
        if resumed:
            request.answer = list(request.answer)  # vLLM may go on with another list
        self.batch.append(request)
        entry = (len(self.batch) - 1, request.params, list(request.prompt), request.answer)
        self.added.append(entry)
        return request

    def take_out(self, request: Request) -> None:
        """Its hole is filled by the last row."""
        self._tell()
        index, last = self.batch.index(request), len(self.batch) - 1
        self.removed.append(index)
        if index != last:
            self.moved.append((last, index, MoveDirectionality.UNIDIRECTIONAL))
            self.batch[index] = self.batch[last]
        self.batch.pop()
        self._tell()

    def swap(self, a: int, b: int) -> None:
        self.moved.append((a, b, MoveDirectionality.SWAP))
        self.batch[a], self.batch[b] = self.batch[b], self.batch[a]

    def _tell(self) -> None:
        changed = self.removed or self.added or self.moved
        update = BatchUpdate(len(self.batch), self.removed, self.added, self.moved) if changed else None
        self.processor.update_state(update)
        self.removed, self.added, self.moved = [], [], []

    def step(self, keep: bool = True) -> None:
        """One token for each; `keep` false: a pass whose draws are thrown away, as of half a prompt."""
        self._tell()
        logits = self.processor.apply(torch.cat([self._row(request) for request in self.batch]))
        for request, row in zip(list(self.batch), logits, strict=True):
            if keep:
                request.answer.append(int(row.argmax()))
        for request in [each for each in self.batch if each.ended(self.llm.vocabulary.eos)]:
            self.take_out(request)

    def _row(self, request: Request) -> Tensor:
        """The LLM's logits (1, V and some padding), which vLLM's models often have."""
        session, logits = self.llm.open([(*request.prompt, *request.answer)])
        session.close()
        return torch.nn.functional.pad(logits.float(), (0, self.padding), value=9.0)

    def run(self) -> None:
        while self.batch:
            self.step()
