"""Clients of inference servers under activation: purified at a URL, refused elsewhere, never passed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

import purify_plugins
from purify_adapters.activation.active import Activation
from purify_adapters.activation.gate import Gate
from purify_adapters.activation.hub_clients import HubClients
from purify_adapters.activation.recorder import Counts, Recorder
from purify_adapters.activation.rules import Rules
from purify_plugins import ConfigError, PurifyError, RefusedError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, attacks
from purify_plugins.tokenizers.cross.choose import EPS
from purify_plugins.tokenizers.cross.source import SymbolSource
from purify_plugins.types import Fidelity
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.toys import both

openai = pytest.importorskip("openai", reason="openai is not installed")

PASSAGE = attacks().passages[3]
RECITED = PASSAGE.continuation[:16]
SERVER = f"[llm]\nsource = 'tgi'\ntokenizer = {json.dumps(str(LLM))}\n"
FILE = f"[slm]\nmodel = {json.dumps(str(SLM))}\n[sampling]\nmax_tokens = 8\ntemperature = 0.0\n"
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
MESSAGES = [{"role": "user", "content": PASSAGE.prefix}]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTGI]:
    with fake_tgi(both()[0], top_n=2048) as running:
        yield running


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)

    def activate(more: str = "", base: str = FILE + SERVER) -> None:
        (tmp_path / "purify.toml").write_text(base + more)
        purify_plugins.activate(tmp_path / "purify.toml")

    yield activate
    purify_plugins.deactivate()


def deltas(pieces: Any) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def sync(client: InferenceClient) -> dict[str, Callable[[], str]]:

    def ask(prompt: str, **options: Any) -> Any:
        return client.text_generation(prompt, **options)

    return {
        "text": lambda: ask(PASSAGE.prefix, **GREEDY),
        "details": lambda: ask(PASSAGE.prefix, details=True, **GREEDY).generated_text,
        "stream": lambda: "".join(ask(PASSAGE.prefix, stream=True, **GREEDY)),
        "stream of details": lambda: "".join(
            piece.token.text for piece in ask(PASSAGE.prefix, stream=True, details=True, **GREEDY)
        ),
        "whole text": lambda: ask(PASSAGE.prefix, return_full_text=True, **GREEDY)[len(PASSAGE.prefix) :],
        "chat": lambda: client.chat_completion(MESSAGES, max_tokens=8).choices[0].message.content or "",
        "chat stream": lambda: deltas(client.chat_completion(MESSAGES, max_tokens=8, stream=True)),
        "openai's way": lambda: client.chat.completions.create(MESSAGES).choices[0].message.content or "",
    }


def later(client: AsyncInferenceClient) -> dict[str, Callable[[], str]]:
    def ask(**options: Any) -> Any:
        return finished(client, client.text_generation(PASSAGE.prefix, **GREEDY, **options))

    def chat(**options: Any) -> Any:
        return finished(client, client.chat_completion(MESSAGES, **options))

    return {
        "async text": lambda: ask(),
        "async stream": lambda: "".join(ask(stream=True)),
        "async chat": lambda: chat().choices[0].message.content,
        "async chat stream": lambda: deltas(chat(stream=True)),
    }


def finished(client: AsyncInferenceClient, asked: Any) -> Any:
    """What a request answers, or all that it streams, on a loop of its own."""

    async def all_of_it() -> Any:
        async with client:
            answer = await asked
            return [piece async for piece in answer] if hasattr(answer, "__aiter__") else answer

    return asyncio.run(all_of_it())


def ways(url: str) -> dict[str, Callable[[], str]]:
    return {**sync(InferenceClient(url)), **later(AsyncInferenceClient(url))}


def test_without_activation_the_server_recites(server: FakeTGI) -> None:
    assert RECITED in ways(str(server))["text"]()
    assert RECITED in ways(str(server))["async text"]()


@pytest.mark.parametrize("way", ways("http://nowhere"))
def test_a_client_of_a_server_is_purified(server: FakeTGI, on: Callable[..., None], way: str) -> None:
    built_before = ways(str(server))[way]
    on()
    text = built_before()
    assert text
    assert RECITED not in text
    told = purify_plugins.status().models
    assert told == {str(server): replace(told[str(server)], purified=1, refused=0, trusted=0)}


def test_what_a_stream_says_is_what_a_call_says(server: FakeTGI, on: Callable[..., None]) -> None:
    on()
    asked = ways(str(server))
    texts = ("text", "details", "stream", "stream of details", "whole text", "async stream")
    assert len({asked[way]() for way in texts}) == 1
    details = InferenceClient(str(server)).text_generation(PASSAGE.prefix, details=True, **GREEDY).details
    assert details is not None
    assert (details.finish_reason, details.generated_tokens, len(details.tokens)) == ("length", 8, 8)
    *_, last = InferenceClient(str(server)).chat_completion(
        MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 8


def test_what_a_request_leaves_open_is_the_files(server: FakeTGI, on: Callable[..., None]) -> None:
    on()
    client = InferenceClient(str(server))
    told = client.text_generation(PASSAGE.prefix, details=True)
    assert told.details is not None
    assert told.details.generated_tokens == 8
    assert (
        client.text_generation(PASSAGE.prefix, max_new_tokens=3, details=True).details.generated_tokens == 3
    )  # type: ignore[union-attr]  # details were asked for
    assert client.text_generation(PASSAGE.prefix, stop=[" "]) == ""
    assert set(client.text_generation(PASSAGE.prefix, grammar={"type": "regex", "value": "[ab]{9}"})) <= {
        *"ab"
    }  # type: ignore[arg-type]  # a dictionary does


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda client: client.text_generation("A", best_of=3), "does not do best_of=3"),
        (lambda client: client.text_generation("A", watermark=True), "does not do watermark=True"),
        (lambda client: client.text_generation("A", top_n_tokens=2), "does not do top_n_tokens=2"),
        (lambda client: client.chat_completion(MESSAGES, n=2), "does not do n=2"),
        (lambda client: client.chat_completion(MESSAGES, logprobs=True), "does not do logprobs=True"),
        (lambda client: client.chat_completion(MESSAGES, tools=[{"type": "function"}]), "does not do tools="),
        (
            lambda client: client.text_generation("A", grammar={"type": "odd", "value": ""}),
            "grammar of type 'odd'",
        ),
        (lambda client: client.text_generation("A", temperature=-1.0), "temperature must be 0"),
    ],
)
def test_what_purification_has_not_is_refused_by_name(
    server: FakeTGI, on: Callable[..., None], ask: Callable[[Any], Any], words: str
) -> None:
    on()
    with pytest.raises(ConfigError, match=words):
        ask(InferenceClient(str(server)))
    assert purify_plugins.status().total.refused == 1


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("{server}", "Bearer mine"),
        ("{server}/v1/", "Bearer mine"),
        ("http://127.0.0.1:9", ""),
        ("{server}0", ""),
        ("{server}/tenant", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("key", ["api_key = 'mine'", "api_key_env = 'A'"])
def test_an_api_key_is_sent_to_its_own_server_alone(
    server: FakeTGI, on: Callable[..., None], monkeypatch: pytest.MonkeyPatch, url: str, sent: str, key: str
) -> None:
    monkeypatch.setenv("A", "mine")
    before = len(server.authorized)
    named = f"url = '{url.format(server=server)}'\n" if url else ""
    on(base=FILE + SERVER + named + key)
    assert InferenceClient(str(server)).text_generation("A", max_new_tokens=1)
    assert set(server.authorized[before:]) == {sent}


@pytest.mark.parametrize("fidelity", ["exact", "fast"])
def test_the_file_says_in_what_two_tokenizers_meet(tmp_path: Path, fidelity: Fidelity) -> None:
    (tmp_path / "purify.toml").write_text(f"alignment = 'bytes'\nfidelity = '{fidelity}'\n" + FILE)
    purifier = Activation(tmp_path / "purify.toml").purifier(both()[0])
    for source in (purifier.llm, purifier.slm):
        assert isinstance(source, SymbolSource)
        assert (source.symbol_set.kind, source.eps) == ("bytes", EPS[fidelity])


def test_a_trusted_server_answers_for_itself(server: FakeTGI, on: Callable[..., None]) -> None:
    on(f"[activation]\ntrusted = ['{server}']\n")
    assert RECITED in ways(str(server))["text"]()
    assert RECITED in ways(str(server))["async text"]()
    assert purify_plugins.status().total == Counts(trusted=2)


def test_what_was_captured_before_is_refused(server: FakeTGI, on: Callable[..., None]) -> None:
    """Methods that somebody holds from before, and others that write, end in one place."""
    client, later = InferenceClient(str(server)), AsyncInferenceClient(str(server))
    text, chat, coming = client.text_generation, client.chat_completion, later.text_generation
    on()
    asked = len(server.requests)
    for ask in (lambda: text("A"), lambda: chat(MESSAGES), lambda: asyncio.run(coming("A"))):
        with pytest.raises(RefusedError, match="which cannot be purified"):
            ask()
    with pytest.raises(RefusedError, match="which cannot be purified"):
        client.summarization("A")
    assert len(server.requests) == asked


def test_a_provider_is_refused(on: Callable[..., None]) -> None:
    on()
    for client in (InferenceClient("org/model"), InferenceClient()):
        with pytest.raises(RefusedError, match="through a provider, which shows no probabilities"):
            client.text_generation("A")


def test_a_server_whose_tokenizer_nobody_names_is_refused(server: FakeTGI, on: Callable[..., None]) -> None:
    on(base=FILE)
    with pytest.raises(ConfigError, match="does not tell its tokenizer"):
        InferenceClient(str(server)).text_generation("A")


def test_a_server_is_refused_where_no_plugin_can_ask_it(server: FakeTGI, on: Callable[..., None]) -> None:
    on(base=FILE + SERVER.replace("tgi", "elsewhere"))
    with pytest.raises(ConfigError, match="one of server, llama_cpp, tgi, vllm"):
        InferenceClient(str(server)).text_generation("A")


def test_a_server_that_fails_is_counted_as_refused(server: FakeTGI, on: Callable[..., None]) -> None:
    on()
    with pytest.raises(PurifyError):
        InferenceClient("http://127.0.0.1:9").text_generation("A")
    assert purify_plugins.status().total == Counts(refused=1)


# Clients that are refused


def openai_ways(client: Any) -> dict[str, Callable[[], Any]]:
    return {
        "chat": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "chat stream": lambda: client.chat.completions.create(model="m", messages=MESSAGES, stream=True),
        "completions": lambda: client.completions.create(model="m", prompt="A"),
        "responses": lambda: client.responses.create(model="m", input="A"),
        "raw": lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES),
    }


@pytest.mark.parametrize("way", openai_ways(None))
def test_openais_clients_are_refused_by_name(server: FakeTGI, on: Callable[..., None], way: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    on()
    asked = len(server.requests)
    with pytest.raises(RefusedError, match=r"openai.OpenAI asks 'http.*', which cannot be purified"):
        openai_ways(client)[way]()
    assert len(server.requests) == asked
    assert purify_plugins.status().total == Counts(refused=1)


def test_openais_async_client_is_refused_and_its_other_questions_are_not(
    server: FakeTGI, on: Callable[..., None]
) -> None:
    async def ask(embed: bool) -> None:
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
            if embed:
                await client.embeddings.create(model="m", input="A")
            else:
                await client.chat.completions.create(model="m", messages=MESSAGES)

    on()
    with pytest.raises(RefusedError, match="AsyncOpenAI asks"):
        asyncio.run(ask(embed=False))
    with pytest.raises(openai.APIStatusError):  # the server has no embeddings, and was asked
        asyncio.run(ask(embed=True))
    purify_plugins.deactivate()
    on(f"[activation]\ntrusted = ['{server}']\n")
    with pytest.raises(openai.APIStatusError):
        asyncio.run(ask(embed=False))


def test_the_text_generation_client_is_refused(
    on: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in: the real one wants a huggingface_hub of before 1.0."""
    package = tmp_path / "site" / "text_generation"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from text_generation.client import Client, AsyncClient\n")
    methods = "".join(
        f"\n    def {name}(self, *a, **k): return 'raw'" for name in ("generate", "generate_stream", "chat")
    )
    (package / "client.py").write_text(
        dedent("class Client:\n    def __init__(self, base_url): self.base_url = base_url")
        + methods
        + "\nclass AsyncClient(Client):"
        + methods
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    on("[activation]\ntrusted = ['http://mine']\n")
    import text_generation  # type: ignore[import-not-found]  # written above

    try:
        for kind in (text_generation.Client, text_generation.AsyncClient):
            for method in ("generate", "generate_stream", "chat"):
                with pytest.raises(
                    RefusedError, match=rf"text_generation.client.{kind.__name__} asks 'http://theirs'"
                ):
                    getattr(kind("http://theirs"), method)("A")
                assert getattr(kind("http://mine"), method)("A") == "raw"
    finally:
        purify_plugins.deactivate()
        for name in ("text_generation", "text_generation.client"):
            sys.modules.pop(name, None)


def test_trust_is_in_the_server_that_was_named_alone(tmp_path: Path) -> None:
    """`engine = "trusted"` under [llm] vouched for every server that the program asked."""
    llm = {"source": "tgi", "url": "http://mine:80", "tokenizer": "DIR", "engine": "trusted", "api_key": "k"}
    gate = Gate(Rules([], [], tmp_path), Recorder(lambda: None))
    clients = HubClients(gate, lambda llm: pytest.fail("none is made"), load_plugins(()), llm)
    assert clients._table("http://mine:80/v1")["engine"] == "trusted"
    assert not {"engine", "api_key"} & clients._table("http://other:80").keys()
