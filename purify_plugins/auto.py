"""`import purify_plugins.auto`, before anything else, purifies this program; if it cannot, the program ends.

The configuration is `$PURIFY_CONFIG`, else the `purify.toml` beside the program, else the working
directory's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from purify_plugins.configuration.find import find_beside
from purify_plugins.errors import PurifyError
from purify_plugins.running.activate import activate


def _folder() -> Path:
    """The directory of the program's script; the working directory if it has no file."""
    script = vars(sys.modules["__main__"]).get("__file__")
    return Path(script).resolve().parent if script else Path.cwd()


try:
    activate(find_beside(_folder()))
except PurifyError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(78) from None  # no `except Exception` goes on without purification
