"""Found through PYTHONPATH by every Python child of a purified program: activate, or end the process.

Only the standard library is imported before we know that the rest is there.
"""

import os
import sys
from importlib import import_module


def _switch_on() -> None:
    try:
        import_module("purify_plugins.running.started")
    except BaseException as error:  # whatever it is, the program must not run without purification
        reason = f"{sys.executable} cannot be purified: {error}; install purify-plugins for it"
        sys.stderr.write(f"error: {reason}\n")
        sys.stderr.flush()
        os._exit(78)


def _next() -> None:
    """The `sitecustomize` that this one stands before, if there is one."""
    here = os.path.realpath(os.path.dirname(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != here]
    this = sys.modules.pop("sitecustomize")
    try:
        import_module("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", this)


_switch_on()
_next()
