"""Clients and engines that cannot be purified, by import name, one line each: their calls are refused.

A client of an HTTP API needs no line here: `outgoing` refuses its requests. These clients swallow such an
error, use another protocol, or hold the model in this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from purify_adapters.activation.gate import kind_of
from purify_adapters.activation.outgoing import calling_package, is_silent

if TYPE_CHECKING:
    from purify_adapters.activation.gate import Gate, Named
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch

URL, METHOD = "base_url", "_method"
"""The attributes with a client's server, and with the method of a gRPC call."""


@dataclass(frozen=True)
class Client:
    """The functions and methods of one module that generate text; a `?` marks those of some versions only.

    `server` is the attribute with an object's server URL or model name. `loose`: a module without any of
    these is not this library's, and is left alone.
    """

    module: str
    writes: str
    server: str = ""
    loose: bool = False


CLIENTS = (
    # Every SDK that Stainless makes: openai, anthropic, groq, together, cerebras, perplexity and more
    Client("*._base_client", "SyncAPIClient.request AsyncAPIClient.request", URL, loose=True),
    Client(
        "text_generation.client",
        "Client.generate Client.generate_stream Client.chat "
        "AsyncClient.generate AsyncClient.generate_stream AsyncClient.chat",
        URL,
    ),
    Client("litellm.main", "completion acompletion text_completion? atext_completion?"),
    Client("litellm.responses.main", "responses? aresponses?"),
    Client(
        "grpc._channel",
        "_UnaryUnaryMultiCallable.__call__ _UnaryUnaryMultiCallable.with_call "
        "_UnaryUnaryMultiCallable.future "
        "_UnaryStreamMultiCallable.__call__ _SingleThreadedUnaryStreamMultiCallable.__call__ "
        "_StreamStreamMultiCallable.__call__ _StreamUnaryMultiCallable.__call__",
        METHOD,
    ),
    Client(
        "grpc.aio._channel",
        "UnaryUnaryMultiCallable.__call__ UnaryStreamMultiCallable.__call__ "
        "StreamStreamMultiCallable.__call__ StreamUnaryMultiCallable.__call__",
        METHOD,
    ),
)
"""Clients of servers."""

ENGINES = (
    Client("llama_cpp.llama", "Llama.eval", "model_path"),
    Client("vllm.v1.engine.llm_engine", "LLMEngine.add_request", "model_config.model"),
    Client("vllm.v1.engine.async_llm", "AsyncLLM.add_request", "model_config.model"),
    Client(
        "sglang.srt.entrypoints.engine", "Engine.generate Engine.async_generate", "server_args.model_path"
    ),
    Client("tensorrt_llm.llmapi.llm", "LLM.generate_async", "args.model"),
    Client("lmdeploy.api", "pipeline"),
    Client("mlc_llm.serve.engine", "MLCEngine._generate AsyncMLCEngine._generate"),
    Client("mlx_lm.generate", "generate_step speculative_generate_step BatchGenerator.insert?"),
    Client("mlx_vlm.generate", "generate? stream_generate? generate_step?"),
    Client("mlx_vlm.generate.ar", "generate_step BatchGenerator.insert"),
    Client("mlx_vlm.generate.dispatch", "generate stream_generate"),
    Client("ctransformers.llm", "LLM.eval", "model_path"),
    Client("gpt4all._pyllmodel", "LLModel.prompt_model LLModel.prompt_model_streaming"),
    Client("exllamav2.model", "ExLlamaV2.forward", "config.model_dir"),
    Client("exllamav3.model.model", "Model.forward", "config.directory"),
    Client("ctranslate2", "Generator.generate_batch Generator.forward_batch Translator.translate_batch"),
    Client("onnxruntime_genai", "Generator.generate_next_token"),
    Client("openvino_genai", "LLMPipeline.generate LLMPipeline.__call__"),
    Client("optimum.onnxruntime.modeling_decoder", "ORTModelForCausalLM.forward", "name_or_path"),
    Client("optimum.intel.openvino.modeling_decoder", "OVModelForCausalLM.forward", "name_or_path"),
    Client("rwkv.model", "RWKV.forward"),
    Client("litgpt.api", "LLM.generate"),
    Client("keras_hub.src.models.causal_lm", "CausalLM.generate"),
    Client("keras_nlp.src.models.causal_lm", "CausalLM.generate"),
    Client("transformers.generation.tf_utils", "TFGenerationMixin.generate", "name_or_path"),
    Client("transformers.generation.flax_utils", "FlaxGenerationMixin.generate", "name_or_path"),
)
"""Engines that hold the model in this process, or in its children."""

