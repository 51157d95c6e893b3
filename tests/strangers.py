"""Third-party plugins for tests: real distributions, installed in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from purify_plugins.plugin.installed import installed

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution of one module and its entry points; returns a file its import creates."""
    modules = set(sys.modules)

    def make(distribution: str, code: str, entries: Mapping[str, str] | None = None) -> Path:
        module = distribution.replace("-", "_")
        imported = tmp_path / f"{module}.imported"
        touch = f"import pathlib; pathlib.Path({str(imported)!r}).touch()\n"
        (tmp_path / f"{module}.py").write_text(touch + dedent(code))
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in (entries or {module: module}).items())
        (info / "entry_points.txt").write_text(f"[purify]\n{lines}")
        installed.cache_clear()
        return imported

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PURIFY_PLUGINS", raising=False)
    yield make
    monkeypatch.undo()
    installed.cache_clear()
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


HALF = """
    from dataclasses import dataclass
    from purify_hooks.policies.pools import Geometric
    from purify_plugins import hookimpl

    @dataclass(frozen=True)
    class Half(Geometric):
        name = "half"

    @hookimpl
    def purify_policies():
        return {"half": Half}
"""
