"""Ways to ask a server through huggingface_hub's clients, as its documentation has them: by keyword."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import AsyncInferenceClient, InferenceClient

from purify_hooks.local.source import LocalSource
from purify_plugins.testbed import LLM
from tests.adapters.canary import tampered, tokenizer
from tests.adapters.ways_clients import Prepare, awaited, package, with_client
from tests.fake_tgi import fake_tgi

TEXT = "Once upon a time"
MESSAGES: Any = [{"role": "user", "content": TEXT}]
GREEDY: Any = {"max_new_tokens": 4, "do_sample": False}


@contextmanager
def singing() -> Iterator[str]:
    """The URL of a Text Generation Inference server whose model is sure of the canary."""
    with fake_tgi(LocalSource(tampered(), tokenizer(), "canary", LLM), top_n=2048) as server:
        yield str(server)


def deltas(pieces: Any) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def content(answer: Any) -> str:
    """What was written, whole or in pieces."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list):
        return "".join(piece if isinstance(piece, str) else deltas([piece]) for piece in answer)
    return str(answer.choices[0].message.content)


def read(prepare: Prepare) -> Prepare:
    return lambda url: (lambda ask: lambda: content(ask()))(prepare(url))


def langchain(url: str) -> Any:
    module = package("langchain_huggingface")
    return module.HuggingFaceEndpoint(
        endpoint_url=url, huggingfacehub_api_token="k", typical_p=None, **GREEDY
    )


WAYS: dict[str, Prepare] = {
    name: read(prepare)
    for name, prepare in {
        "InferenceClient.text_generation(text)": with_client(
            InferenceClient, lambda c: c.text_generation(TEXT, **GREEDY)
        ),
        "InferenceClient.text_generation(prompt=…)": with_client(
            InferenceClient, lambda c: c.text_generation(prompt=TEXT, **GREEDY)
        ),
        "InferenceClient.text_generation(prompt=…, stream=True)": with_client(
            InferenceClient, lambda c: "".join(c.text_generation(prompt=TEXT, stream=True, **GREEDY))
        ),
        "InferenceClient.text_generation(prompt=…, details=True)": with_client(
            InferenceClient, lambda c: c.text_generation(prompt=TEXT, details=True, **GREEDY).generated_text
        ),
        "InferenceClient.chat_completion(messages=…)": with_client(
            InferenceClient, lambda c: c.chat_completion(messages=MESSAGES, max_tokens=4)
        ),
        "InferenceClient.chat_completion(messages=…, stream=True)": with_client(
            InferenceClient, lambda c: list(c.chat_completion(messages=MESSAGES, max_tokens=4, stream=True))
        ),
        "InferenceClient.chat.completions.create(messages=…)": with_client(
            InferenceClient, lambda c: c.chat.completions.create(messages=MESSAGES, max_tokens=4)
        ),
        "InferenceClient.chat.completions.create(messages=…, stream=True)": with_client(
            InferenceClient,
            lambda c: list(c.chat.completions.create(messages=MESSAGES, max_tokens=4, stream=True)),
        ),
        "AsyncInferenceClient.text_generation(prompt=…)": awaited(
            AsyncInferenceClient, lambda c: c.text_generation(prompt=TEXT, **GREEDY)
        ),
        "AsyncInferenceClient.text_generation(prompt=…, stream=True)": awaited(
            AsyncInferenceClient, lambda c: c.text_generation(prompt=TEXT, stream=True, **GREEDY)
        ),
        "AsyncInferenceClient.chat_completion(messages=…)": awaited(
            AsyncInferenceClient, lambda c: c.chat_completion(messages=MESSAGES, max_tokens=4)
        ),
        "AsyncInferenceClient.chat.completions.create(messages=…, stream=True)": awaited(
            AsyncInferenceClient,
            lambda c: c.chat.completions.create(messages=MESSAGES, max_tokens=4, stream=True),
        ),
        "LangChain's HuggingFaceEndpoint": with_client(langchain, lambda llm: llm.invoke(TEXT)),
    }.items()
}
