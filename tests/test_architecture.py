"""The house: what the code may ask of its own objects, read from the source by `ast`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"purify_plugins": ROOT, "purify_hooks": ROOT / "hooks", "purify_adapters": ROOT / "adapters"}
FILES = [path for room, top in ROOMS.items() for path in sorted((top / room).rglob("*.py"))]

FIELD = "reads a dataclass's own field, whose name is data"
FOREIGN = "an object of somebody else's class, at the door where it is adapted"
MODULE = "a module's name, which is data"
PLUGGY = "pluggy's hooks are found by name"
TOKENIZERS = "transformers' and tokenizers' own objects, which differ by model and release"
TORCH = "transformers', torch's or the platform's own, which differ by release"
PATCHED = "a program's own objects, of releases that differ"
JINJA = "jinja's nodes and a template's values"
CLICK = "click's own parameters, of which some have this and some do not"
WIRE = "a checked request's own option, whose name is data"
PROBES = {
    "purify_plugins/foreign.py": FOREIGN,
    "purify_plugins/certificates/recomputation.py": FIELD,
    "purify_plugins/canonical_json.py": FIELD,
    "purify_plugins/plugin/manager.py": PLUGGY,
    "purify_plugins/__init__.py": MODULE,
    "purify_plugins/tokenizers/token_bytes.py": TOKENIZERS,
    "purify_plugins/tokenizers/template_cost.py": JINJA,
    "purify_plugins/tokenizers/chat_template.py": JINJA,
    "purify_plugins/types.py": FIELD,
    "purify_plugins/cli/verify.py": FIELD,
    "purify_plugins/cli/commands.py": CLICK,
    "purify_plugins/cli/usage.py": CLICK,
    "hooks/purify_hooks/evaluation/eval/page.py": TORCH,
    "hooks/purify_hooks/evaluation/eval/questions.py": "typing's own objects",
    "hooks/purify_hooks/evaluation/eval/workers.py": TORCH,
    "hooks/purify_hooks/evaluation/eval/systems.py": FIELD,
    "hooks/purify_hooks/evaluation/bench/memory.py": TORCH,
    "hooks/purify_hooks/local/causality.py": TORCH,
    "hooks/purify_hooks/policies/_base.py": FIELD,
    "hooks/purify_hooks/local/config_keys.py": TORCH,
    "hooks/purify_hooks/local/onednn.py": TORCH,
    "hooks/purify_hooks/local/kv_cache.py": FIELD,
    "hooks/purify_hooks/local/forward.py": TORCH,
    "hooks/purify_hooks/local/source.py": TORCH,
    "hooks/purify_hooks/local/preflight.py": TORCH,
    "adapters/purify_adapters/activation/clients.py": PATCHED,
    "adapters/purify_adapters/activation/subprocess_env.py": PATCHED,
    "adapters/purify_adapters/activation/local_models.py": PATCHED,
    "adapters/purify_adapters/activation/monkeypatch.py": PATCHED,
    "adapters/purify_adapters/sources/tgi/hub.py": PATCHED,
    "adapters/purify_adapters/gateway/access_log.py": "starlette's endpoint",
    "adapters/purify_adapters/gateway/settings.py": FIELD,
    "adapters/purify_adapters/gateway/request_validation.py": WIRE,
    "adapters/purify_adapters/gateway/responses_request.py": WIRE,
    "adapters/purify_adapters/transformers/model.py": TORCH,
    "adapters/purify_adapters/transformers/drop_in.py": PATCHED,
    "adapters/purify_adapters/transformers/streaming.py": TORCH,
    "adapters/purify_adapters/vllm_engine_contracts.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/llama_index/options.py": FIELD,
    "adapters/purify_adapters/__init__.py": MODULE,
    "adapters/purify_adapters/tool_calls/prompting.py": TOKENIZERS,
    "adapters/purify_adapters/langchain/models.py": FIELD,
}
"""Where `hasattr` and `getattr` stand, and on whose objects."""
OURS = re.compile(r"\b(policy|source|session|llm|slm|purifier|writer)\b")
FIELDS = {
    ("purify_plugins/canonical_json.py", "policy.original"),
    ("hooks/purify_hooks/policies/_base.py", "policy"),
    ("purify_plugins/foreign.py", "policy"),
    ("adapters/purify_adapters/tool_calls/prompting.py", "source.inner.tokenizer"),
    ("adapters/purify_adapters/transformers/drop_in.py", "chat.llm"),
    ("purify_plugins/foreign.py", "source"),
}
"""A policy's own fields, whose names are data; what is somebody else's."""
WRAPPERS = {"Bridged", "Remapped", "Respelled", "Spelled", "Translated", "Shared", "Contrast", "Adapted"}
"""Wrappers whose kind is asked in no file but their own, nor that of their sessions."""


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def probes() -> Iterator[tuple[str, str]]:
    """Every file that asks an object what it has, and which object."""
    for path in FILES:
        for call in calls(path, "hasattr", "getattr"):
            yield place(path), ast.unparse(call.args[0])


def test_our_own_objects_are_not_asked_what_they_have() -> None:
    """Two regressions went unseen, because a wrapper lacked a member that somebody looked for by name."""
    new = {name for name, _ in probes()} - PROBES.keys()
    assert not new, f"give the member a default in its base class, or list the file with a reason: {new}"


def test_no_policy_source_or_session_is_asked_what_it_has() -> None:
    found = [(name, asked) for name, asked in probes() if OURS.search(asked)]
    assert set(found) == FIELDS, "their optional members have defaults in protocols.py and policy.py"


def test_no_reason_outlives_its_probe() -> None:
    assert {name for name, _ in probes()} == PROBES.keys()


@pytest.mark.parametrize("function", ["isinstance", "issubclass"])
def test_no_file_asks_whether_a_model_is_wrapped_in_another_file_s_way(function: str) -> None:
    asked = [
        (place(path), ast.unparse(call))
        for path in FILES
        for call in calls(path, function)
        if WRAPPERS & {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
        and not any(f"class {name}" in path.read_text("utf-8") for name in WRAPPERS)
    ]
    assert not asked


# Circles: files that cannot be read one after another, imports for types and inside functions counted

LARGEST, INSIDE = 21, 42
"""The largest circle's files and all files that stand in one; lower them with every circle that is opened."""


