"""The gateway behind LiteLLM's proxy, by the configuration of docs/deploy.md: `pytest -n 0 -m slow`.

LiteLLM wants another `openai` than this environment has, so its proxy is a program on the path: make an
environment with `litellm[proxy]`, and set `PATH=$PATH:THERE/bin`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.adapters.gateways import events, serving, stubs
from tests.ports import free_port
from tests.toys import BYTES, Failing, real

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = Path(__file__).parent.parent.parent / "docs" / "deploy.md"
KEY = "gateway-0123456789abcdef"
MASTER = "sk-0123456789abcdef"
CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Once upon"}], "max_tokens": 8}


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"]},
    },
}


@dataclass(frozen=True)
class Proxied:
    """LiteLLM's proxy before a gateway of the test bed's pair, one whose LLM fails, one with another key."""

    client: httpx.Client

    def post(self, path: str, model: str = "purified", headers: Any = None, **body: Any) -> httpx.Response:
        return self.client.post(path, json={**body, "model": model}, headers=headers)


def page(url: str) -> str:
    """The page's litellm.yaml, with the gateway at another address."""
    found = re.search(r"```yaml\n# litellm.yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1].replace("http://purify.default.svc:80", url)


def entry(name: str, url: str) -> str:
    """A further model for that file, at the end of which is `model_list`."""
    told = f"model: openai/purified, api_base: {url}/v1, api_key: os.environ/GATEWAY_KEY"
    return f"  - model_name: {name}\n    litellm_params: {{{told}}}\n"


@contextmanager
def proxy(binary: str, folder: Path) -> Iterator[httpx.Client]:
    """LiteLLM's proxy by the folder's litellm.yaml, once it answers."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    keys = {"LITELLM_MASTER_KEY": MASTER, "GATEWAY_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [binary, "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--telemetry", "False"], stdout=log, stderr=log, cwd=folder, env={**os.environ, **keys}
        )
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            client.headers["authorization"] = f"Bearer {MASTER}"
            _wait(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        try:
            if client.get("/health/liveliness").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    binary = shutil.which("litellm")
    if binary is None:
        pytest.skip("LiteLLM's proxy is not on the path; the module says how")
    folder = tmp_path_factory.mktemp("litellm")
    with (
        serving(real(), api_key=KEY) as trained,
        serving(stubs(Failing(BYTES, 1, at=3)), api_key=KEY) as broken,
        serving(stubs(), api_key="another-0123456789abcdef") as foreign,
    ):
        more = entry("broken", broken.url) + entry("foreign", foreign.url)
        (folder / "litellm.yaml").write_text(page(trained.url) + more)
        with proxy(binary, folder) as client:
            yield Proxied(client)


def test_an_answer_through_litellm_has_its_certificate(proxied: Proxied) -> None:
    """Whole answers in headers that LiteLLM gives a prefix, streams in their last event."""
    whole = proxied.post(CHAT, **ASKED).raise_for_status()
    assert whole.json()["usage"]["completion_tokens"] == 8
    assert len(whole.headers["llm_provider-x-purify-certificate"]) == 64
    assert whole.headers["llm_provider-x-purify-guarantee"] != "none"
    *_, last, done = events(proxied.post(CHAT, **ASKED, stream=True).text)
    assert (len(last["purify"]["certificate"]), done) == (64, "[DONE]")
    said = {"input": "Once upon", "max_output_tokens": 16}
    whole = proxied.post("/v1/responses", **said).raise_for_status()
    assert len(whole.headers["llm_provider-x-purify-certificate"]) == 64
    streamed = events(proxied.post("/v1/responses", **said, stream=True).text)
    assert any(len(each["purify"]["certificate"]) == 64 for each in streamed if "purify" in each)


def test_completions_come_through_litellm_without_their_certificate(proxied: Proxied) -> None:
    """As the page says; if this fails, it can say something better."""
    asked = {"prompt": "Once upon", "max_tokens": 8}
    whole = proxied.post("/v1/completions", **asked).raise_for_status()
    assert whole.json()["usage"]["completion_tokens"] == 8
    streamed = proxied.post("/v1/completions", **asked, stream=True).text
    assert events(streamed)[-1] == "[DONE]"
    assert not any("purify-certificate" in name for name in whole.headers)
    assert '"certificate"' not in streamed


def test_a_tool_is_called_through_litellm(proxied: Proxied) -> None:
    body = {**ASKED, "tools": [TOOL], "tool_choice": "required", "max_tokens": 80, "temperature": 0}
    [call] = proxied.post(CHAT, **body).json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["days"] in (1, 2)
    *chunks, done = events(proxied.post(CHAT, **body, stream=True).text)
    calls = [call for each in chunks for call in each["choices"][0]["delta"].get("tool_calls", ())]
    assert done == "[DONE]"
    assert json.loads("".join(call["function"]["arguments"] for call in calls))["days"] in (1, 2)


def test_what_the_gateway_refuses_comes_through_litellm_with_its_status_and_words(proxied: Proxied) -> None:
    refused = proxied.post(CHAT, **ASKED, logit_bias={"5": 1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "logit_bias")
    assert "not supported with purification" in refused.json()["error"]["message"]
    assert proxied.post(CHAT, "foreign", **ASKED).status_code == 401
    failed = proxied.post(CHAT, "broken", **ASKED)
    assert (failed.status_code, failed.json()["error"]["code"]) == (424, "424")


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, ASKED), ("/v1/completions", {"prompt": "Once", "max_tokens": 8})]
)
def test_a_stream_that_fails_does_not_end_as_a_whole_one_behind_litellm(
    proxied: Proxied, path: str, body: dict[str, Any]
) -> None:
    *_, last = events(proxied.post(path, "broken", **body, stream=True).text)
    assert "failed" in last["error"]["message"]


def test_a_request_tightens_its_policy_through_litellm(proxied: Proxied) -> None:
    """LiteLLM drops a client's headers unless it is told to pass them on, as the page's file tells it."""
    assert proxied.post(CHAT, **ASKED, headers={"x-purify-strength": "0.5"}).status_code == 200
    refused = proxied.post(CHAT, **ASKED, headers={"x-purify-strength": "2"})
    assert (refused.status_code, "loosen" in refused.text) == (422, True)
    assert proxied.post(CHAT, "purified-strict", **ASKED).status_code == 200
