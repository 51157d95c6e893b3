"""Requests on their way out: which have text written, who is named, and what passes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from typer.testing import CliRunner

import purify_plugins
from purify_adapters.activation.outgoing import writes
from purify_adapters.activation.recorder import Counts
from purify_plugins import RefusedError
from purify_plugins.cli import app
from purify_plugins.testbed import SLM
from tests.adapters.activating import Activate
from tests.adapters.canary_server import singing
from tests.adapters.ways_clients import BODY, STRANGER, by_urllib

WRITING = [
    "https://api.openai.com/v1/chat/completions",
    "https://api.openai.com/v1/completions",
    "https://api.openai.com/v1/responses",
    "https://api.openai.com/v1/threads/t/runs",
    "https://api.openai.com/v1/whatever/comes",
    "https://mine.openai.azure.com/openai/deployments/d/chat/completions?api-version=1",
    "https://mine.openai.azure.com/openai/v1/responses",
    "https://api.anthropic.com/v1/messages",
    "https://api.anthropic.com/v1/messages/batches",
    "https://api.anthropic.com/v1/complete",
    "https://generativelanguage.googleapis.com/v1beta/models/gemini:generateContent",
    "https://generativelanguage.googleapis.com/v1beta/models/gemini:streamGenerateContent?alt=sse",
    "https://eu-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
    "https://eu-aiplatform.googleapis.com/v1/projects/p/publishers/anthropic/models/m:streamRawPredict",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/anthropic.claude/invoke",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/invoke-with-response-stream",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/converse",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/converse-stream",
    "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/e/invocations",
    "https://api.cohere.com/v2/chat",
    "https://api.cohere.com/v1/chat",
    "https://api.cohere.com/v1/generate",
    "https://api.mistral.ai/v1/fim/completions",
    "https://api.groq.com/openai/v1/chat/completions",
    "https://api.together.xyz/v1/chat/completions",
    "https://api.fireworks.ai/inference/v1/completions",
    "https://api.replicate.com/v1/models/meta/llama/predictions",
    "https://openrouter.ai/api/v1/chat/completions",
    "https://dashscope-intl.aliyuncs.com/api/v1/services/aigc/text-generation/generation",
    "https://eu-de.ml.cloud.ibm.com/ml/v1/text/generation?version=1",
    "https://eu-de.ml.cloud.ibm.com/ml/v1/text/chat_stream?version=1",
    "https://api-inference.huggingface.co/models/gpt2",
    "https://router.huggingface.co/v1/chat/completions",
    "https://x.us-east-1.aws.endpoints.huggingface.cloud/",
    "http://localhost:11434/api/generate",
    "http://localhost:11434/api/chat",
    "http://localhost:8080/generate",
    "http://localhost:8080/generate_stream",
    "http://localhost:8080/completion",
    "http://localhost:8080/infill",
    "http://localhost:8000/v2/models/llama/generate",
    "http://localhost:5001/api/v1/generate/",
    "http://localhost:5001/api/extra/generate/stream",
    "http://localhost:8000/api/chat%2Fcompletions",
    "https://adb-1.azuredatabricks.net/serving-endpoints/llama/invocations",
    "https://api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/meta/llama-3-8b",
    "https://aip.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions_pro",
    "http://localhost:5001/studio/v1/j2-mid/complete",
    "http://localhost:3000/v1/chat-messages",
    "http://localhost:3000/v1/workflows/run",
    "https://eu-aiplatform.googleapis.com/v1/projects/p/publishers/google/models/m:serverStreamingPredict",
    "wss://api.openai.com/v1/realtime?model=m",
    "wss://generativelanguage.googleapis.com/ws/google.ai.v1beta.GenerativeService.BidiGenerateContent",
]
QUIET = [
    "https://api.openai.com/v1/embeddings",
    "https://api.openai.com/v1/moderations",
    "https://api.openai.com/v1/files",
    "https://api.openai.com/v1/audio/transcriptions",
    "https://api.anthropic.com/v1/messages/count_tokens",
    "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents",
    "https://generativelanguage.googleapis.com/v1beta/models/m:countTokens",
    "https://api.cohere.com/v2/embed",
    "https://api.cohere.com/v2/rerank",
    "https://router.huggingface.co/hf-inference/models/m/pipeline/feature-extraction",
    "http://localhost:11434/api/embed",
    "http://localhost:11434/api/pull",
    "http://localhost:8080/tokenize",
    "https://hooks.slack.com/services/a/b",
    "https://example.com/api/messages",
    "https://example.com/chat",
    "https://example.com/orders/7/complete",
    "https://example.com/v1/batches",
    "http://localhost:5000/invocations",
    "https://example.com/generator",
    "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/f/invocations",
    "https://notapi.openai.com.evil.example/v1/things",
    "wss://example.com/socket",
]


@pytest.mark.parametrize("url", WRITING)
def test_a_request_that_has_text_written_is_known_by_its_route_or_its_host(url: str) -> None:
    assert writes("GET" if url.startswith("ws") else "POST", url)


@pytest.mark.parametrize("url", QUIET)
def test_another_request_is_not(url: str) -> None:
    assert not writes("GET" if url.startswith("ws") else "POST", url)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_looking_has_nothing_written(method: str) -> None:
    assert not writes(method, "https://api.openai.com/v1/chat/completions")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with singing("canary") as url:
        yield url


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Activate]:
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)

    def activate(more: str = "") -> Any:
        (tmp_path / "purify.toml").write_text(f"[slm]\nmodel = {json.dumps(str(SLM))}\n{more}")
        return purify_plugins.activate(tmp_path / "purify.toml")

    yield activate
    purify_plugins.deactivate()


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A client that nobody has listed."""
    (tmp_path / "stranger.py").write_text(dedent(STRANGER))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("stranger").ask
    sys.modules.pop("stranger")


