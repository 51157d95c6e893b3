"""A process that is forked after its parent has asked a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = """
import os, signal, threading, warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait
from purify_hooks.stages.classifiers.http import HttpClassifier


class Served(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("%d")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer('{"scores": [%d]}')

    def answer(self, text):
        connections.add(self.client_address)
        answer = (text % len(connections)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


warnings.simplefilter("ignore")  # Python 3.12 warns of every fork in a process with threads
connections = set()
server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
"""
MODEL = """
client = HttpClient(url)
client.breaker._probing = client.breaker.open = True  # a probe is under way
client._permits = type(client._permits)(0)  # and so are all others


def parent():
    return wait(client._client.get("/")).json()


def child():
    return wait(client.get("/"))
"""
GUARDIAN = """
classifier = HttpClassifier(url, 60)


def parent():
    return classifier.scores(["a"])[0]


child = parent
"""
FORKED = """
first = parent()
if not (forked := os.fork()):
    signal.alarm(60)
    os._exit(child())
_, status = os.waitpid(forked, 0)
print(first, os.waitstatus_to_exitcode(status), parent())
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fork")
@pytest.mark.parametrize("asking", [MODEL, GUARDIAN], ids=["a model's server", "a guardian's"])
def test_a_forked_process_has_connections_of_its_own(asking: str) -> None:
    """It wrote into its parent's, and the answer was never read, or by the other."""
    ran = subprocess.run(
        [sys.executable, "-c", SERVER + asking + FORKED],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert ran.stdout == "1 2 2\n", ran.stderr
