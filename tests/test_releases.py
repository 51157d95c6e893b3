"""Which releases of what we use are tested: pinned, the newest and the oldest, and that the bounds say so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [
    Requirement(each)
    for each in [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    if not each.startswith("purify-plugins")
]
LINES = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINS = dict(line.split("==") for line in LINES if line and not line.startswith("#"))
PINNED = {canonicalize_name(name): Version(version) for name, version in PINS.items()}
OWN = {"purify_plugins", "purify_adapters", "purify_hooks"}
BROUGHT = {
    "markupsafe": "jinja2's",
    "pydantic_core": "pydantic's",
    "llama_index_instrumentation": "llama-index-core's",
    "opentelemetry": "traced where it is installed, by whoever wants traces",
    "anchoreddecode": "raced against where it is installed",
    "spacy": "presidio-analyzer's",
    "tldextract": "presidio-analyzer's",
    "pkcs11": "python-pkcs11's",
    "vllm": "the engine that loads the processor brings itself",
}
"""What is imported and not named, and why."""


@pytest.mark.parametrize("each", DIRECT, ids=lambda each: each.name)
def test_every_direct_dependency_is_pinned_inside_its_bounds(each: Requirement) -> None:
    assert PINNED[canonicalize_name(each.name)] in each.specifier


def test_every_pin_is_one_release_of_a_registry_s() -> None:
    """No path, no host, and no build of one machine's: `2.13.0+cpu` is had from no registry."""
    for line in LINES:
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line
    assert len(PINS) == len(PINNED) > 150


def test_no_pin_brings_cuda() -> None:
    assert not [name for name in PINNED if re.match("nvidia|cuda|triton", name)]


@pytest.mark.parametrize("each", DIRECT, ids=lambda each: each.name)
def test_every_direct_dependency_has_a_lower_bound(each: Requirement) -> None:
    assert [bound.operator for bound in each.specifier if bound.operator != "<"] == [">="]


def test_every_upper_bound_says_why() -> None:
    """A bound without a known break keeps its users from tomorrow's release for nothing."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    bounded = [line for line in text.splitlines() if re.match(r'\s+"[\w-]+[^"]*<', line)]
    assert bounded
    assert [line for line in bounded if "break" not in line.partition("#")[2]] == []


def test_the_oldest_row_installs_the_lower_bounds() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "oldest"], capture_output=True, text=True, check=True
    )
    lowest = {
        f"{each.name}=={bound.version}"
        for each in DIRECT
        for bound in each.specifier
        if bound.operator == ">="
    }
    assert set(done.stdout.splitlines()) == lowest


@pytest.mark.parametrize("package", ["purify_plugins", "adapters/purify_adapters", "hooks/purify_hooks"])
def test_whatever_is_imported_is_named_as_a_dependency(package: str) -> None:
    """huggingface_hub and numpy came with others, in whichever release those liked."""
    named = {canonicalize_name(each.name) for each in DIRECT}
    files = {file.as_posix(): file.read_text("utf-8") for file in (ROOT / package).rglob("*.py")}
    missing = {
        (name, file)
        for file, text in files.items()
        for name in imported(text) - OWN - BROUGHT.keys() - sys.stdlib_module_names
        if not {canonicalize_name(name), f"{canonicalize_name(name)}-core"} & named
    }
    assert missing == set()


def imported(text: str) -> set[str]:
    """The top names of what a module imports, absolutely."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("row", ["newest", "oldest"])
def test_ci_has_a_row_for_the_newest_and_the_oldest_releases(row: str) -> None:
    assert f".ci/row {row}" in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_the_newest_releases_are_tried_every_week_and_nothing_is_opened_by_itself() -> None:
    workflow = (ROOT / ".github" / "workflows" / "newest.yml").read_text("utf-8")
    assert re.search(r"schedule:\n\s+- cron: ", workflow)
    assert "run: .ci/row newest" in workflow
    assert re.search(r"permissions:\n  contents: read\n", workflow)
    assert "write" not in workflow
