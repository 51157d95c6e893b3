"""`purify run`: activate purification, then run the program in this process.

It imports little, since all of this delays the program's own first line.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.running.interpreters import is_python, refuse_blind, shebang

USAGE = "usage: purify run [--quiet] [--config FILE] (SCRIPT | -m MODULE | COMMAND) [ARGUMENT]..."
EX_CONFIG = 78
"""The exit code of a program that was not started because it would not have been purified."""


def run(arguments: Sequence[str]) -> int:
    """Run a program with purification on; returns the exit code where the program sets none."""
    if arguments[:1] in ([], ["--help"], ["-h"]):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        program = _activated(list(arguments))
    except PurifyError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EX_CONFIG
    program.start()
    return 0


def _activated(arguments: list[str]) -> Program:
    """The program that is to run, and everything ready for it. Raises PurifyError."""
    gc.disable()  # imported modules stay; collecting garbage among them takes a tenth of the start
    try:
        asked = _parsed(arguments)
        program = _program(asked.words)
        from purify_plugins.running.activate import activate

        status = activate(_config(asked.config, program.folder))
        if not asked.quiet:
            print(f"purify: on, policy {status.policy!r}, {status.config}", file=sys.stderr, flush=True)
        return program
    finally:
        gc.enable()


class RunOptions(NamedTuple):
    """The options before the program, and the words that name it."""

    config: str | None
    quiet: bool
    words: list[str]


def _parsed(arguments: list[str]) -> RunOptions:
    """Split our own options from the program's words. Raises ConfigError."""
    config, quiet = None, False
    while arguments and arguments[0].startswith("--"):
        option, equals, value = arguments.pop(0).partition("=")
        if not option.removeprefix("--"):
            break
        if option == "--quiet" and not equals:
            quiet = True
        elif option == "--config":
            config = value if equals or not arguments else arguments.pop(0)
            if not config:
                raise ConfigError("--config needs a file; name it, or leave --config out")
        else:
            raise ConfigError(f"unknown option {option!r}; {USAGE}")
    if not arguments or arguments == ["-m"]:
        raise ConfigError(f"there is no program to run; {USAGE}")
    return RunOptions(config, quiet, arguments)


def _config(named: str | None, folder: Path) -> Path:
    """The configuration named, or in the environment, or beside the program, or here."""
    from purify_plugins.configuration.find import find_beside

    return find_beside(folder, named)


class Program:
    """The program to run: `start` runs it. `folder` is its script's directory, or the working directory."""

    def __init__(self, start: Callable[[], object], folder: Path) -> None:
        self.start, self.folder = start, folder


def _program(words: list[str]) -> Program:
    """The program that a command line names. Raises ConfigError for one that is not Python's."""
    name, *rest = words
    if name == "-m":
        _require_module(rest[0])
        return Program(lambda: _run_module(rest), Path.cwd())
    if name.startswith("-"):
        raise ConfigError(f"unknown option {name!r}; {USAGE}")
    path = Path(name)
    if not name.strip():
        raise ConfigError(f"there is no program to run; {USAGE}")
    if path.suffix in (".py", ".pyw", ".pyz") or path.is_dir():
        if not path.exists():
            raise ConfigError(f"there is no program {name!r}; correct its path")
        if path.is_dir() and not (path / "__main__.py").is_file():
            raise ConfigError(
                f"the directory {name!r} has no __main__.py to run; name a script, or -m MODULE"
            )
        return Program(lambda: _run_script([name, *rest]), path.resolve().parent)
    return _command(words)


def _require_module(name: str) -> None:
    """Raise ConfigError for a module that does not exist; its package is searched, and nothing imported."""
    from importlib.machinery import PathFinder

    package = name.partition(".")[0]
    here = [] if sys.flags.safe_path else [os.getcwd()]
    if package not in sys.builtin_module_names and PathFinder.find_spec(package, [*here, *sys.path]) is None:
        raise ConfigError(f"there is no module {name!r} for this Python; correct its name, or install it")


def _command(words: list[str]) -> Program:
    """A command of this Python's, such as uvicorn; or this Python, started with its own options."""
    from shutil import which

    found = which(words[0])
    if found is None:
        raise ConfigError(
            f"there is no program {words[0]!r}; name a script, -m MODULE or an installed command"
        )
    refuse_blind(words)
    if is_python(found):
        return Program(lambda: os.execv(found, words), Path.cwd())
    interpreter = shebang(found)
    if not interpreter or not is_python(interpreter[0]):
        raise ConfigError(
            f"{words[0]!r} is not a Python program, so it cannot be purified; run its Python part"
        )
    if (
        Path(which(interpreter[0]) or interpreter[0]).parent.resolve()
        != Path(sys.executable).parent.resolve()
    ):
        raise ConfigError(
            f"{words[0]!r} belongs to {interpreter[0]}; install purify-plugins there and use it"
        )
    return Program(lambda: _run_script([found, *words[1:]]), Path.cwd())


def _run_script(words: list[str]) -> None:
    """As `python SCRIPT` does."""
    from runpy import run_path

    _set(words, str(Path(words[0]).resolve().parent))
    run_path(words[0], run_name="__main__")


def _run_module(words: list[str]) -> None:
    """As `python -m MODULE` does."""
    from runpy import run_module

    _set(words, os.getcwd())
    run_module(words[0], run_name="__main__", alter_sys=True)


def _set(words: list[str], first: str) -> None:
    """The program's own arguments, and the first place it imports from."""
    sys.argv[:] = words
    if not sys.flags.safe_path:
        sys.path[0] = first
