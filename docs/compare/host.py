"""A fake OpenAI server that records what it receives and answers as it is told, in pieces of a given size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

BEFORE, AFTER = "My address is ", " and"
"""What stands around the value in a message whose answer repeats it."""


def repeated(messages: list[dict[str, Any]]) -> str:
    """What the newest message has for the value: the value, or whatever a guard has put there."""
    text = str(messages[-1].get("content"))
    return text.partition(BEFORE)[2].partition(AFTER)[0]


@dataclass
class Script:
    """What the host answers."""

    answer: Callable[[list[dict[str, Any]]], str]
    size: int = 7
    """Characters of a streamed piece."""
    call: bool = False
    """Whether the answer is the argument `to` of a tool call, not the message's text."""
    pause: float = 0.0
    """Seconds between two pieces."""


@dataclass
class Host:
    """A server; set `script` before a request, and read `seen` after it."""

    url: str = ""
    script: Script = field(default_factory=lambda: Script(lambda messages: "ok"))
    seen: list[str] = field(default_factory=list)
    """The bodies that were received, their JSON escapes undone."""
    ended: float = 0.0
    """When the last piece of the last answer was sent, on the monotonic clock."""


class Quiet(ThreadingHTTPServer):
    """A server that says nothing of clients that go away."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def hosting() -> Iterator[Host]:
    """A host that answers until the block ends."""
    host = Host()
    server = Quiet(("127.0.0.1", 0), _handler(host))
    host.url = f"http://127.0.0.1:{server.server_port}/v1"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            host.ended = time.monotonic()
            if self.path.endswith(
                "/ended"
            ):  # by a model whose text is asked for whole and given token by token
                self._send(b"{}", "application/json")
                return
            host.seen.append(json.dumps(body, ensure_ascii=False))
            told = host.script.answer(body["messages"])
            if body.get("stream"):
                self._stream(told)
            else:
                self._send(json.dumps(_whole(told, host.script.call)).encode(), "application/json")
            host.ended = time.monotonic()

        def do_GET(self) -> None:
            self._send(b'{"object": "list", "data": [{"id": "fake", "object": "model"}]}', "application/json")

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, told: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in _events(told, host.script):
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
                time.sleep(host.script.pause)
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing: the bodies are what is looked at."""

    return Handler


def _call(arguments: str, first: bool) -> dict[str, Any]:
    named = {"id": "call_1", "type": "function"} if first else {}
    function = {"name": "send", "arguments": arguments} if first else {"arguments": arguments}
    return {**named, "function": function}


def _whole(told: str, call: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if call else told}
    if call:
        message["tool_calls"] = [_call(json.dumps({"to": told}), first=True)]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {**_head("chat.completion"), "choices": [choice], "usage": usage}


def _events(told: str, script: Script) -> Iterator[dict[str, Any]]:
    text = json.dumps({"to": told}) if script.call else told
    yield _event({"role": "assistant", "content": None if script.call else ""})
    for at in range(0, len(text), script.size):
        piece = text[at : at + script.size]
        call = {"index": 0, **_call(piece, first=not at)}
        yield _event({"tool_calls": [call]} if script.call else {"content": piece})
    yield _event({}, "tool_calls" if script.call else "stop")


def _event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {
        **_head("chat.completion.chunk"),
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "fake"}
