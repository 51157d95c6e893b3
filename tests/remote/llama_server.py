"""llama.cpp's own server out of the wheel `xllamacpp`: `python llama_server.py MODEL --port N`."""

from __future__ import annotations

import os
import sys
import threading

import xllamacpp


def parameters(model: str, port: int) -> xllamacpp.CommonParams:
    """What `llama_command` asks: four slots, whole rows in float32, $PURIFY_LLAMA_THREADS or one thread."""
    found = xllamacpp.CommonParams()
    found.model.path = model
    found.hostnames, found.port = ["127.0.0.1"], port
    found.n_ctx, found.n_parallel = 2048, 4
    threads = int(os.environ.get("PURIFY_LLAMA_THREADS", "1"))
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = threads
    found.cache_type_k = found.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return found


if __name__ == "__main__":
    _, model, _, port = sys.argv
    server = xllamacpp.Server(parameters(model, int(port)))
    print(server.listening_address, flush=True)
    threading.Event().wait()
