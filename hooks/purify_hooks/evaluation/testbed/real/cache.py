"""The real pair in a cache directory, so that the demonstration and the tests train it once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.evaluation.testbed.real.recipe import COST, RealRecipe


def directory() -> Path:
    """Where the pair of this recipe is, or will be: under $XDG_CACHE_HOME or ~/.cache.

    Its name changes with the recipe, so that a pair of an older one is not taken for it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    here = Path(__file__).parent
    files = sorted(file for file in here.iterdir() if file.suffix in (".py", ".json"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return cache / "purify" / f"real-{digest[:12]}"


def made(tell: Callable[[str], object]) -> Path:
    """The directory of the pair, which is made if it is not whole; `tell` gets the cost first.

    Raises ConfigError where the weights or the books are missing.
    """
    from purify_hooks.evaluation.testbed.real.original import require_original
    from purify_hooks.evaluation.testbed.real.stages import make
    from purify_hooks.progress import shown_progress, stage_lines

    home = directory()
    if not (home / "report.json").exists():
        require_original()
        tell(f"making the pair in {home}: {COST}; once, and finished stages are kept")
        with shown_progress(stage_lines) as progress:
            make(RealRecipe(home, CORPUS), progress)
    return home
