"""The unmodified first examples of every client's own documentation work against the gateway."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from purify_plugins import Purifier
from purify_plugins.testing import ScriptedSource
from tests.adapters.examples import CLIENTS, OLD, Client, environment, run
from tests.adapters.gateways import Served, serving
from tests.toys import BYTES

TEXT = "Once upon"
"""What both models are sure of: no token of it is repeated, and it fits any limit in the examples."""
ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "gateway.md").read_text("utf-8")


DRIVEN = """
import sys
from text_generation import Client
from text_generation.errors import ValidationError

client = Client(sys.argv[1], headers={"authorization": "Bearer k"})
whole = client.generate("hello", max_new_tokens=8)
assert whole.generated_text == "".join(token.text for token in whole.details.tokens)
assert (whole.details.finish_reason.value, whole.details.generated_tokens) == ("length", 8)
*tokens, last = client.generate_stream("hello", max_new_tokens=8)
assert last.generated_text == whole.generated_text
assert (last.details.finish_reason.value, last.details.generated_tokens) == ("length", 8)
stopped = client.generate("hello", max_new_tokens=8, stop_sequences=[whole.generated_text[3]])
assert stopped.details.finish_reason.value in ("stop_sequence", "length")
assert stopped.generated_text.endswith(whole.generated_text[3])
chat = client.chat([{"role": "user", "content": "hello"}], max_tokens=8, seed=1)
assert chat.choices[0].finish_reason == "length"
assert chat.usage["completion_tokens"] == 8
try:
    client.generate("hello", watermark=True)
except ValidationError as error:
    assert "not supported with purification" in str(error)
else:
    raise AssertionError
assert client.generate("hello", best_of=2, do_sample=True).details.generated_tokens
print("driven")
"""
"""What else `text-generation` is asked than its documentation shows."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    script = ScriptedSource(BYTES, TEXT.encode(), doubt=1e-9)
    with serving(Purifier.load(script, script, "geometric"), max_total_tokens=1024) as found:
        yield found


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of a session's workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def said(printed: str) -> int:
    """How often the answer stands in what was printed: as it is, a token at a time, or in objects' fields."""
    fields = "".join(re.findall(r"\b(?:content|text)='(.*?)'", printed))
    flat = re.sub(r"[\n|]", "", printed)
    return max(text.count(TEXT) for text in (printed, flat, fields))


@pytest.mark.slow
@pytest.mark.timeout(900)  # whoever comes first installs an environment for the others
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_first_examples_of_a_client_s_documentation_work_as_they_stand(
    client: Client, served: Served, base: Path, tmp_path: Path
) -> None:
    for wanted, printed in run(client, served.url, base, tmp_path).items():
        if wanted.startswith("refused"):
            assert "raised" in printed, (wanted, printed)
            assert wanted.removeprefix("refused ") in printed, printed
        else:
            assert "raised" not in printed, (wanted, printed)
            assert said(printed) >= 1 + ("and" in wanted), (wanted, printed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_old_client_stops_counts_and_is_refused_as_by_tgi(served: Served, base: Path) -> None:
    python = environment(base / "old", OLD)
    done = subprocess.run([python, "-c", DRIVEN, served.url], capture_output=True, text=True, timeout=200)
    assert (done.stdout.strip(), done.returncode) == ("driven", 0), done.stderr


def asks(client: Client) -> str:
    """What a client's examples ask for, as the table in the docs names it."""
    wanted = " ".join(kind for kind in client.examples if not kind.startswith("refused"))
    routes = [route for route in ("generate", "chat", "responses") if route in wanted]
    for route in routes:
        ways = " ".join(kind for kind in client.examples if kind.startswith(route))
        assert "responses" in ways or ("whole" in ways and "stream" in ways), client.name
    return ", ".join(routes)


def test_the_docs_table_of_clients_is_what_the_examples_show() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `([^|]+)` \| ([^|]+) \| whole and streamed \|$", PAGE, re.M)
    assert {name: rest for name, *rest in rows} == {
        client.name: [client.package, asks(client)] for client in CLIENTS
    }
