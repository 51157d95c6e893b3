"""A real LLM behind llama.cpp's server that shows the top of its rows, and SmolLM2 here: chats in bytes.

`PURIFY_LLAMA_GGUF` names the LLM's file; no package brings one that these tests may depend on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_hooks.evaluation.testbed.real.original import gguf_file
from purify_hooks.gguf.source import GgufSource
from purify_hooks.local.gguf_model import unpacked
from tests.adapters.gateways import serving
from tests.remote.real_servers import llama_command, started
from tests.toys import pair

pytestmark = [pytest.mark.slow, pytest.mark.alone]
FILE = os.environ.get("PURIFY_LLAMA_GGUF")
TOP = 100
ASKED = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "How do I reverse a list in Python?",
    "What is 17 times 3?",
    "Translate 'good morning' into Spanish.",
)
FORMS = ("{}", "Please tell me: {}", "{} Be brief.", "For a child: {}")
QUESTIONS = [f"{form.format(asked)} Answer in one sentence." for asked in ASKED for form in FORMS]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppSource]:
    """The LLM behind a server with four slots."""
    if not FILE:
        pytest.skip("set PURIFY_LLAMA_GGUF to an LLM's GGUF file")
    log = tmp_path_factory.mktemp("server") / "log"
    with started(llama_command(Path(FILE)), log, "/health", 120.0) as url, unpacked(Path(FILE)) as folder:
        yield LlamaCppSource.load(url, tokenizer=folder, top_n=TOP, read=120.0)


def test_twenty_chats_are_answered_and_no_row_is_larger_than_asked(
    source: LlamaCppSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints the seconds to the first byte of text."""
    shown: list[int] = []
    drafted = LlamaCppSource._drafted

    def noted(self: LlamaCppSource, answer: Any) -> Any:
        shown.append(len(answer.completion_probabilities[0].top_logprobs))
        return drafted(self, answer)

    monkeypatch.setattr(LlamaCppSource, "_drafted", noted)
    purifier = pair(source, GgufSource.load(gguf_file()), "balanced")
    assert purifier.vocabulary.name == "bytes"
    with serving(purifier) as gateway:
        told = [_chat(gateway.url, question) for question in QUESTIONS]
    waited = sorted(first for first, _, _ in told)
    assert all(text for _, text, _ in told)
    assert all(purify["certificate"] and not purify["slm_only"] for _, _, purify in told)
    assert 0 < max(shown) <= TOP
    print(
        f"{len(told)} chats: to the first byte {waited[len(waited) // 2]:.2f} s, at most {waited[-1]:.2f} s"
    )


def _chat(url: str, question: str) -> tuple[float, str, Any]:
    """Seconds to the first text, the text, and what the last event says of it."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 12, "stream": True}
    begun, first, text, last = time.monotonic(), 0.0, "", {}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body, timeout=300, trust_env=False
    ) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line.removeprefix("data: "))
            if said := (last.get("choices") or [{}])[0].get("delta", {}).get("content"):
                first, text = first or time.monotonic() - begun, text + said
    return first, text, last.get("purify", {})
