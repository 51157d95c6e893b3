"""Activates Python child processes through the boot directory's `sitecustomize`, or `zzz_purify.pth`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.running.interpreters import refuse_blind, refuse_text

if TYPE_CHECKING:
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch

BOOT = str(Path(__file__).parent / "boot")
OURS = ("PURIFY_CONFIG", "PURIFY_ACTIVE")
"""Both name the configuration file; the second one also says that children are activated."""


def refuse_earlier() -> None:
    """Raise ConfigError if multiprocessing workers are running; a forkserver is stopped, to start again."""
    if "multiprocessing.forkserver" in sys.modules:
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no other way; its tests' own
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else ():
        raise ConfigError(
            f"{child.name} (process {child.pid}) was started before purification and would write "
            "unpurified; activate before you start it"
        )


class SubprocessEnvironment:
    """The environment that makes every Python child activate `config` before its program starts."""

    def __init__(self, config: Path) -> None:
        self.config = str(config)
        self.before = {name: os.environ.get(name) for name in ("PYTHONPATH", *OURS)}

    def cover(self, environment: Any = None) -> None:
        """Put the boot directory and the configuration into an environment; by default, this process's."""
        environment = os.environ if environment is None else environment
        path = environment.get("PYTHONPATH", "").split(os.pathsep)
        kept = [folder for folder in path if folder and folder != BOOT]
        environment.update({"PYTHONPATH": os.pathsep.join([BOOT, *kept]), **dict.fromkeys(OURS, self.config)})

    def restore(self) -> None:
        """This process's environment as it was."""
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @property
    def patches(self) -> dict[str, Patch]:
        """Module -> its patch: a child must keep these variables even in an environment of its own."""
        return {"os": self._os, "subprocess": self._subprocess, "multiprocessing.util": self._spawned}

    def _covered(self, environment: Mapping[str, str] | None) -> dict[str, str]:
        given = os.environ if environment is None else environment
        covered = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
        self.cover(covered)
        return covered

    def _subprocess(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Patch `Popen`, which subprocess and asyncio use."""
        from inspect import signature

        def around(original: Any) -> Any:
            taken = signature(original)

            @wraps(original)
            def __init__(*args: Any, **options: Any) -> None:
                given = taken.bind(*args, **options)
                arguments = given.arguments
                _check(arguments["args"], arguments.get("executable"), bool(arguments.get("shell")))
                arguments["env"] = self._covered(arguments.get("env"))
                original(*given.args, **given.kwargs)

            return __init__

        monkeypatch.replace(module.Popen, "__init__", around)

    def _os(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Patch the functions of `os` that start or become another program."""

        def without(original: Any) -> Any:
            @wraps(original)
            def execv(path: Any, argv: Any) -> Any:
                _check(argv, path)
                self.cover()
                return original(path, argv)

            return execv

        def given(original: Any) -> Any:
            @wraps(original)
            def execve(path: Any, argv: Any, env: Any, **options: Any) -> Any:
                _check(argv, path)
                return original(path, argv, self._covered(env), **options)

            return execve

        def by_shell(original: Any) -> Any:
            @wraps(original)
            def system(command: Any) -> Any:
                _check(command, is_text=True)
                self.cover()
                return original(command)

            return system

        monkeypatch.replace(module, "system", by_shell)
        monkeypatch.replace(module, "execv", without)
        for name in ("execve", "posix_spawn", "posix_spawnp"):
            if hasattr(module, name):  # Windows has no posix_spawn
                monkeypatch.replace(module, name, given)

    def _spawned(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Patch multiprocessing's spawn and forkserver: their children get this process's environment."""

        def around(original: Any) -> Any:
            @wraps(original)
            def spawnv_passfds(path: Any, args: Any, passfds: Any) -> Any:
                _check(args, path)
                self.cover()
                return original(path, args, passfds)

            return spawnv_passfds

        monkeypatch.replace(module, "spawnv_passfds", around)


def _check(args: Any, executable: Any = None, is_text: bool = False) -> None:
    """Raise RefusedError for a command that starts a Python which would not be purified."""
    words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
    named = [os.fsdecode(word) for word in words]
    if is_text:
        refuse_text(named[0] if named else "")
    else:
        refuse_blind(named, None if isinstance(executable, int) else executable)
