"""Packages of engines and clients that are too large to install here, by import name: each writes the canary.

They have the modules, classes and methods that ours watch, and nothing else; that the real ones have them
was looked up in their releases of 2026-11.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

from purify_adapters.activation.clients import CLIENTS, ENGINES, Client

AWAITED = frozenset(("acompletion", "atext_completion", "aresponses", "add_request", "async_generate"))
"""Methods that return what is awaited, in the real ones."""
FAKED = [
    client for client in (*CLIENTS, *ENGINES) if not client.loose and "transformers" not in client.module
]
EARLIER = {"a function of an engine's, taken before"}
OPEN = {"a function of an engine's, taken before": "whoever holds the function does not come by its module"}


def install(folder: Path, word: str) -> None:
    """Write every package into a folder that is on the path."""
    for client in sorted(FAKED, key=lambda client: client.module.count(".")):
        *parents, leaf = client.module.split(".")
        home = folder
        for parent in parents:
            home = home / parent
            home.mkdir(exist_ok=True)
            (home / "__init__.py").touch()
        inside = any(other.module.startswith(f"{client.module}.") for other in FAKED) or not parents
        file = home / leaf / "__init__.py" if inside else home / f"{leaf}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code(client, word))


def code(client: Client, word: str) -> str:
    """A module with what `client` says that it has; a class has its server or model where it says so."""
    lines = ["from types import SimpleNamespace"]
    for written in client.writes.replace("?", "").split():
        kind, _, name = written.rpartition(".")
        awaited = "async " if name in AWAITED and not kind.startswith("LLM") else ""
        if kind and f"class {kind}:" not in lines:
            lines += [f"class {kind}:", *map("    {}".format, attributes(client.server))]
        indent = "    " if kind else ""
        if kind:
            at = lines.index(f"class {kind}:") + 1
            lines[at:at] = [
                f"{indent}{awaited}def {name}(self, *args, **options):",
                f"{indent}    return {word!r}",
            ]
        else:
            lines += [f"{awaited}def {name}(*args, **options):", f"    return {word!r}"]
    return "\n".join(lines) + "\n"


def attributes(server: str) -> list[str]:
    """Where an object keeps its server or its model."""
    if server == "_method":
        return ["_method = b'/xai_api.Chat/GetCompletion'"]
    first, _, second = server.partition(".")
    value = f"SimpleNamespace({second}='weights')" if second else "'weights'"
    return [f"{first} = {value}"] if server else ["pass"]


def calling(client: Client, written: str) -> Callable[[], Callable[[], str]]:
    """Prepares an object of the package's, and asks it by keyword later."""

    def prepare() -> Callable[[], str]:
        module = importlib.import_module(client.module)
        kind, _, name = written.rpartition(".")
        owner: Any = getattr(module, kind)() if kind else module

        def write() -> str:
            answer = getattr(owner, name)(prompt="Once upon a time")
            return str(asyncio.run(finished(answer)) if isawaitable(answer) else answer)

        return write

    return prepare


async def finished(answer: Any) -> Any:
    return await answer


def taken() -> Callable[[], str]:
    """A function that somebody has imported before."""
    function = importlib.import_module("mlx_lm.generate").generate_step
    return lambda: str(function(prompt="Once upon a time"))


WAYS: dict[str, Callable[[], Callable[[], str]]] = {
    **{
        f"{client.module}: {written}": calling(client, written)
        for client in FAKED
        for written in client.writes.replace("?", "").split()
    },
    "a function of an engine's, taken before": taken,
}
"""Every line of the table, and every name in it."""
