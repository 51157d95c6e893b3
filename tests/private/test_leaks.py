"""No private value that is found reaches a server: what fake and real ones receive is read byte for byte."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_hooks.private.finders import finder, plain
from purify_hooks.private.gatekeeper import Gatekeeper
from purify_plugins import Purifier, Sampling
from purify_plugins.stages.stage import Stage
from purify_plugins.stages.texts import texts
from purify_plugins.testbed import LLM
from purify_plugins.types import Chat
from tests.fake_tgi import serving
from tests.private.conversations import KINDS, TURNS, Conversation, Wire, conversations, leaked, tapped
from tests.private.wide import WIDE_SERVERS, Flat, ask_all, templated, wide
from tests.remote.fake_servers import FakeLlama, FakeVLLM
from tests.remote.real_servers import llama_command, started, write_gguf
from tests.toys import both, pair

FINDER = finder()
PROMPTS = int(os.environ.get("PURIFY_TEST_PROMPTS", "16"))
"""About how many prompts of each kind are asked."""
SHORT = Sampling(max_tokens=2, temperature=0, ignore_eos=True)
SERVERS: dict[str, Any] = {"llama_cpp": (FakeLlama, LlamaCppSource), "vllm": (FakeVLLM, VLLMSource)}


def asked(source: Any, *stages: Stage) -> Purifier:
    return pair(source, both()[1], "geometric", stages=stages, sampling=SHORT)


def ask(purifier: Purifier, conversation: Conversation, streamed: bool, turn: int = -1) -> frozenset[str]:
    """Ask a turn, of which the newest messages that the toys read; returns the values found in these.

    Calls and tools are their JSON. A value whose telling word is in a message that is left out is not found.
    """
    messages = list(map(_told, conversation.turns[turn]))
    while len(messages) > 1 and len(json.dumps(messages)) > 560:
        del messages[0]
    prompt = Chat(tuple(messages))
    if streamed:
        assert list(purifier.stream(prompt))
    else:
        purifier.generate([prompt], errors="raise")
    found = {plain(text[start:end]) for text in texts(prompt) for start, end, _ in FINDER.find(text)}
    return conversation.values & found


def _told(message: Any) -> Any:
    if message["role"] == "tool":
        return {"role": "user", "content": message["content"]}
    calls = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    return {"role": message["role"], "content": json.dumps(calls)} if calls else message


def whole(values: frozenset[str], wire: Wire) -> list[str]:
    return leaked(values, wire.texts(both()[0].vocabulary))


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        ("llama_cpp", "email"),
        *(pytest.param(server, kind, marks=pytest.mark.slow) for server in SERVERS for kind in KINDS),
    ],
)
def test_a_fake_server_receives_no_value(server: str, kind: str) -> None:
    keeper = Gatekeeper()
    made, source = SERVERS[server]
    with serving(made(both()[0]).app()) as url, tapped(port(url)) as wire:
        purifier = asked(source.load(f"http://127.0.0.1:{wire.port}", tokenizer=LLM, top_n=64), keeper)
        for tools in (False, True):
            [conversation] = conversations(kind, 1, keeper._finder, tools, short=True)
            values = ask(purifier, conversation, streamed=tools)
            assert values
            assert not whole(values, wire)
        assert len(wire.received) > 1000


def test_without_the_gatekeeper_the_value_is_seen_on_the_wire() -> None:
    """The reading that finds no value finds those that are sent."""
    [conversation] = conversations("email", 1, Gatekeeper()._finder, tools=False, short=True)
    with serving(FakeLlama(both()[0]).app()) as url, tapped(port(url)) as wire:
        source = LlamaCppSource.load(f"http://127.0.0.1:{wire.port}", tokenizer=LLM, top_n=64)
        assert whole(ask(asked(source), conversation, streamed=False), wire)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("llama")
    command = llama_command(write_gguf(LLM, folder / "llm.gguf"))
    with started(command, folder / "log", "/health") as url:
        yield port(url), folder / "log"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_llama_cpp_server_receives_no_value_and_logs_none(kind: str, llama: tuple[int, Path]) -> None:
    """With PURIFY_TEST_PROMPTS=1000, forty prompts and more of each kind.

    Each request is read by itself: of a later one the toys no longer read the word that told of a value.
    """
    keeper, prompts, values, leaks = Gatekeeper(), 0, 0, list[str]()
    with tapped(llama[0]) as wire:
        purifier = asked(
            LlamaCppSource.load(f"http://127.0.0.1:{wire.port}", tokenizer=LLM, top_n=64), keeper
        )
        for tools in (False, True):
            for conversation in conversations(kind, -(-PROMPTS // 200), keeper._finder, tools, short=True):
                for turn in range(TURNS):
                    del wire.received[:]
                    logged = len(llama[1].read_text("utf-8", "replace"))
                    found = ask(purifier, conversation, streamed=bool(turn % 2) != tools, turn=turn)
                    leaks += whole(found, wire)
                    leaks += leaked(found, [llama[1].read_text("utf-8", "replace")[logged:]])
                    assert wire.received
                    prompts, values = prompts + 1, values + len(found)
    print(f"{kind}: {prompts} prompts with {values} values to llama.cpp, {len(leaks)} leaks")
    assert values >= prompts / 2
    assert not leaks


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return templated(tmp_path_factory.mktemp("wide") / "tokenizer")


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_no_value_of_a_whole_conversation_is_on_the_wire(kind: str, tokenizer: Path) -> None:
    """Every turn of chats and of tool calls, whole, streamed and not, to two dialects.

    `PURIFY_TEST_PROMPTS=1000 pytest -m slow -k whole_conversation -s` asks 1,000 of each of 20 kinds.
    """
    keeper, prompts, values, octets = Gatekeeper(), 0, 0, 0
    count, found = -(-PROMPTS // (4 * TURNS)), list[str]()
    for at, (made, source) in enumerate(WIDE_SERVERS.values()):
        with serving(made(Flat()).app()) as url, tapped(port(url)) as wire:
            loaded = source.load(f"http://127.0.0.1:{wire.port}", tokenizer=tokenizer, top_n=8)
            purifier = wide(loaded, keeper)
            for tools in (False, True):
                for number, each in enumerate(conversations(kind, count, keeper._finder, tools, seed=2 * at)):
                    del wire.received[:]
                    asked_about = [Chat(messages, each.tools) for messages in each.turns]
                    ask_all(purifier, asked_about, streamed=bool(number % 2) == tools)
                    found += whole(each.values, wire)
                    prompts, values = prompts + TURNS, values + len(each.values)
                    octets += len(wire.received)
    print(f"{kind}: {prompts} prompts with {values} values, {octets} bytes received, {len(found)} leaks")
    assert values > prompts / 2
    assert octets > 1000 * prompts
    assert not found


def test_without_the_gatekeeper_a_whole_conversation_is_on_the_wire(tokenizer: Path) -> None:
    [conversation] = conversations("email", 1, Gatekeeper()._finder, tools=True)
    for made, source in WIDE_SERVERS.values():
        with serving(made(Flat()).app()) as url, tapped(port(url)) as wire:
            purifier = wide(source.load(f"http://127.0.0.1:{wire.port}", tokenizer=tokenizer, top_n=8))
            ask_all(purifier, [Chat(conversation.turns[-1], conversation.tools)], streamed=True)
            assert {*whole(conversation.values, wire)} >= conversation.values


def test_whose_a_request_is_and_what_it_cites_is_sent_to_no_server() -> None:
    from purify_plugins.stages import about

    with serving(FakeLlama(both()[0]).app()) as url, tapped(port(url)) as wire:
        source = LlamaCppSource.load(f"http://127.0.0.1:{wire.port}", tokenizer=LLM, top_n=64)
        purifier = asked(source, Gatekeeper(words=("Ada Quill",)))
        with about(user="ada-of-accounts", conversation="4711-quill"):
            stop = Sampling(max_tokens=2, stop=("Quill", "zebra"), seed=1)
            purifier.generate(["Ada Quill asks"], stop, errors="raise")
        received = "\n".join(wire.texts(both()[0].vocabulary))
    assert not re.search("ada|quill|zebra|4711", received, re.IGNORECASE)
