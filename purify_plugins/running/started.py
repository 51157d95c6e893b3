"""Imported by every Python that a purified program starts, before the program itself: activate, or end.

Two things import it: a `sitecustomize` that `PYTHONPATH` leads to, and `zzz_purify.pth` beside the package,
which looks whether the environment names a configuration in `PURIFY_ACTIVE`. An exception here would be
printed and the program run all the same, so the process ends instead.
"""

from __future__ import annotations

import os
import sys


def _switch_on() -> None:
    try:
        from purify_plugins.running.activate import activate

        activate(os.environ.get("PURIFY_ACTIVE"))
    except BaseException as error:  # whatever it is, the program must not run without purification
        sys.stderr.write(f"error: {_sentence(error)}\n")
        sys.stderr.flush()
        os._exit(78)


def _sentence(error: BaseException) -> str:
    if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):  # of the adapters' plugin
        return f"{sys.executable} cannot be purified: {error}; install purify-plugins for it"
    return " ".join(str(error).split()) or repr(error)


_switch_on()
