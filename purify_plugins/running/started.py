"""Imported first by every Python that a purified program starts: activate purification, or end the process.

It is imported by `sitecustomize`, found through `PYTHONPATH`, and by `zzz_purify.pth` beside the package if
the environment variable `PURIFY_ACTIVE` names a configuration. Python prints exceptions here and runs the
program all the same, so the process is ended instead.
"""

from __future__ import annotations

import os
import sys


def _switch_on() -> None:
    try:
        from purify_plugins.running.activate import activate

        activate(os.environ.get("PURIFY_ACTIVE"))
    except BaseException as error:  # the program must not run without purification
        sys.stderr.write(f"error: {_sentence(error)}\n")
        sys.stderr.flush()
        os._exit(78)


def _sentence(error: BaseException) -> str:
    if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):  # of the adapters' plugin
        return f"{sys.executable} cannot be purified: {error}; install purify-plugins for it"
    return " ".join(str(error).split()) or repr(error)


_switch_on()
