"""llama.cpp's C interface, as the wheel `xllamacpp` brings it.

xllamacpp's Python classes reach a model through an HTTP server only; its library exports llama.h's functions,
which are called here by ctypes. Structures are declared as llama.h of that release has them. Their defaults,
and what a context says of itself, are compared before anything is read: a release that lays them out in
another way is an error. https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

from __future__ import annotations

import ctypes as c
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from purify_plugins.errors import ConfigError
from purify_plugins.utils.extras import require_extra

Pairs = Sequence[tuple[str, Any]]
ROOM = 512
"""Bytes behind the declared part of a structure: the library may have more than is declared."""
WARNING = 3
"""ggml's log level from which messages are kept."""


def _fields(kind: Any, names: str) -> Pairs:
    return [(name, kind) for name in names.split()]


class ModelParameters(c.Structure):
    """llama.h's `llama_model_params`."""

    _fields_ = (
        *_fields(c.c_void_p, "devices tensor_buft_overrides"),
        *_fields(c.c_int32, "n_gpu_layers split_mode load_mode lazy_mode main_gpu"),
        *_fields(c.c_void_p, "tensor_split progress_callback progress_callback_user_data kv_overrides"),
        *_fields(c.c_bool, "vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"),
        ("rest", c.c_byte * ROOM),
    )


class ContextParameters(c.Structure):
    """llama.h's `llama_context_params`, up to the types of the cache."""

    _fields_ = (
        *_fields(c.c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq"),
        *_fields(c.c_int32, "n_threads n_threads_batch ctx_type rope_scaling_type pooling_type"),
        *_fields(c.c_int32, "attention_type flash_attn_type"),
        *_fields(c.c_float, "rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor"),
        *_fields(c.c_float, "yarn_beta_fast yarn_beta_slow"),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        *_fields(c.c_void_p, "cb_eval cb_eval_user_data"),
        *_fields(c.c_int32, "type_k type_v"),
        ("rest", c.c_byte * ROOM),
    )


class LlamaBatch(c.Structure):
    """llama.h's `llama_batch`."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        *_fields(c.POINTER(c.c_int32), "pos n_seq_id"),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


DEFAULTS: Mapping[type[c.Structure], Mapping[str, Any]] = {
    ModelParameters: {
        "n_gpu_layers": -1,
        "split_mode": 1,
        "vocab_only": False,
        "check_tensors": False,
        "use_extra_bufts": True,
        "no_alloc": False,
    },
    ContextParameters: {
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "n_rs_seq": 0,
        "n_outputs_max": 0,
        "n_outputs_max_per_seq": 1,
        "n_threads": 4,
        "n_threads_batch": 4,
        "pooling_type": -1,
        "attention_type": -1,
        "yarn_ext_factor": -1.0,
        "type_k": 1,  # float16
        "type_v": 1,
    },
}
"""llama.cpp's own defaults, by which the structures' layout is recognised."""

Log = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
POINTER, INT, SIZE = c.c_void_p, c.c_int32, c.c_size_t
FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (Log, POINTER)),
    "llama_model_default_params": (ModelParameters, ()),
    "llama_context_default_params": (ContextParameters, ()),
    "llama_model_load_from_file": (POINTER, (c.c_char_p, ModelParameters)),
    "llama_model_free": (None, (POINTER,)),
    "llama_model_get_vocab": (POINTER, (POINTER,)),
    "llama_model_has_encoder": (c.c_bool, (POINTER,)),
    "llama_model_is_recurrent": (c.c_bool, (POINTER,)),
    "llama_model_is_hybrid": (c.c_bool, (POINTER,)),
    "llama_model_is_diffusion": (c.c_bool, (POINTER,)),
    "llama_model_n_ctx_train": (INT, (POINTER,)),
    "llama_vocab_n_tokens": (INT, (POINTER,)),
    "llama_token_to_piece": (INT, (POINTER, INT, c.c_char_p, INT, INT, c.c_bool)),
    "llama_init_from_model": (POINTER, (POINTER, ContextParameters)),
    "llama_free": (None, (POINTER,)),
    "llama_n_ctx_seq": (c.c_uint32, (POINTER,)),
    "llama_n_batch": (c.c_uint32, (POINTER,)),
    "llama_n_seq_max": (c.c_uint32, (POINTER,)),
    "llama_n_threads": (INT, (POINTER,)),
    "llama_get_memory": (POINTER, (POINTER,)),
    "llama_memory_clear": (None, (POINTER, c.c_bool)),
    "llama_memory_seq_rm": (c.c_bool, (POINTER, INT, INT, INT)),
    "llama_batch_init": (LlamaBatch, (INT, INT, INT)),
    "llama_batch_free": (None, (LlamaBatch,)),
    "llama_decode": (INT, (POINTER, LlamaBatch)),
    "llama_get_logits_ith": (c.POINTER(c.c_float), (POINTER, INT)),
    "llama_state_seq_get_size": (SIZE, (POINTER, INT)),
    "llama_state_seq_get_data": (SIZE, (POINTER, c.c_char_p, SIZE, INT)),
    "llama_state_seq_set_data": (SIZE, (POINTER, c.c_char_p, SIZE, INT)),
}
"""The functions that are called: their result and their arguments."""


messages: deque[str] = deque(maxlen=10)
"""The last warnings and errors of llama.cpp, for errors here; it would write them to the terminal."""


def _logged(level: int, text: bytes, _: Any) -> None:
    if level >= WARNING:
        messages.append(text.decode("utf-8", "replace").strip())


LOG = Log(_logged)
"""For the whole process, which llama.cpp has one log for."""


class Library:
    """llama.cpp's functions by name."""

    def __init__(self, file: str) -> None:
        loaded = c.CDLL(file)
        self._functions: dict[str, Any] = {}
        for name, (result, arguments) in FUNCTIONS.items():
            try:
                function = loaded[name]
            except AttributeError as error:
                raise _another(f"has no {name}") from error
            function.restype, function.argtypes = result, arguments
            self._functions[name.removeprefix("llama_")] = function
        self.call("log_set", LOG, None)
        self.call("backend_init")
        for kind, name in ((ModelParameters, "model"), (ContextParameters, "context")):
            _check_defaults(self.call(f"{name}_default_params"), DEFAULTS[kind])

    def call(self, name: str, *arguments: Any) -> Any:
        """Call `llama_<name>`."""
        return self._functions[name](*arguments)


def _check_defaults(found: Any, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if getattr(found, name) != value:
            raise _another(
                f"gives {name} the default {getattr(found, name)!r}, where {value!r} is known here"
            )


def _another(what: str) -> ConfigError:
    return ConfigError(
        f"this xllamacpp {what}: it lays llama.cpp's parameters out in another way; install the version in "
        "constraints.txt, or leave source = 'gguf' out to run the model in torch"
    )


@cache
def library() -> Library:
    """The library, loaded once. Raises ConfigError without xllamacpp, or for a release of another layout."""
    require_extra("llama-cpp", "source 'gguf'")
    from xllamacpp import xllamacpp  # type: ignore[import-untyped]  # ships no types

    return Library(xllamacpp.__file__)
