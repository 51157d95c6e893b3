"""One warning a process that greedy answers carry no guarantee, for programs that never chose greedy."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger("purify.greedy")


@cache
def warn() -> None:
    """Say once that this process decodes greedily, as transformers does by default, and what to do."""
    log.warning(
        "greedy answers are purified but carry no guarantee; "
        "draw them: do_sample=True, or a temperature above 0"
    )
