"""Child processes: Python reads the boot directory's `sitecustomize` first, unless it is told not to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from purify_plugins.pythons import refuse_blind

if TYPE_CHECKING:
    from purify_adapters.activation.points import Patch, Points

BOOT = str(Path(__file__).parent / "boot")


class Children:
    """The environment that makes every Python child activate `config` before its program starts."""

    def __init__(self, config: Path) -> None:
        self.config = str(config)
        self.before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PURIFY_CONFIG")}

    def cover(self, environment: Any = None) -> None:
        """Put the boot directory and the configuration into an environment; by default, this process's."""
        environment = os.environ if environment is None else environment
        path = environment.get("PYTHONPATH", "").split(os.pathsep)
        kept = [folder for folder in path if folder and folder != BOOT]
        environment.update({"PYTHONPATH": os.pathsep.join([BOOT, *kept]), "PURIFY_CONFIG": self.config})

    def restore(self) -> None:
        """This process's environment as it was."""
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @property
    def patches(self) -> dict[str, Patch]:
        """Module -> what is replaced in it: an environment that is swept clean would leave children raw."""
        return {"os": self._os, "subprocess": self._subprocess, "multiprocessing.util": self._spawned}

    def _covered(self, environment: Mapping[str, str] | None) -> dict[str, str]:
        covered = dict(os.environ if environment is None else environment)
        self.cover(covered)
        return covered

    def _subprocess(self, points: Points, module: ModuleType) -> None:
        """`Popen`, by which subprocess and asyncio start everything."""
        from inspect import signature

        def around(original: Any) -> Any:
            taken = signature(original)

            @wraps(original)
            def __init__(*args: Any, **options: Any) -> None:
                given = taken.bind(*args, **options)
                asked = given.arguments
                refuse_blind(_words(asked["args"], asked.get("shell")), asked.get("executable"))
                asked["env"] = self._covered(asked.get("env"))
                original(*given.args, **given.kwargs)

            return __init__

        points.replace(module.Popen, "__init__", around)

    def _os(self, points: Points, module: ModuleType) -> None:
        """What starts another program, or becomes it, without subprocess."""

        def without(original: Any) -> Any:
            @wraps(original)
            def execv(path: Any, args: Any) -> Any:
                refuse_blind(_words(args), path)
                self.cover()
                return original(path, args)

            return execv

        def given(original: Any) -> Any:
            @wraps(original)
            def execve(path: Any, args: Any, env: Any, **options: Any) -> Any:
                refuse_blind(_words(args), path)
                return original(path, args, self._covered(env), **options)

            return execve

        points.replace(module, "execv", without)
        for name in ("execve", "posix_spawn", "posix_spawnp"):
            if hasattr(module, name):  # Windows has no posix_spawn
                points.replace(module, name, given)

    def _spawned(self, points: Points, module: ModuleType) -> None:
        """multiprocessing's spawn and forkserver give their children this process's environment."""

        def around(original: Any) -> Any:
            @wraps(original)
            def spawnv_passfds(path: Any, args: Any, passfds: Any) -> Any:
                refuse_blind(_words(args), path)
                self.cover()
                return original(path, args, passfds)

            return spawnv_passfds

        points.replace(module, "spawnv_passfds", around)


def _words(args: Any, shell: Any = False) -> list[str]:
    """A command as words; of a shell's text, its first command."""
    if not isinstance(args, str | bytes | os.PathLike):
        return [os.fsdecode(word) for word in args]
    if not shell:
        return [os.fsdecode(args)]
    from shlex import split

    try:
        return split(os.fsdecode(args))
    except ValueError:  # the shell will say what is wrong with it
        return []
