"""TGI's official clients drive the gateway as they drive TGI, unchanged; so does a fuzzer of its OpenAPI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import GenerationError, HfHubHTTPError, OverloadedError, ValidationError

from tests.adapters.gateways import Served, serving, stubs
from tests.toys import BYTES, Failing


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(stubs(), api_key="k") as found:
        yield found


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub's own switch would keep its client from this machine too."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    _forget_sessions()
    yield
    _forget_sessions()


def _forget_sessions() -> None:
    """Below 1.0 the hub keeps sessions, each as offline as it was when it was made."""
    from huggingface_hub.utils import _http

    getattr(_http, "reset_sessions", lambda: None)()  # another package's, and gone from 1.0 on


@pytest.fixture
def client(served: Served) -> InferenceClient:
    return InferenceClient(base_url=served.url, token="k")


def test_the_hub_s_client_generates(client: InferenceClient) -> None:
    plain = client.text_generation("hello", max_new_tokens=8)
    found = client.text_generation("hello", max_new_tokens=8, details=True, return_full_text=False)
    assert found.generated_text == plain.removeprefix("hello")
    assert (found.details.finish_reason, found.details.generated_tokens) == ("length", 8)
    assert "".join(token.text for token in found.details.tokens) == found.generated_text


def test_the_hub_s_client_streams(client: InferenceClient) -> None:
    said = list(client.text_generation("hello", max_new_tokens=8, stream=True, seed=1, do_sample=True))
    *_, last = client.text_generation(
        "hello", max_new_tokens=8, stream=True, details=True, seed=1, do_sample=True, return_full_text=False
    )
    assert "".join(said) == last.generated_text
    assert (last.details.finish_reason, last.details.input_length, last.details.seed) == ("length", 5, 1)


def test_the_hub_s_client_stops_where_it_says(client: InferenceClient) -> None:
    text = client.text_generation("hello", max_new_tokens=8, return_full_text=False)
    found = client.text_generation(
        "hello", max_new_tokens=8, stop=[text[4]], details=True, return_full_text=False
    )
    assert found.generated_text == text[: text.index(text[4]) + 1]
    assert found.details.finish_reason == "stop_sequence"


def test_the_hub_s_client_chats(client: InferenceClient) -> None:
    messages = [{"role": "user", "content": "hello"}]
    whole = client.chat_completion(messages, max_tokens=8, seed=1, logprobs=True)
    chunks = list(client.chat_completion(messages, max_tokens=8, seed=1, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (8, "length")
    assert len(whole.choices[0].logprobs.content) == 8


def test_the_hub_s_client_gets_tgi_s_errors(client: InferenceClient, served: Served) -> None:
    with pytest.raises(ValidationError, match="`watermark` is not supported with purification"):
        client.text_generation("hello", watermark=True)
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(base_url=served.url, token="wrong").text_generation("hello")
    with serving(stubs(Failing(BYTES, at=3), walk="lockstep")) as failing:
        broken = InferenceClient(base_url=failing.url)
        with pytest.raises(GenerationError):
            broken.text_generation("hello", max_new_tokens=8)
        with pytest.raises(GenerationError):
            list(broken.text_generation("hello", max_new_tokens=8, stream=True))
    with serving(stubs(), max_concurrent=1, queue=0) as full:
        full.app.service.executor.running = 1
        with pytest.raises(OverloadedError):
            InferenceClient(base_url=full.url).text_generation("hello")
        full.app.service.executor.running = 0


@pytest.mark.slow
def test_a_fuzzer_of_the_openapi_document_finds_no_server_error(tmp_path: Path) -> None:
    """Run as a command: its pytest plugin would change how every other test is collected."""
    with serving(stubs(), max_total_tokens=64, queue=64) as served:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/api-doc/openapi.json"]
        checks = [
            "--checks",
            "not_a_server_error,status_code_conformance",
            "--max-examples",
            "30",
            "--seed",
            "1",
        ]
        done = subprocess.run(
            [*command, *checks, "--phases", "examples,coverage,fuzzing"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert served.post("/generate", {"inputs": "hello"}).status_code == 200
