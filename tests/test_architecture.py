"""The house: what the code may ask of its own objects, read from the source by `ast`."""

from __future__ import annotations

import ast
from collections import Counter
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
    "purify_plugins/adapting.py": (14, FOREIGN),
    "purify_plugins/certificate/recomputing.py": (1, FIELD),
    "purify_plugins/certificate/spelling.py": (2, FIELD),
    "purify_plugins/plugins.py": (1, PLUGGY),
    "purify_plugins/__init__.py": (1, MODULE),
    "purify_plugins/token_bytes.py": (3, TOKENIZERS),
    "purify_plugins/weighing.py": (4, JINJA),
    "purify_plugins/templates.py": (1, JINJA),
    "purify_plugins/types.py": (1, FIELD),
    "purify_plugins/cli/pins.py": (1, FIELD),
    "purify_plugins/cli/__init__.py": (2, CLICK),
    "purify_plugins/eval/questions.py": (1, "typing's own objects"),
    "purify_plugins/eval/workers.py": (1, TORCH),
    "purify_plugins/eval/systems.py": (1, FIELD),
    "purify_plugins/bench/memory.py": (3, TORCH),
    "hooks/purify_hooks/causality.py": (2, TORCH),
    "hooks/purify_hooks/policies/_base.py": (2, FIELD),
    "hooks/purify_hooks/allowing.py": (6, TORCH),
    "hooks/purify_hooks/thin.py": (1, TORCH),
    "hooks/purify_hooks/cache.py": (1, FIELD),
    "hooks/purify_hooks/forward.py": (3, TORCH),
    "hooks/purify_hooks/local.py": (3, TORCH),
    "adapters/purify_adapters/activation/active.py": (1, FIELD),
    "adapters/purify_adapters/activation/clients.py": (4, PATCHED),
    "adapters/purify_adapters/activation/children.py": (1, PATCHED),
    "adapters/purify_adapters/activation/models.py": (3, PATCHED),
    "adapters/purify_adapters/activation/points.py": (2, PATCHED),
    "adapters/purify_adapters/tgi/hub.py": (1, PATCHED),
    "adapters/purify_adapters/gateway/watching.py": (1, "starlette's endpoint"),
    "adapters/purify_adapters/gateway/settings.py": (1, FIELD),
    "adapters/purify_adapters/gateway/asking.py": (4, WIRE),
    "adapters/purify_adapters/transformers/model.py": (1, TORCH),
    "adapters/purify_adapters/transformers/drop_in.py": (3, PATCHED),
    "adapters/purify_adapters/transformers/streaming.py": (2, TORCH),
    "adapters/purify_adapters/vllm_contracts.py": (6, "vLLM's own objects, which differ by release"),
    "adapters/purify_adapters/vllm.py": (3, "vLLM's own objects, which differ by release"),
    "adapters/purify_adapters/llama_index/options.py": (1, FIELD),
    "adapters/purify_adapters/__init__.py": (3, MODULE),
    "adapters/purify_adapters/tools/speech.py": (3, TOKENIZERS),
    "adapters/purify_adapters/langchain/models.py": (3, FIELD),
}
"""Where `hasattr` and `getattr` stand, how often at most, and on whose objects. None is a policy of ours, a
source or a session: their optional members have defaults in `protocols.py` and `policy.py`."""
WRAPPERS = {"Bridged", "Remapped", "Respelled", "Spelled", "Translated", "Shared", "Contrast", "Adapted"}
"""Wrappers whose kind is asked in no file but their own, nor that of their sessions."""


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def test_our_own_policies_sources_and_sessions_are_not_asked_what_they_have() -> None:
    """Two regressions went unseen, because a wrapper lacked a member that somebody looked for by name."""
    found = Counter(place(path) for path in FILES for _ in calls(path, "hasattr", "getattr"))
    new = {name: count for name, count in found.items() if count > PROBES.get(name, (0, ""))[0]}
    assert not new, f"give the member a default in its base class, or list it with a reason: {new}"


def test_no_reason_outlives_its_probe() -> None:
    found = Counter(place(path) for path in FILES for _ in calls(path, "hasattr", "getattr"))
    assert {name: found[name] for name in PROBES} == {name: count for name, (count, _) in PROBES.items()}


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