def module(path: Path) -> str:
    top = next(top for room, top in ROOMS.items() if path.is_relative_to(top / room))
    return ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (whole if (whole := f"{base}.{e.name}") in MODULES else base for e in node.names)


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found, todo = set[str](), [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of files each of which reaches every other, largest first."""
    after = {name: reached(graph, name) for name in graph}
    found = {frozenset(other for other in after[name] if name in after[other]) for name in graph}
    return sorted((set(each) for each in found if len(each) > 1), key=len, reverse=True)


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set[str](), "f": {"g"}, "g": {"f"}}
    assert circles(graph) == [{"a", "b", "c"}, {"f", "g"}]


def test_circles_of_files_only_shrink() -> None:
    graph = {
        name: {each for each in imported(name, path) if each in MODULES} - {name}
        for name, path in MODULES.items()
    }
    found = circles(graph)
    assert len(found[0]) <= LARGEST, f"a circle has grown: {sorted(found[0])}"
    assert sum(map(len, found)) <= INSIDE, f"there are more circles: {[sorted(each) for each in found]}"


def test_nothing_below_the_command_line_imports_it() -> None:
    """Commands of plugins share its options, and nothing else of it."""
    line = "purify_plugins.cli"
    above = {
        name
        for name, path in MODULES.items()
        for each in imported(name, path)
        if f"{each}.".startswith(f"{line}.") and not f"{name}.".startswith(f"{line}.")
        if name.startswith("purify_plugins.") or each != f"{line}.options"
    }
    assert above == {"purify_plugins.__main__"}
