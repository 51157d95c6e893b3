"""Ways for a server to misbehave, by name: what it sends in place of an event, of an answer, of HTTP."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

CANARY = "QZXJ"
"""What the LLM is sure of; the SLM gives these letters exactly nothing."""
Json = dict[str, Any]
Event = Callable[[random.Random, Json], Any]


def _first(**changes: Any) -> Event:
    """Something is wrong with the likeliest token."""

    def tamper(dice: random.Random, event: Json) -> Json:
        return {**event, "top_tokens": [{**event["top_tokens"][0], **changes}, *event["top_tokens"][1:]]}

    return tamper


def _chosen(**changes: Any) -> Event:
    return lambda dice, event: {**event, "token": {**event["token"], **changes}}


def _with(**changes: Any) -> Event:
    return lambda dice, event: {**event, **changes}


def _without(*path: str) -> Event:
    def tamper(dice: random.Random, event: Json) -> Json:
        if len(path) == 1:
            return {key: value for key, value in event.items() if key != path[0]}
        return {**event, path[0]: {key: value for key, value in event[path[0]].items() if key != path[1]}}

    return tamper


def _top(change: Callable[[list[Json], random.Random], Any]) -> Event:
    return lambda dice, event: {**event, "top_tokens": change(event["top_tokens"], dice)}


def _text(event: Any) -> str:
    return json.dumps(event)


def _raw(change: Callable[[Json], str | bytes]) -> Event:
    """Bytes in place of an event."""

    def tamper(dice: random.Random, event: Json) -> bytes:
        sent = change(event)
        return sent if isinstance(sent, bytes) else sent.encode()

    return tamper


def _data(event: Any) -> str:
    return f"data: {event if isinstance(event, str) else _text(event)}\n\n"


def _end(event: Json) -> Json:
    return {**event, "generated_text": CANARY}


def _lines(text: str) -> str:
    return "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"


def _unescaped(event: Json) -> str:
    return json.dumps(event, ensure_ascii=False)


def on_answer(tamper: Event, dice: random.Random, answer: Json) -> Any:
    """The same fault in an answer that is no stream."""
    details = answer["details"]
    sent = tamper(dice, {"index": 1, "token": details["tokens"][0], "top_tokens": details["top_tokens"][0]})
    if not isinstance(sent, dict):
        return sent or b""
    return {"details": {**details, "tokens": [sent.get("token")], "top_tokens": [sent.get("top_tokens")]}}


def _all(logprob: float) -> Event:
    return _top(lambda top, dice: [{**each, "logprob": logprob} for each in top])


def _shuffled(top: list[Json], dice: random.Random) -> list[Json]:
    return dice.sample(top, len(top))


EVENTS: Mapping[str, Event] = {
    "an id past the vocabulary": _first(id=257),
    "a negative id": _first(id=-1),
    "an id that is a fraction": _first(id=1.5),
    "an id that is text": _first(id="81"),
    "an id without end": _first(id=10**40),
    "an id that is a boolean": _first(id=True),
    "an id that is null": _first(id=None),
    "a chosen token that nobody has": _chosen(id=9999),
    "a chosen token that is null": _with(token=None),
    "a chosen token that the list lacks": _chosen(id=3),
    "a chosen token with the wrong text": _chosen(text=CANARY, special=True),
    "a chosen token of mass zero": _chosen(id=0, logprob=-99.0),
    "a log-probability that is null": _first(logprob=None),
    "a log-probability that is NaN": _first(logprob=float("nan")),
    "a log-probability that is infinite": _first(logprob=float("inf")),
    "a log-probability of minus infinity": _first(logprob=float("-inf")),
    "a log-probability that is text": _first(logprob="-0.1"),
    "a log-probability above zero": _first(logprob=0.7),
    "a log-probability too small for a float": _first(logprob=-1e308),
    "a log-probability next to zero": _first(logprob=-5e-324),
    "more mass than there is": _all(-0.1),
    "all tokens alike": _all(-5.0),
    "all mass outside": _all(-60.0),
    "all mass on one token": _first(logprob=0.0),
    "a canary for sure": _with(top_tokens=[{"id": ord("Q"), "text": CANARY, "logprob": 0.0}]),
    "a token twice": _top(lambda top, dice: [*top, top[0]]),
    "an empty list": _with(top_tokens=[]),
    "no list": _without("top_tokens"),
    "a list that is none": _with(top_tokens={"id": 1}),
    "a list of texts": _with(top_tokens=[CANARY]),
    "a shuffled list": _top(_shuffled),
    "a shorter list": _top(lambda top, dice: top[:1]),
    "no token": _without("token"),
    "an event cut off": lambda dice, event: None,
    "an event from the past": _with(index=0),
    "an event too early": _with(index=7),
    "an event repeated": _raw(lambda event: _data(event) * 2),
    "an end too early": _with(generated_text=CANARY),
    "an end, and more after it": _raw(lambda event: _data(_end(event)) + _data(event)),
    "an end of another request": _with(details={"input_length": 77}),
    "an error in the stream": _raw(lambda event: _data({"error": CANARY, "error_type": "generation"})),
    "a sentinel": _raw(lambda event: _data("[DONE]")),
    "a list for an event": _raw(lambda event: _data([event])),
    "a number for an event": _raw(lambda event: _data("7")),
    "nothing for an event": _raw(lambda event: "data:\n\n"),
    "lines that end in CR": _raw(lambda event: f"data: {_text(event)}\r\r"),
    "lines that end in CRLF": _raw(lambda event: f"data: {_text(event)}\r\n\r\n"),
    "comments in between": _raw(lambda event: f": {CANARY}\n\n:\n{_data(event)}:\n\n"),
    "other fields": _raw(lambda event: f"event: {CANARY}\nid: 7\nretry: 1\n{_data(event)}"),
    "data on several lines": _raw(lambda event: _lines(json.dumps(event, indent=1))),
    "line ends that are none": _raw(lambda event: _data(_unescaped({**event, "x": "\u2028\x85"}))),
    "bytes that are no text": _raw(lambda event: b"data: \xff\xfe" + _text(event).encode() + b"\n\n"),
    "half a surrogate pair": _raw(lambda event: _data({**event, "x": "\ud800"})),
    "a line without end": _raw(lambda event: b"data: " + b"x" * 300_000),
    "an event without end": _raw(lambda event: b"data: xxxxxxxxxxxxxxx\n" * 80_000),
    "comments without end": _raw(lambda event: b": hello\n" * 80_000),
    "JSON too deep": _raw(lambda event: _data("[" * 20_000)),
    "JSON with a key twice": _raw(lambda event: _data('{"index": 1, "index": 2}')),
    "JSON with a number without end": _raw(lambda event: _data('{"index": ' + "9" * 20_000 + "}")),
    "half of a JSON": _raw(lambda event: _data(_text(event)[:-9])),
}  # fmt: skip

ANSWERS: Mapping[str, Callable[[], Response]] = {
    **{
        f"status {status}": (lambda status=status: JSONResponse({"error": CANARY}, status))
        for status in (400, 401, 403, 404, 408, 409, 413, 418, 422, 424, 429, 500, 501, 502, 503, 504)
    },
    "no content": lambda: Response(status_code=204),
    "a redirect": lambda: RedirectResponse("http://127.0.0.1:9/"),
    "a moved server": lambda: RedirectResponse("http://127.0.0.1:9/", 301),
    "a page to log in": lambda: HTMLResponse(f"<html>{CANARY}</html>"),
    "an error that is a success": lambda: JSONResponse({"error": CANARY}),
    "come back in a year": lambda: JSONResponse({}, 503, {"retry-after": "31536000"}),
    "come back never": lambda: JSONResponse({}, 429, {"retry-after": CANARY}),
    "an empty stream": lambda: Response(b"", media_type="text/event-stream"),
    "a compressed stream": lambda: Response(b"\x1f", 200, {"content-encoding": "gzip"}, "text/event-stream"),
}  # fmt: skip

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def _drip(line: socket.socket) -> None:
    line.sendall(CHUNKED)
    for _ in range(40):
        line.sendall(b"1\r\nd\r\n")
        time.sleep(0.05)


def _keep_alive(line: socket.socket) -> None:
    line.sendall(CHUNKED)
    for _ in range(40):
        line.sendall(b"2\r\n:\n\r\n")
        time.sleep(0.05)


def _reset(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _half_close(line: socket.socket) -> None:
    line.sendall(CHUNKED)
    line.shutdown(socket.SHUT_WR)


WIRES: Mapping[str, Callable[[socket.socket], Any]] = {
    "silence": lambda line: time.sleep(2),
    "silence after the head": lambda line: (line.sendall(CHUNKED), time.sleep(2)),
    "half a head": lambda line: (line.sendall(HEAD), time.sleep(2)),
    "a byte now and then": _drip,
    "comments for ever": _keep_alive,
    "a reset": _reset,
    "a reset in the answer": lambda line: (line.sendall(CHUNKED + b"5\r\ndata:\r\n"), _reset(line)),
    "half a connection": _half_close,
    "a length too long": lambda line: line.sendall(HEAD + b"content-length: 99\r\n\r\ndata: {}\n\n"),
    "a length too short": lambda line: line.sendall(HEAD + b"content-length: 3\r\n\r\ndata: {}\n\n"),
    "two lengths": lambda line: line.sendall(HEAD + b"content-length: 3\r\ncontent-length: 9\r\n\r\ndata"),
    "a length that is none": lambda line: line.sendall(HEAD + b"content-length: x\r\n\r\ndata: {}\n\n"),
    "a chunk that is none": lambda line: line.sendall(CHUNKED + b"zz\r\nhello\r\n"),
    "an answer without a length": lambda line: line.sendall(HEAD + b"\r\ndata: {}\n\n"),
    "no HTTP": lambda line: line.sendall(CANARY.encode() * 9 + b"\r\n\r\n"),
    "a head without end": lambda line: line.sendall(HEAD + b"x: " + b"y" * 200_000),
}  # fmt: skip


@contextmanager
def answering(behave: Callable[[socket.socket], Any]) -> Iterator[str]:
    """The base URL of a server that reads a request and then does as it likes."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            read = b""
            while b"\r\n\r\n" not in read:
                if not (more := self.request.recv(65536)):
                    return
                read += more
            with suppress(OSError):  # the client had enough
                behave(self.request)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
