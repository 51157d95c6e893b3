"""A model loaded by llama.cpp, and contexts on it: a KV cache of several sequences, read in one pass."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from purify_hooks.gguf.library import Library, messages
from purify_plugins.errors import ModelError, SourceError

BATCH = 32
"""Tokens per pass: bounds the buffers, whose largest is BATCH x V numbers."""
STEP = 256
"""A sequence's room in the cache is a multiple of this many tokens."""
SPACE = 128
"""The least room beside a prompt; a cache that is full is moved into one twice as large."""


SPARE = 2
"""How many contexts without a session are kept."""


class New(NamedTuple):
    """A token to read: its id, its sequence, where it stands there, and whether its row is wanted."""

    token: int
    sequence: int
    at: int
    wanted: bool


def _freed_with(
    owner: object, library: Library, function: str, argument: Any, needed: object = None
) -> finalize[..., object]:
    """Free something of llama.cpp's together with `owner`; a process that ends needs not.

    What it `needed` lives until then: the garbage collector would free a model before a context on it, both
    of them in one cycle, and llama.cpp looks at the model as it frees the context.
    """
    made = finalize(owner, _free, library, function, argument, needed)
    made.atexit = False
    return made


def _free(library: Library, function: str, argument: Any, _: object) -> None:
    library.call(function, argument)


class LlamaModel:
    """A GGUF file loaded by llama.cpp. Raises ModelError where it does not load, or is not causal."""

    def __init__(self, library: Library, file: Path) -> None:
        self.library, self.file = library, file
        given = library.call("model_default_params")
        given.check_tensors = True  # refuses NaN and infinity
        messages.clear()
        self.pointer = library.call("model_load_from_file", str(file).encode(), given)
        if not self.pointer:
            said = "; ".join([*messages][:3]) or "llama.cpp gives no reason"
            raise ModelError(f"llama.cpp does not load {file}: {said}")
        self._free = _freed_with(self, library, "model_free", self.pointer)
        for kind in ("has_encoder", "is_recurrent", "is_hybrid", "is_diffusion"):
            if library.call(f"model_{kind}", self.pointer):
                raise ModelError(
                    f"llama.cpp says {kind.replace('_', ' ')!r} of {file}; only causal models whose cache "
                    "can be rewound are run, take one without encoder and recurrent state"
                )
        self.vocabulary = library.call("model_get_vocab", self.pointer)
        self.tokens: int = library.call("vocab_n_tokens", self.vocabulary)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, as llama.cpp writes it; none for a control token."""
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            size: int = self.library.call("token_to_piece", self.vocabulary, token, buffer, room, 0, False)
            if size >= 0:
                return buffer.raw[:size]
            room = -size


class LlamaContext:
    """A KV cache of `rows` sequences of `room` tokens each."""

    def __init__(self, model: LlamaModel, rows: int, room: int, threads: int) -> None:
        self.model, self.library, self.rows, self.room = model, model.library, rows, room
        given = self.library.call("context_default_params")
        given.n_ctx, given.n_seq_max = rows * room, rows
        given.n_batch = given.n_ubatch = given.n_outputs_max_per_seq = BATCH
        given.n_threads = given.n_threads_batch = threads
        self.pointer = self.library.call("init_from_model", model.pointer, given)
        if not self.pointer:
            said = "; ".join([*messages][-3:])
            raise SourceError(f"llama.cpp has no memory for {rows} rows of {room} tokens: {said}")
        self._free = _freed_with(self, self.library, "free", self.pointer, model)
        expected = {"n_ctx_seq": room, "n_batch": BATCH, "n_seq_max": rows, "n_threads": threads}
        for name, value in expected.items():
            if (found := self.library.call(name, self.pointer)) != value:
                raise SourceError(f"llama.cpp made a context with {name} = {found}, not {value}")
        self._memory = self.library.call("get_memory", self.pointer)
        self._batch = self.library.call("batch_init", BATCH, 0, 1)
        self._free_batch = _freed_with(self, self.library, "batch_free", self._batch)

    def read(self, new: Sequence[New]) -> Tensor:
        """The logits (wanted, V) after the wanted ones of these tokens. Raises SourceError."""
        parts = [self._pass(new[start : start + BATCH]) for start in range(0, len(new), BATCH)]
        return torch.cat(parts) if parts else torch.empty(0, self.model.tokens)

    def _pass(self, new: Sequence[New]) -> Tensor:
        batch = self._batch
        batch.n_tokens = len(new)
        for at, each in enumerate(new):
            batch.token[at], batch.pos[at] = each.token, each.at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, each.sequence
            batch.logits[at] = each.wanted
        if status := self.library.call("decode", self.pointer, batch):
            said = messages[-1] if messages else "no reason"
            raise SourceError(f"{self.model.file.name!r} failed while reading: llama.cpp's {status}, {said}")
        wanted = [at for at, each in enumerate(new) if each.wanted]
        rows = torch.empty(len(wanted), self.model.tokens)
        for row, at in zip(rows, wanted, strict=True):
            logits = self.library.call("get_logits_ith", self.pointer, at)
            row.copy_(torch.from_numpy(np.ctypeslib.as_array(logits, (self.model.tokens,))))
        return rows

    def cut(self, sequence: int, length: int) -> None:
        """Remove what follows a sequence's first `length` tokens. Raises SourceError."""
        if not self.library.call("memory_seq_rm", self._memory, sequence, length, -1):
            raise SourceError(f"{self.model.file.name!r} cannot be rewound: its cache keeps no single tokens")

    def copy_to(self, other: LlamaContext, sequence: int) -> None:
        """Copy a sequence into another context of the model, bit for bit. Raises SourceError.

        llama.cpp takes it only where both are for as many sequences.
        """
        size = self.library.call("state_seq_get_size", self.pointer, sequence)
        state = ctypes.create_string_buffer(size)
        self.library.call("state_seq_get_data", self.pointer, state, size, sequence)
        if not self.library.call("state_seq_set_data", other.pointer, state, size, sequence):
            raise SourceError(f"llama.cpp cannot move the cache of {self.model.file.name!r}; open it again")

    def clear(self) -> None:
        """Forget every sequence."""
        self.library.call("memory_clear", self._memory, False)

    def close(self) -> None:
        """Free the cache; calling it twice is harmless."""
        self._free_batch()
        self._free()


