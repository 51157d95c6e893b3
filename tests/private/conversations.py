"""Conversations of four turns about private values, with tools and without, and what was sent of them."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from purify_hooks.private.finders import Finder, plain
from purify_hooks.private.samples import samples
from purify_plugins.types import Vocabulary

TURNS = 4
KINDS = (
    *("email", "phone", "iban", "card", "ssn", "ipv4", "ipv6", "mac", "birth_date", "url_credentials"),
    *("passport", "aws_key", "github_token", "sk_key", "jwt", "secret", "bsn", "steuer_id", "vat", "bitcoin"),
)
"""Twenty kinds."""


@dataclass(frozen=True)
class Conversation:
    """The messages of each turn, the tools, and the private texts that were found in them."""

    turns: tuple[tuple[Any, ...], ...]
    tools: tuple[Any, ...]
    values: frozenset[str]


def conversations(
    kind: str, count: int, finder: Finder, tools: bool, short: bool = False, seed: int = 0
) -> Iterator[Conversation]:
    """So many conversations about values of one kind; each turn asks about another one.

    `short`: of the shortest of many texts, which models of 512 tokens read.
    """
    drawn = [each.text for each in samples(kind, count * TURNS * (6 if short else 1), seed=seed + tools)]
    drawn = sorted(drawn, key=len) if short else drawn
    for at in range(0, count * TURNS, TURNS):
        yield _conversation(drawn[at : at + TURNS], kind, finder, tools)


def _conversation(texts: Sequence[str], kind: str, finder: Finder, tools: bool) -> Conversation:
    values = [_found(text, kind, finder) for text in texts]
    told = [each for found in values for each in found]
    first, messages, turns = (values[0] or [""])[0], list[Any](), []
    for number, (text, found) in enumerate(zip(texts, values, strict=True)):
        messages.append(
            {"role": "user", "content": text if number or tools else [{"type": "text", "text": text}]}
        )
        turns.append(tuple(messages))
        value = (found or [""])[0]
        if tools and number < TURNS - 1:
            arguments = json.dumps({"value": value, "first": [first]})
            call = {
                "id": f"c{number}",
                "type": "function",
                "function": {"name": "keep", "arguments": arguments},
            }
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": f"kept {value}"})
        else:
            messages.append({"role": "assistant", "content": f"{value} it is, and {first} before"})
    schema = {"type": "object", "properties": {"value": {"type": "string", "enum": [first, "none"]}}}
    tool = {
        "type": "function",
        "function": {"name": "keep", "description": f"as {first}", "parameters": schema},
    }
    return Conversation(tuple(turns), (tool,) if tools else (), frozenset(told))


def _found(text: str, kind: str, finder: Finder) -> list[str]:
    return [plain(text[start:end]) for start, end, found in finder.find(text) if found == kind]


def leaked(values: frozenset[str], texts: Sequence[str]) -> list[str]:
    """The values that stand in one of these texts, in any case, also without what separates their figures."""
    whole = "\n".join(plain(each) for each in texts).casefold()
    tight = re.sub(r"[\W_]", "", whole)
    found = [each for each in values if len(each) > 3 and each.casefold() in whole]
    compact = {each: re.sub(r"[\W_]", "", each.casefold()) for each in values}
    return found + [each for each, bare in compact.items() if len(bare) > 6 and bare in tight]


@dataclass
class Wire:
    """What came over a wire, byte for byte."""

    port: int
    received: bytearray

    def texts(self, vocabulary: Vocabulary) -> list[str]:
        """All of it, and what the token ids in it spell."""
        text = self.received.decode("utf-8", "replace")
        lists = re.findall(r"\[\d+(?:,\s*\d+)*\]", text)
        return [text, *(vocabulary.spell(json.loads(each)).decode("utf-8", "replace") for each in lists)]


@contextmanager
def tapped(port: int) -> Iterator[Wire]:
    """A port that passes everything on to another one of this machine, and keeps what it passes on."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        wire = Wire(listening.getsockname()[1], bytearray())
        threading.Thread(target=_accept, args=(listening, port, wire, opened), daemon=True).start()
        yield wire


def _accept(listening: socket.socket, port: int, wire: Wire, opened: ExitStack) -> None:
    with suppress(OSError):
        while True:
            client = opened.enter_context(listening.accept()[0])
            server = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            for source, target, kept in ((client, server, wire.received), (server, client, None)):
                threading.Thread(target=_pass, args=(source, target, kept), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
