"""A server that says the canary's word on whatever route a client asks, in that client's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def singing(word: str) -> Iterator[str]:
    """The URL of such a server, on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            kind, body = answer(self.path, asked, word)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing: the tests say enough."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(path: str, asked: dict[str, Any], word: str) -> tuple[str, bytes]:
    """The content type and the body, by the route."""
    streamed = asked.get("stream") or "stream" in path.lower()
    told = shape(path, word, bool(streamed))
    if not streamed:
        return "application/json", json.dumps(told).encode()
    if path.startswith("/api/"):
        return "application/x-ndjson", json.dumps(told).encode() + b"\n"
    events = told if isinstance(told, list) else [told]
    lines = [
        (f"event: {each['type']}\n" if "type" in each else "") + f"data: {json.dumps(each)}\n\n"
        for each in events
    ]
    return "text/event-stream", ("".join(lines) + "data: [DONE]\n\n" * path.endswith("s")).encode()


def shape(path: str, word: str, streamed: bool) -> Any:
    """A client's own way to be answered."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "1", "created": 1, "model": "m", "usage": usage}
    if path.endswith("/messages"):
        return anthropic(word, streamed)
    if path.endswith("/chat/completions"):
        said = {"role": "assistant", "content": word}
        choice = {"index": 0, "finish_reason": "stop", "delta" if streamed else "message": said}
        return {**head, "object": "chat.completion" + ".chunk" * streamed, "choices": [choice]}
    if path.endswith("/completions"):
        choice = {"index": 0, "finish_reason": "stop", "text": word, "logprobs": None}
        return {**head, "object": "text_completion", "choices": [choice]}
    if path.startswith("/api/"):
        said = {"message": {"role": "assistant", "content": word}, "response": word}
        return {**said, "model": "m", "created_at": "2026-01-01T00:00:00Z", "done": True}
    if path.endswith("/chat"):
        content = {"role": "assistant", "content": [{"type": "text", "text": word}]}
        return {"id": "1", "finish_reason": "COMPLETE", "message": content}
    if "enerateContent" in path:
        return {"candidates": [{"content": {"role": "model", "parts": [{"text": word}]}}]}
    return {"text": word}


def anthropic(word: str, streamed: bool) -> Any:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "1", "type": "message", "role": "assistant", "model": "m", "usage": usage}
    message |= {"content": [{"type": "text", "text": word}], "stop_reason": "end_turn"}
    if not streamed:
        return message
    return [
        {"type": "message_start", "message": {**message, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]
