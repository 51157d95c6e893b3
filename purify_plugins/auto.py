"""`import purify_plugins.auto`, before anything else, purifies this program; if it cannot, the program ends.

The configuration is `$PURIFY_CONFIG`, else the working directory's `purify.toml`.
"""

from __future__ import annotations

import sys

from purify_plugins.errors import PurifyError
from purify_plugins.switch import activate

try:
    activate()
except PurifyError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(78) from None  # no `except Exception` goes on without purification
