"""Sources that ask a server, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

SERVERS: Mapping[str, str] = {
    "llama_cpp": "llama_cpp:LlamaCppSource",
    "tgi": "tgi:TGI",
    "vllm": "vllm_server:VLLMSource",
    "llama_cpp_python": "llama_cpp_python:LlamaPythonSource",
}
"""Kind of server -> its module here and its class, in the order in which they are detected.

The route in a kind's `sign` is answered by no kind before it.
"""


def server_source(kind: str) -> Any:
    """The class that reads this kind of server, imported now: its `load`, `Options` and `sign`."""
    module, _, name = SERVERS[kind].partition(":")
    return vars(import_module(f"{__name__}.{module}"))[name]