class Contexts:
    """Contexts on one model; some are kept after their session, since making one takes ten tokens' time."""

    def __init__(self, model: LlamaModel, threads: int) -> None:
        self.model, self.threads = model, threads
        self._spare: list[LlamaContext] = []
        self._given: SimpleQueue[LlamaContext] = SimpleQueue()
        self._lock = Lock()

    def take(self, rows: int, room: int, most: float = math.inf) -> LlamaContext:
        """An empty context for so many sequences of so many tokens: a kept one, or a new one.

        It is for no more than `most` sequences.
        """
        with self._lock:
            self._sort()
            fitting = [each for each in self._spare if rows <= each.rows <= most and each.room >= room]
            if fitting:
                found = min(fitting, key=_size)
                self._spare.remove(found)
                found.clear()
                return found
        return LlamaContext(self.model, rows, room, self.threads)

    def give(self, context: LlamaContext) -> None:
        """Keep a context for the next session; where there are too many, free the smallest.

        The garbage collector may close a session while this thread is in `take`: so the lock is not waited
        for. The thread that holds it, or takes it next, finds what was given.
        """
        self._given.put(context)
        if self._lock.acquire(blocking=False):
            try:
                self._sort()
            finally:
                self._lock.release()

    def _sort(self) -> None:
        """Take in what was given; called with the lock."""
        with suppress(Empty):
            while True:
                self._spare.append(self._given.get_nowait())
        while len(self._spare) > SPARE:
            least = min(self._spare, key=_size)
            self._spare.remove(least)
            least.close()


def _size(context: LlamaContext) -> int:
    return context.rows * context.room