UNSEEN = {
    **dict.fromkeys(("pycurl", "curl_cffi", "tls_client", "primp", "rnet"), "HTTP of its own"),
    **dict.fromkeys(("zmq", "nats", "pika", "kafka", "celery", "ray", "dask"), "asks another process"),
    **dict.fromkeys(("tensorflow", "jax", "mlx", "onnxruntime", "openvino", "tvm"), "runs any model"),
}
"""Libraries whose generations are not intercepted, and why: `status` names those that are imported."""

WRITING = re.compile(
    r"Chat|Completion|GenerateContent|GenerateText|GenerateMessage|StreamGenerate|RawPredict|Bidi|"
    r"TextGeneration|ModelStreamInfer"
)
"""Names of gRPC methods that generate text."""


def patches(gate: Gate) -> dict[str, Patch]:
    """Module -> what is replaced in it."""
    return {client.module: _patch(client, gate) for client in (*CLIENTS, *ENGINES)}


def _patch(client: Client, gate: Gate) -> Patch:
    def patch(monkeypatch: Monkeypatch, module: ModuleType) -> None:
        around = gate.refusing(_named(client), _caller(client))
        for written in client.writes.split():
            owner = _owner(module, written.removesuffix("?"))
            if owner is not None:
                monkeypatch.replace(owner, written.removesuffix("?").rpartition(".")[2], around)
            elif not client.loose and not written.endswith("?"):
                monkeypatch.replace(module, written, around)  # raises: this version lacks it

    return patch


def _owner(module: ModuleType, written: str) -> Any:
    """The module, class or base class with a function or method; None if there is none."""
    kind, _, name = written.rpartition(".")
    if not kind:
        return module if name in vars(module) else None
    owners = getattr(vars(module).get(kind), "__mro__", ())
    return next((owner for owner in owners if name in vars(owner)), None)


def _caller(client: Client) -> Callable[[Any], str]:
    """The caller's name: the class of the object that was called, or the module of the function."""
    if client.server == METHOD:
        return lambda call: calling_package()
    return kind_of if client.server or "." in client.writes else lambda first: client.module


def _named(client: Client) -> Named:
    """The names a call may be trusted by: its server or model, its package; none if it generates nothing."""

    def named(*args: Any, **options: Any) -> Sequence[str]:
        if client.server == METHOD:
            return _remote(args[0])
        if client.server == URL and _is_silent((*args[1:], *options.values())):
            return ()
        package = (type(args[0]).__module__ if client.loose else client.module).split(".")[0]
        found = _found(args[0], client.server) if client.server else ""
        return [found, package] if found else [package]

    return named


def _found(thing: Any, path: str) -> str:
    """The server's URL or the model's name at an attribute path of an object; "" if there is none."""
    for name in path.split("."):
        thing = getattr(thing, name, "")
    return str(thing or "")


def _is_silent(arguments: Sequence[Any]) -> bool:
    """Whether a Stainless client's request generates no text."""
    requests = [each for each in arguments if hasattr(each, "url") and hasattr(each, "method")]
    return bool(requests) and all(is_silent(str(each.method), str(each.url)) for each in requests)


def _remote(call: Any) -> Sequence[str]:
    """The names of a gRPC call: its method and its package; none if it generates nothing."""
    method = call._method.decode() if isinstance(call._method, bytes) else str(call._method)
    return [f"grpc:{method}", calling_package()] if WRITING.search(method.rpartition("/")[2]) else ()
