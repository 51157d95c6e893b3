"""The programs in docs/ that write its figures: what they import from here is there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
SCRIPTS = sorted(DOCS.rglob("*.py"))
OURS = ("purify_plugins", "purify_hooks", "purify_adapters", "tests")


def imported(script: Path) -> Iterator[tuple[str, str]]:
    """Each module of this repository that a program imports from, and the name it takes."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            yield from ((str(node.module), each.name) for each in node.names)


def there(module: str, name: str) -> bool:
    """Whether a module has this name, or a module of it."""
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None


def test_there_are_such_programs() -> None:
    assert sum(1 for script in SCRIPTS for _ in imported(script)) > 100


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(DOCS)))
def test_a_program_imports_what_there_is(script: Path) -> None:
    """One that writes a page once a month failed when it was needed: a name of its had gone."""
    assert [each for each in imported(script) if not there(*each)] == []
