"""No way of having text written goes past the purifier, but those that the documentation lists as open."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import purify_plugins
from purify_plugins import PurifyError
from purify_plugins.testbed import LLM, SLM
from tests.adapters import ways_children, ways_clients, ways_engines, ways_hub
from tests.adapters.activating import Activate, install, on
from tests.adapters.canary import tampered, word
from tests.adapters.canary_server import singing
from tests.adapters.matrix import MATRIX, Row

__all__ = ["install", "on"]  # fixtures are used by their names

DOCS = Path(__file__).parent.parent.parent / "docs" / "activation.md"
SERVED = f'[llm]\nsource = "tgi"\ntokenizer = {json.dumps(str(LLM))}\n[sampling]\ntemperature = 0.0\n'


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with singing(word()) as url:
        yield url


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ways_hub.singing() as url:
        yield url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that are not installed here."""
    folder = tmp_path_factory.mktemp("site")
    ways_engines.install(folder, word())
    (folder / "stranger.py").write_text(dedent(ways_clients.STRANGER))
    return folder


@pytest.fixture
def packages(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These packages on the path; nobody has imported them."""
    monkeypatch.syspath_prepend(site)
    yield
    ours = {path.stem for path in site.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Activate]:
    """Activates a configuration without plugins, for what never comes to ask its SLM."""
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    (tmp_path / "purify.toml").write_text(f"[slm]\nmodel = {json.dumps(str(SLM))}\n")
    yield lambda: purify_plugins.activate(tmp_path / "purify.toml")
    purify_plugins.deactivate()


@pytest.fixture
def thing(row: Row, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a row's way writes with."""
    if row.kind == "model":
        return tampered()
    if row.kind == "hub":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        return request.getfixturevalue("hub")
    request.getfixturevalue("packages")
    return request.getfixturevalue("server")


@pytest.fixture
def switch(row: Row, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """What switches purification on for a row."""
    if row.kind not in ("model", "hub"):
        return request.getfixturevalue("light")  # type: ignore[no-any-return]  # a fixture's
    activate = request.getfixturevalue("on")
    return lambda: activate(SERVED if row.kind == "hub" else "")


def parameters(matrix: list[Row]) -> list[Any]:
    return [
        pytest.param(
            row, id=f"{row.kind}, {row.built}: {row.way}", marks=[pytest.mark.slow] if row.slow else []
        )
        for row in matrix
    ]


HERE = [row for row in MATRIX if row.kind != "child"]
RAW = [row for row in HERE if row.built == "before" and row.kind in ("hub", "client")]
RAW = [row for row in RAW if row.kind == "client" or "chat" not in row.way]  # no chats at that server


@pytest.mark.parametrize("row", parameters(RAW))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # clients that nobody closes
def test_without_activation_the_canary_sings(thing: Any, row: Row) -> None:
    """Else a way that is refused would say nothing: it may never have worked."""
    assert row.prepare is not None
    assert word() in str(row.prepare(thing)())


@pytest.mark.parametrize("row", parameters(HERE))
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # refusals in the framework's
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # clients that nobody closes
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")  # of the code it leaves as it is
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's, of its own look at it
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # which torch.jit asks for
def test_a_way_is_purified_refused_or_listed_as_open(switch: Callable[[], Any], thing: Any, row: Row) -> None:
    assert row.prepare is not None
    if row.built == "before":
        write = row.prepare(thing)
    switch()
    if row.expected == "refused":
        with pytest.raises(PurifyError):
            (row.prepare(thing) if row.built == "after" else write)()
        assert purify_plugins.status().total.refused >= 1
        return
    text = str((row.prepare(thing) if row.built == "after" else write)())
    assert text
    assert (word() in text) == (row.expected == "open")
    assert row.expected == "open" or counted("purified")


def counted(how: str) -> bool:
    """Whether a call was counted; one on a framework's thread is when that thread ends."""
    end = time.monotonic() + 60
    while not getattr(purify_plugins.status().total, how):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# Children


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory, server: str) -> ways_children.Told:
    folder = tmp_path_factory.mktemp("children")
    (folder / "purify.toml").write_text(f"[slm]\nmodel = {json.dumps(str(SLM))}\n")
    return ways_children.told(folder, server, word())


@pytest.mark.parametrize("row", parameters([row for row in MATRIX if row.kind == "child"]))
def test_a_child_is_purified_refused_or_listed_as_open(children: ways_children.Told, row: Row) -> None:
    """A child that is purified refuses to ask the canary's server for a chat; one that is raw repeats it."""
    assert word() in children.raw[row.way]
    told = children.ours[row.way].strip()
    assert (word() in told) == (row.expected == "open"), told
    assert told.startswith("purified, by RefusedError") == (row.expected == "purified"), told


def test_every_child_is_in_the_table(children: ways_children.Told) -> None:
    assert {row.way for row in MATRIX if row.kind == "child"} == children.ours.keys()


# The table itself


def test_the_table_has_every_kind_of_way_and_at_least_sixty_rows() -> None:
    assert len({(row.kind, row.way) for row in MATRIX}) >= 60
    assert {row.expected for row in MATRIX} == {"purified", "refused", "open"}


def test_the_documentation_lists_what_is_open_and_nothing_else() -> None:
    section = DOCS.read_text("utf-8").split("## What stays open", 1)[1].split("\n## ", 1)[0]
    listed = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", section, re.MULTILINE)[2:])
    opened = {row.way: row.reason for row in MATRIX if row.expected == "open"}
    assert {way.replace("`", ""): reason for way, reason in listed.items()} == opened
