"""llama.cpp's two servers and vLLM's, started for real where they are installed, on the test bed's LLM.

llama.cpp's runs in CI, out of the wheel `xllamacpp`. `PURIFY_LLAMA_SERVER` names the program
`llama-server` in its place, `PURIFY_LLAMA_PYTHON` a Python that has `llama-cpp-python[server]`,
`PURIFY_VLLM_PYTHON` a Python that has vLLM (and, for the test inside the engine, this package); without
them this Python and the PATH are searched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.ports import free_port

INTERPRETED = Path(__file__).with_name("vllm_interpreted.py")
gguf = pytest.importorskip("gguf")
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}
"""What transformers calls a Llama's tensors, and what llama.cpp does."""


def write_gguf(
    folder: Path,
    file: Path,
    quantised: str = "F32",
    template: str = "",
    architecture: str = "llama",
    causal: bool = True,
) -> Path:
    """The model of the test bed in `folder`, in llama.cpp's format, its matrices quantised as named."""
    config = json.loads((folder / "config.json").read_text())
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(file, architecture)
    _describe(writer, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # digits one by one, else as GPT-2
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    if not causal:
        writer.add_causal_attention(causal)
    if template:
        writer.add_chat_template(template)
    kind = gguf.GGMLQuantizationType[quantised]
    for name, tensor in load_file(folder / "model.safetensors").items():
        turned = _turned(name, tensor, config["num_attention_heads"])
        if kind is kind.F32 or turned.ndim < 2:
            writer.add_tensor(_renamed(name), turned)
        else:
            writer.add_tensor(_renamed(name), gguf.quantize(turned, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _describe(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _renamed(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight is blk.3.ffn_up.weight."""
    _, *path, kind = name.split(".")
    layer, path = ([f"blk.{path[1]}"], path[2:]) if path[0] == "layers" else ([], path)
    return ".".join([*layer, TENSORS[".".join(path)], kind])


def _turned(name: str, tensor: Any, heads: int) -> Any:
    """Float32; queries' and keys' halves interleaved, as llama.cpp rotates them."""
    tensor = tensor.astype(np.float32)
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, tensor.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def python_with(module: str, variable: str) -> str:
    """A Python that has `module`; else the test is skipped."""
    if named := os.environ.get(variable):
        return named
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed; set {variable} to a Python that has it")
    return sys.executable


def llama_server() -> str | None:
    """The program `llama-server`, if there is one; the wheel `xllamacpp` has the same server without it."""
    return os.environ.get("PURIFY_LLAMA_SERVER") or shutil.which("llama-server")


@contextmanager
def started(
    command: Sequence[str], log: Path, health: str, patience: float = 180.0, **environment: str
) -> Iterator[str]:
    """The URL of a server that listens on the port at the end of its command, once it is well."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=said, stderr=said, env={**os.environ, **environment}
        )
        try:
            _until_well(f"{url}{health}", process, log, patience)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _until_well(url: str, process: subprocess.Popen[bytes], log: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def llama_command(file: Path) -> list[str]:
    program = llama_server()
    if program is None:
        pytest.importorskip("xllamacpp", reason="neither llama-server nor the wheel xllamacpp is here")
        return [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(file)]
    return [
        program,
        *("--model", str(file), "--ctx-size", "2048", "--parallel", "4", "--threads", "1"),
        *("--cache-type-k", "f32", "--cache-type-v", "f32", "--host", "127.0.0.1", "--no-webui"),
    ]


def llama_python_command(file: Path) -> list[str]:
    python = python_with("llama_cpp", "PURIFY_LLAMA_PYTHON")
    return [
        *(python, "-m", "llama_cpp.server", "--model", str(file), "--n_ctx", "512", "--logits_all", "True"),
        *("--n_threads", "1", "--n_threads_batch", "1", "--type_k", "0", "--type_v", "0"),
    ]


def vllm_command(folder: Path, *more: str, interpreted: bool = False) -> list[str]:
    """vLLM's OpenAI-compatible server, on a CPU too; it shows whole rows. See `vllm_interpreted`."""
    python = python_with("vllm", "PURIFY_VLLM_PYTHON")
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    return [
        *(python, *([str(INTERPRETED)] if interpreted else module), "--model", str(folder)),
        *("--dtype", "float32", "--enforce-eager", "--max-logprobs", "-1", "--max-model-len", "512"),
        *("--generation-config", "vllm", "--served-model-name", "testbed"),
        *("--gpu-memory-utilization", "0.1", "--host", "127.0.0.1", *more),
    ]


def sure_of(token: int, folder: Path, written: Path, logit: float) -> Path:
    """The test bed's model in `folder`, written with this logit of a token, about, after every text.

    One number of each embedding is so large that it is all that is left of a hidden state once normalised.
    """
    shutil.copytree(folder, written, copy_function=shutil.copyfile)
    config = json.loads((folder / "config.json").read_text())
    tensors = {
        name: each.astype(np.float32) for name, each in load_file(folder / "model.safetensors").items()
    }
    head = tensors["model.embed_tokens.weight"].copy()
    head[:, 0], head[token] = 0.0, 0.0
    head[token, 0] = logit / (tensors["model.norm.weight"][0] * config["hidden_size"] ** 0.5)
    tensors["model.embed_tokens.weight"][:, 0] = 1e4
    tensors["lm_head.weight"] = head
    save_file(tensors, written / "model.safetensors", {"format": "pt"})
    config |= {"tie_word_embeddings": False, "dtype": "float32"}
    (written / "config.json").write_text(json.dumps(config))
    return written
