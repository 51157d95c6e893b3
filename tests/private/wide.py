"""Fake servers that take prompts of any length, and a template that sends all of a conversation.

What they answer is drawn from no model, so that thousands of prompts cost little.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import Tensor

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_plugins import Purifier, Sampling
from purify_plugins.stages.stage import Stage
from purify_plugins.testbed import LLM
from purify_plugins.testing import ToySource
from purify_plugins.types import Chat, Prompt
from tests.remote.fake_servers import FakeLlama, FakeVLLM
from tests.toys import both, pair

WIDE = 1 << 20
"""The context of the servers, in tokens."""
TEMPLATE = "{{ messages | tojson }}{% if tools %}{{ tools | tojson }}{% endif %}"
ONE = Sampling(max_tokens=1, temperature=0, ignore_eos=True)


class Flat:
    """A model of which every row is the same."""

    def __init__(self) -> None:
        self.vocabulary = both()[0].vocabulary

    @cached_property
    def row(self) -> Tensor:
        return torch.log_softmax(torch.linspace(0, 1, len(self.vocabulary)), -1)

    def encode(self, text: str) -> tuple[int, ...]:
        return both()[0].tokenizer.encode(text)  # type: ignore[no-any-return]


class WideLlama(FakeLlama):
    def app(self) -> Starlette:
        props = {"default_generation_settings": {"n_ctx": WIDE}, "total_slots": 4}
        told = Route("/props", lambda request: JSONResponse(props))
        return Starlette(routes=[told, *super().app().routes])

    def rows(self, ids: Sequence[int]) -> Tensor:
        return self.model.row[None]  # type: ignore[no-any-return]


class WideVLLM(FakeVLLM):
    def app(self) -> Starlette:
        told = {"data": [{"id": "m", "max_model_len": WIDE}]}
        return Starlette(
            routes=[Route("/v1/models", lambda request: JSONResponse(told)), *super().app().routes]
        )

    def rows(self, ids: Sequence[int]) -> Tensor:
        return self.model.row[None]  # type: ignore[no-any-return]


WIDE_SERVERS: dict[str, Any] = {
    "llama_cpp": (WideLlama, LlamaCppSource),
    "vllm": (WideVLLM, VLLMSource),
}


class Deaf(ToySource):
    """An SLM that reads nothing of a prompt."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return prompt if isinstance(prompt, tuple) else (1,)


def templated(folder: Path) -> Path:
    """The test bed's tokenizer with a template that writes messages and tools as they are."""
    shutil.copytree(LLM, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": TEMPLATE}))
    return folder


def wide(source: Any, *stages: Stage) -> Purifier:
    """The pair of a server and a toy, whose answers are of one token."""
    return pair(source, Deaf(both()[0].vocabulary), "geometric", stages=stages, sampling=ONE)


def ask_all(purifier: Purifier, chats: Sequence[Chat], streamed: bool) -> None:
    for chat in chats:
        if streamed:
            assert list(purifier.stream(chat))
        else:
            purifier.generate([chat], errors="raise")
