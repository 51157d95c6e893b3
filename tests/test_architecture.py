"""The house: what imports what, how long files are, and what the code may ask of its own objects."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
architecture = SimpleNamespace(**run_path(str(ROOT / "docs" / "architecture.py")))
FILES, MODULES = architecture.FILES, architecture.MODULES
imported, circles = architecture.imported, architecture.circles

FIELD = "reads a dataclass's or a structure's own field, whose name is data"
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
    "purify_plugins/certificates/answer_recomputation.py": FIELD,
    "purify_plugins/canonical_json.py": FIELD,
    "purify_plugins/certificates/fields.py": FIELD,
    "purify_plugins/plugin/arguments.py": "a factory's annotation, which may be a type or a text",
    "purify_plugins/plugin/manager.py": PLUGGY,
    "purify_plugins/__init__.py": MODULE,
    "purify_plugins/tokenizers/token_bytes.py": TOKENIZERS,
    "purify_plugins/tokenizers/template_cost.py": JINJA,
    "purify_plugins/tokenizers/chat_template.py": JINJA,
    "purify_plugins/sampling.py": FIELD,
    "purify_plugins/cli/verify.py": FIELD,
    "purify_plugins/cli/commands.py": CLICK,
    "purify_plugins/cli/usage.py": CLICK,
    "hooks/purify_hooks/evaluation/eval/page.py": TORCH,
    "hooks/purify_hooks/evaluation/eval/questions.py": "typing's own objects",
    "hooks/purify_hooks/evaluation/eval/worker_pool.py": TORCH,
    "hooks/purify_hooks/evaluation/eval/systems.py": FIELD,
    "hooks/purify_hooks/evaluation/bench/memory_process.py": TORCH,
    "hooks/purify_hooks/gguf/library.py": FIELD,
    "hooks/purify_hooks/local/causality.py": TORCH,
    "hooks/purify_hooks/policies/_base.py": FIELD,
    "hooks/purify_hooks/local/config_keys.py": TORCH,
    "hooks/purify_hooks/local/model_types.py": TORCH,
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
    "adapters/purify_adapters/vllm_engine/contracts.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine/endpoint.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine/processor.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine/running.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine/engine_checks.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/vllm_engine/worker.py": "vLLM's own objects, which differ by release",
    "adapters/purify_adapters/__init__.py": MODULE,
    "adapters/purify_adapters/tool_calls/prompting.py": TOKENIZERS,
    "adapters/purify_adapters/langchain/base.py": FIELD,
    "purify_plugins/stages/adapted.py": "a stage of any class",
    "purify_plugins/stages/options.py": FIELD,
    "hooks/purify_hooks/stages/classifiers/sequence.py": TORCH,
    "purify_plugins/stages/stage.py": FIELD,
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
WRAPPERS = {
    "SymbolSource",
    "RemappedSource",
    "FirstTokenSource",
    "SpelledSource",
    "TranslatedSource",
    "BatchingSource",
    "Contrast",
    "AdaptedSource",
}
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


# Imports: circles and rooms, imports for types and inside functions counted

ACROSS = {
    "purify_plugins.testbed": "the public name of the test bed, which is evaluation's",
    "purify_plugins.testbed.__main__": "as above",
}
"""Files that import another package than may be, and why; all the others import the core alone."""
LINES, LONGEST = 350, 40
"""The most lines of a file, and of a function."""
TWICE = {"PurifiedLLM"}
"""Names of public classes that mean two things: LangChain's adapter and LlamaIndex's both offer one."""


def test_circles_are_found() -> None:
    arrows = {"a": "b", "b": "c", "c": "ad", "d": "e", "e": "", "f": "g", "g": "f"}
    assert circles({one: frozenset(others) for one, others in arrows.items()}) == [
        {"a", "b", "c"},
        {"f", "g"},
    ]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [sorted(each) for each in circles(architecture.graph())] == []


def test_a_room_imports_only_what_is_below_it() -> None:
    floor = {each.name: at for at, each in enumerate(architecture.ROOMS)}
    place = {name: floor[room] for name in MODULES if (room := architecture.room(name)) in floor}
    upward = {
        f"{name} -> {each}"
        for name in place
        for each in architecture.graph()[name] & place.keys()
        if place[each] > place[name]
    }
    assert not upward


def test_the_core_knows_no_plugin_and_plugins_know_the_core_alone() -> None:
    across = {
        f"{name} -> {each}"
        for name, found in architecture.graph().items()
        for each in found
        if each.partition(".")[0] not in ("purify_plugins", name.partition(".")[0]) and name not in ACROSS
    }
    assert not across


def test_commands_of_plugins_share_the_command_line_s_options_alone() -> None:
    shared = {
        each
        for name, found in architecture.graph().items()
        if not name.startswith("purify_plugins")
        for each in found
        if f"{each}.".startswith("purify_plugins.cli.")
    }
    assert shared <= {"purify_plugins.cli.options"}


def test_the_picture_shows_these_rooms_and_arrows() -> None:
    shown = architecture.OUT.read_text("utf-8")
    assert shown == architecture.svg(), "run python docs/architecture.py"


def test_a_public_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == TWICE


def test_a_file_that_runs_as_a_program_has_all_its_names_by_then() -> None:
    late = {
        place(path)
        for path in FILES
        for node in ast.parse(path.read_text("utf-8")).body[:-1]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
    }
    assert not late


def stray(block: Sequence[ast.stmt]) -> Iterator[int]:
    """The lines of texts that stand alone, beyond those that say what an attribute is."""
    for before, node in pairwise(block):
        value = node.value if isinstance(node, ast.Expr) else None
        text = isinstance(value, ast.JoinedStr) or (
            isinstance(value, ast.Constant) and value.value is not ...
        )
        targets = before.targets if isinstance(before, ast.Assign) else [getattr(before, "target", None)]
        if text and not any(isinstance(each, ast.Attribute) for each in targets):
            yield node.lineno


def test_no_sentence_is_cut_in_two() -> None:
    """A text on a line of its own after `=` is thrown away, and what it was the end of is cut."""
    found = {
        f"{place(path)}:{line}"
        for path in FILES
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.stmt) and not isinstance(node, ast.ClassDef)
        for _, block in ast.iter_fields(node)
        if isinstance(block, list)
        for line in stray(block)
    }
    assert not found


def test_files_and_functions_are_short() -> None:
    long = {place(path) for path in FILES if path.read_text("utf-8").count("\n") > LINES}
    assert not long
    functions = {
        f"{place(path)}: {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST
    }
    assert not functions
