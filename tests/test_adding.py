"""What a third party adds is one file and one line: a policy, a server's source, a framework's adapter.

Commands are in tests/test_commands.py, suites in tests/test_eval.py, tool formats in tests/test_plugins.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ToySource, byte_vocabulary
from tests.strangers import HALF, Install, install

__all__ = ["install"]

SHORT = Sampling(max_tokens=6, seed=1)
SOURCE = '''
    import json
    from urllib.request import Request, urlopen

    import torch
    from purify_plugins import LogitSource, ScoredPrompt, Session, SourceError, hookimpl
    from purify_plugins.testing import byte_vocabulary

    class Bytes(LogitSource):
        """A server that answers lists of bytes with the logits of the next one."""

        vocabulary, context_length = byte_vocabulary(), None

        def __init__(self, url: str) -> None:
            self.url = url

        def identity(self):
            return {"kind": "bytes", "name": self.url}

        def open(self, prompts, scored=0):
            session = BytesSession(self.url, [list(prompt.encode()) for prompt in prompts])
            return session, session.ask()

    class BytesSession(Session):
        def __init__(self, url, rows):
            self.url, self.rows = url, rows
            self.starts = [len(row) for row in rows]
            self.prompts = [ScoredPrompt(tuple(row), ()) for row in rows]

        def ask(self):
            try:
                with urlopen(Request(self.url, json.dumps(self.rows).encode()), timeout=5) as answer:
                    return torch.tensor(json.load(answer))
            except OSError as error:
                raise SourceError(f"the server at {self.url} does not answer: {error}") from error

        def extend(self, tokens):
            asked = []
            for column in tokens.unbind(1):
                for row, token in zip(self.rows, column.tolist()):
                    row.append(token)
                asked.append(self.ask())
            return torch.stack(asked, dim=1)

        def rewind(self, lengths):
            for row, start, length in zip(self.rows, self.starts, lengths.tolist()):
                del row[start + length:]

    @hookimpl
    def purify_sources():
        return {"bytes": Bytes, "toy": lambda: _toy()}

    def _toy():
        from purify_plugins.testing import ToySource
        return ToySource(byte_vocabulary(), 2)
'''
ADAPTER = '''
    from purify_plugins import hookimpl

    class Pipeline:
        """A framework's own interface, around a purifier."""

        def __init__(self, purifier, prefix=""):
            self.purifier, self.prefix = purifier, prefix

        def __call__(self, text):
            return self.purifier.generate([self.prefix + text], errors="raise")[0].text

    @hookimpl
    def purify_adapters():
        return {"pipeline": Pipeline}
'''


class _Handler(BaseHTTPRequestHandler):
    model = ToySource(byte_vocabulary(), 1)

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps([self.model.logits(row).tolist() for row in rows]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test's output stays empty."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_a_policy_is_one_file_and_one_line(install: Install, tmp_path: Path) -> None:
    install("purify-half", HALF)
    file = tmp_path / "purify.toml"
    models = f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n"
    file.write_text(f"plugins = ['purify-half']\n{models}[policy]\nname = 'half'\n", "utf-8")
    [answer] = Purifier.from_config(file).generate(["Once"], SHORT, errors="raise")
    method = json.loads(answer.certificate.text)["method"]
    assert method["policy"] == "half"
    assert [plugin["distribution"] for plugin in method["plugins"]] == ["purify-half"]


def test_a_server_s_source_is_one_file_and_one_line(install: Install, url: str, tmp_path: Path) -> None:
    """Its factory's arguments are the configuration's keys, and it answers as the model behind it does."""
    install("purify-bytes", SOURCE)
    file = tmp_path / "purify.toml"
    models = f"[llm]\nsource = 'bytes'\nurl = '{url}'\n[slm]\nsource = 'toy'\n"
    file.write_text(f"plugins = ['purify-bytes']\n{models}[policy]\nname = 'windowed'\n", "utf-8")
    served = Purifier.from_config(file)
    assert served.walk == "lockstep", "nothing was said of its engine, so it is shown no draft"
    here = Purifier(_Handler.model, ToySource(byte_vocabulary(), 2), served.policy, walk="lockstep")
    asked = Sampling(max_tokens=6, temperature=0)
    assert [a.tokens for a in served.generate(["one", "two"], asked, errors="raise")] == [
        a.tokens for a in here.generate(["one", "two"], asked, errors="raise")
    ]


def test_a_framework_s_adapter_is_one_file_and_one_line(install: Install) -> None:
    install("purify-pipeline", ADAPTER)
    plugins = load_plugins(["purify-pipeline"])
    toys = [ToySource(byte_vocabulary(), seed) for seed in (1, 2)]
    purifier = Purifier(*toys, plugins.policy("windowed"), sampling=Sampling(max_tokens=6, temperature=0))
    pipeline = plugins.make("purify_adapters", "pipeline", {"purifier": purifier, "prefix": "> "})
    assert pipeline("hello") == purifier.generate("> hello", errors="raise")[0].text
