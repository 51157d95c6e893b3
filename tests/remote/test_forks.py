"""A process that is forked after its parent has asked a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORKED = """
import os, signal, threading, warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait


class Served(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        connections.add(self.client_address)
        answer = f"{len(connections)}".encode()
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
client = HttpClient(f"http://127.0.0.1:{server.server_port}")
client.breaker._probing = client.breaker.open = True  # a probe is under way
client._permits = type(client._permits)(0)  # and so are all others
parent = [wait(client._client.get("/")).text]
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(wait(client.get("/")))
_, status = os.waitpid(child, 0)
parent.append(wait(client._client.get("/")).text)
print(os.waitstatus_to_exitcode(status), *parent)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fork")
def test_a_forked_process_has_connections_of_its_own() -> None:
    """It wrote into its parent's, and the answer was never read, or by the parent."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert ran.stdout == "2 1 2\n", ran.stderr