def test_a_client_that_nobody_has_listed_is_named(
    light: Activate, server: str, stranger: Callable[[str], str], tmp_path: Path
) -> None:
    """In the error, in the status, and by `purify status`, from another process."""
    light('[activation]\nstatus = "told"\n')
    with pytest.raises(
        RefusedError, match=rf"^stranger asks '{server}', which cannot be purified; .*`trusted`"
    ):
        stranger(server)
    told = purify_plugins.status()
    assert told.refused == ("stranger",)
    assert told.models == {server: Counts(refused=1)}
    printed = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "purify.toml")]).stdout
    assert "refused: stranger" in printed


@pytest.mark.parametrize("trusted", ["{server}", "{server}/v1", "stranger"])
def test_a_server_or_a_package_that_is_trusted_is_asked(
    light: Activate, server: str, stranger: Callable[[str], str], trusted: str
) -> None:
    light(f"[activation]\ntrusted = ['{trusted.format(server=server)}']\n")
    assert "canary" in stranger(server)
    assert purify_plugins.status().models == {server: Counts(trusted=1)}
    assert purify_plugins.status().refused == ()


def test_another_server_than_the_trusted_one_is_not_asked(
    light: Activate, server: str, stranger: Callable[[str], str]
) -> None:
    light(f"[activation]\ntrusted = ['{server}0', '{server}/v2', 'strange']\n")
    with pytest.raises(RefusedError):
        stranger(server)


def test_what_has_nothing_written_is_asked(light: Activate, server: str) -> None:
    light()
    assert by_urllib(f"{server}/v1/embeddings", BODY)
    assert purify_plugins.status().models == {}


def test_an_application_in_this_process_is_left_alone(light: Activate) -> None:
    """A test client asks its own program's routes, which may be called as a model's server has them."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    light()
    here = httpx.MockTransport(lambda request: httpx.Response(200, text="mine"))
    with httpx.Client(transport=here) as client:
        assert client.post("http://testserver/v1/chat/completions", json=BODY).text == "mine"


def test_a_library_through_which_text_may_come_unseen_is_named(
    light: Activate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", sys)
    light()
    assert "pycurl" in purify_plugins.status().unseen


@pytest.mark.parametrize(
    ("module", "kind", "method"),
    [("http.client", "HTTPConnection", "putrequest"), ("subprocess", "Popen", "__init__")],
)
def test_a_module_that_is_read_anew_is_patched_anew(
    light: Activate, module: str, kind: str, method: str
) -> None:
    light()
    read = importlib.import_module(module)
    before, names = getattr(read, kind), dict(vars(read))
    try:
        after = getattr(importlib.reload(read), kind)
        assert after is not before
        assert hasattr(getattr(after, method), "__wrapped__")
        assert not hasattr(getattr(after, method).__wrapped__, "__wrapped__")  # and once only
    finally:
        purify_plugins.deactivate()
        vars(read).update(names)
    assert not hasattr(HTTPConnection.putrequest, "__wrapped__")
    assert not hasattr(subprocess.Popen.__init__, "__wrapped__")


def test_a_websocket_to_a_model_is_refused(light: Activate, server: str) -> None:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    light()
    url = server.replace("http", "ws")
    with pytest.raises(RefusedError, match=f"asks '{server}'"):
        client.connect(f"{url}/v1/realtime?model=m")
    with pytest.raises(client.InvalidStatus):  # it was asked, and has no websockets
        client.connect(f"{url}/chat")
