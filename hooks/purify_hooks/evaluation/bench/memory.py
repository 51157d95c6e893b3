"""How much memory a design takes beyond the weights, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.settings import BenchSettings, Progress
from purify_plugins.errors import PurifyError


def memory(settings: BenchSettings, names: list[str], progress: Progress) -> dict[str, Any] | None:
    """Each design's memory in megabytes; None on kernels without /proc/self/clear_refs."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    found = {}
    for name in names:
        progress(f"memory: {name}")
        found[name] = _ask(settings, name)
    return found


def _ask(settings: BenchSettings, name: str) -> Mapping[str, float]:
    """Measure one design in a fresh interpreter."""
    asked = json.dumps({"settings": asdict(settings), "design": name})
    command = [sys.executable, "-m", "purify_hooks.evaluation.bench.memory_process", asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PurifyError(f"the memory of {name} was not measured: {done.stderr.strip().splitlines()[-1]}")
    answer: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer
