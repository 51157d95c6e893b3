"""What tests of activation share: a configuration with the SLM that never says the canary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import purify_plugins
from tests.adapters.canary import CONFIG, PLUGIN
from tests.strangers import Install, install

__all__ = ["Activate", "install", "on"]  # fixtures are used by their names

Activate = Callable[..., Any]


@pytest.fixture
def on(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> Iterator[Activate]:
    """Activates a configuration with the SLM that never says the canary; what it says of itself."""
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    install("canary-slm", PLUGIN)

    def activate(more: str = "", base: str = CONFIG) -> Any:
        (tmp_path / "purify.toml").write_text(base + more)
        return purify_plugins.activate(tmp_path / "purify.toml")

    before = {*threading.enumerate()}
    yield activate
    purify_plugins.deactivate()
    for thread in {*threading.enumerate()} - before:
        thread.join(1)  # a framework's, which fails after its reader does: within this test
