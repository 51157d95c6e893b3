"""Ways to have a server write: each prepares a client of the canary's server, and returns what asks it.

Clients are asked as their documentation has it: by keyword.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

Ask = Callable[[], Any]
Prepare = Callable[[str], Ask]
"""A server's URL -> what asks it, and returns what it wrote in whatever shape."""

MESSAGES: Any = [{"role": "user", "content": "Once upon a time"}]
BODY: Any = {"model": "m", "messages": MESSAGES}


def package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def openai(url: str) -> Any:
    return package("openai").OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)


def anthropic(url: str) -> Any:
    return package("anthropic").Anthropic(base_url=url, api_key="k", max_retries=0)


def groq(url: str) -> Any:
    return package("groq").Groq(base_url=url, api_key="k", max_retries=0)


def ollama(url: str) -> Any:
    return package("ollama").Client(host=url)


def google(url: str) -> Any:
    genai = package("google.genai")
    return genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=url))


def cohere(url: str) -> Any:
    return package("cohere").ClientV2(api_key="k", base_url=url)


def mistral(url: str) -> Any:
    return package("mistralai.client").Mistral(api_key="k", server_url=url)


def with_client(make: Callable[[str], Any], ask: Callable[[Any], Any]) -> Prepare:
    """Prepares a client, and asks it later."""

    def prepare(url: str) -> Ask:
        client = make(url)
        return lambda: ask(client)

    return prepare


def awaited(kind: Callable[[str], Any], ask: Callable[[Any], Any]) -> Prepare:
    """The same with a client whose calls are awaited; streams are read to their end."""

    def prepare(url: str) -> Ask:
        client = kind(url)

        async def asked() -> Any:
            try:
                answer = await ask(client)
                return [piece async for piece in answer] if hasattr(answer, "__aiter__") else answer
            finally:
                await client.close()

        return lambda: asyncio.run(asked())

    return prepare


def posting(send: Callable[[str, Any], Any], route: str = "/v1/chat/completions") -> Prepare:
    """A request without a client of models."""
    return lambda url: lambda: send(url + route, BODY)


def by_urllib(url: str, body: Any) -> Any:
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return answer.read()


def by_http_client(url: str, body: Any) -> Any:
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc)) as connection:
        connection.request(method="POST", url=parts.path, body=json.dumps(body))
        return connection.getresponse().read()


def by_urllib3(url: str, body: Any) -> Any:
    return package("urllib3").request("POST", url, json=body).data


def by_session(url: str) -> Ask:
    session = package("requests").Session()
    return lambda: session.request(method="POST", url=f"{url}/api/generate", json=BODY).text


async def by_aiohttp(url: str, body: Any) -> Any:
    async with package("aiohttp").ClientSession() as session, session.post(url, json=body) as answer:
        return await answer.text()


async def by_async_httpx(url: str, body: Any) -> Any:
    async with package("httpx").AsyncClient() as client:
        return (await client.post(url, json=body)).text


def by_socket(url: str, body: Any) -> Any:
    import socket

    parts, sent = urlsplit(url), json.dumps(body)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        lines = [f"POST {parts.path} HTTP/1.0", "Host: here", f"Content-Length: {len(sent)}", "", sent]
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(4096), b""))


def streamed(pieces: Any) -> list[Any]:
    return list(pieces)


CLIENTS: dict[str, Prepare] = {
    "openai: chat.completions.create": with_client(
        openai, lambda c: c.chat.completions.create(model="m", messages=MESSAGES)
    ),
    "openai: chat.completions.create(stream=True)": with_client(
        openai, lambda c: streamed(c.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    ),
    "openai: completions.create": with_client(openai, lambda c: c.completions.create(model="m", prompt="A")),
    "openai: with_raw_response": with_client(
        openai, lambda c: c.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).text
    ),
    "openai: AsyncOpenAI": awaited(
        lambda url: package("openai").AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0),
        lambda c: c.chat.completions.create(model="m", messages=MESSAGES),
    ),
    "anthropic: messages.create": with_client(
        anthropic, lambda c: c.messages.create(model="m", max_tokens=8, messages=MESSAGES)
    ),
    "anthropic: messages.create(stream=True)": with_client(
        anthropic,
        lambda c: streamed(c.messages.create(model="m", max_tokens=8, messages=MESSAGES, stream=True)),
    ),
    "anthropic: AsyncAnthropic": awaited(
        lambda url: package("anthropic").AsyncAnthropic(base_url=url, api_key="k", max_retries=0),
        lambda c: c.messages.create(model="m", max_tokens=8, messages=MESSAGES),
    ),
    "groq: chat.completions.create": with_client(
        groq, lambda c: c.chat.completions.create(model="m", messages=MESSAGES)
    ),
    "ollama: Client.chat": with_client(ollama, lambda c: c.chat(model="m", messages=MESSAGES)),
    "ollama: Client.chat(stream=True)": with_client(
        ollama, lambda c: streamed(c.chat(model="m", messages=MESSAGES, stream=True))
    ),
    "ollama: Client.generate": with_client(ollama, lambda c: c.generate(model="m", prompt="A")),
    "ollama: AsyncClient.chat": awaited(
        lambda url: package("ollama").AsyncClient(host=url), lambda c: c.chat(model="m", messages=MESSAGES)
    ),
    "google-genai: models.generate_content": with_client(
        google, lambda c: c.models.generate_content(model="m", contents="A").text
    ),
    "google-genai: models.generate_content_stream": with_client(
        google, lambda c: streamed(c.models.generate_content_stream(model="m", contents="A"))
    ),
    "cohere: ClientV2.chat": with_client(cohere, lambda c: c.chat(model="m", messages=MESSAGES)),
    "mistralai: chat.complete": with_client(mistral, lambda c: c.chat.complete(model="m", messages=MESSAGES)),
    "requests.post": posting(lambda url, body: package("requests").post(url=url, json=body).text),
    "requests.Session": by_session,
    "urllib.request": posting(by_urllib),
    "http.client": posting(by_http_client),
    "urllib3": posting(by_urllib3),
    "httpx.post": posting(lambda url, body: package("httpx").post(url=url, json=body).text),
    "httpx.AsyncClient": posting(lambda url, body: asyncio.run(by_async_httpx(url, body))),
    "httpx2.post": posting(lambda url, body: package("httpx2").post(url=url, json=body).text),
    "aiohttp": posting(lambda url, body: asyncio.run(by_aiohttp(url, body))),
    "a client that nobody has listed": lambda url: lambda: importlib.import_module("stranger").ask(url),
    "a request to a route that nobody knows": posting(by_urllib, "/my-model"),
    "a request over a socket of one's own": posting(by_socket),
}
"""Clients of servers; those that `OPEN` has no reason for are refused."""
OPEN = {
    "a request to a route that nobody knows": "only routes and hosts known to write are refused",
    "a request over a socket of one's own": "it comes by none of the libraries that are watched",
}
STRANGER = """
    import json, urllib.request

    def ask(url):
        body = json.dumps({"messages": []}).encode()
        asked = urllib.request.Request(url + "/v1/chat/completions", body)
        return urllib.request.urlopen(asked).read().decode()
"""
"""A package that asks for a chat, whoever wrote it."""
