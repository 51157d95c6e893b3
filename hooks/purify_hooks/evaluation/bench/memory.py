"""How much memory a design takes beyond the weights: each in a process of its own.

The kernel keeps the highest resident size a process ever had. It is reset once both models are
loaded, every weight has been read and freed memory has been given back; what the answer then adds
is the caches and everything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.models import Ids, Models, batches, load
from purify_hooks.evaluation.bench.settings import Settings, Tell
from purify_plugins.errors import PurifyError

PROC = Path("/proc/self")
MB = 1e6


def memory(settings: Settings, names: list[str], tell: Tell) -> dict[str, Any] | None:
    """Each design's megabytes; None where the kernel does not tell (Linux does)."""
    if not (PROC / "clear_refs").exists():
        return None
    found = {}
    for name in names:
        tell(f"memory: {name}")
        found[name] = _ask(settings, name)
    return found


def _ask(settings: Settings, name: str) -> Mapping[str, float]:
    """Measure one design in a fresh interpreter."""
    asked = json.dumps({"settings": asdict(settings), "design": name})
    command = [sys.executable, "-m", "purify_hooks.evaluation.bench.memory", asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PurifyError(f"the memory of {name} was not measured: {done.stderr.strip().splitlines()[-1]}")
    answer: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(settings: Settings, name: str) -> dict[str, float]:
    """What one answer of one design adds to this process, in megabytes."""
    from purify_hooks.evaluation.bench.designs import Task, Watch
    from purify_hooks.evaluation.bench.run import contenders
    from purify_hooks.evaluation.bench.vocabulary import threads
    from purify_plugins.plugin.manager import load_plugins

    plugins = load_plugins(settings.plugins)
    with threads(settings.threads):
        models = load(settings, plugins)
        [prompts, *_] = next(batches(models, settings))
        design = contenders(settings, models, plugins).designs[name]
        settle(models)
        before = resident("VmRSS")
        (PROC / "clear_refs").write_text("5")  # the high-water mark begins anew
        design(Task(prompts, settings.tokens, 1.0), Watch())
        added = resident("VmHWM") - before
    kept = caches(models if name != "llm" else models[:1], prompts, settings.tokens)
    facts = {"weights": models.weights, "caches": kept, "added": added, "beyond": added - kept}
    return {key: round(value / MB, 2) for key, value in facts.items()}


def settle(models: Models) -> None:
    """Read every weight once and give back what loading has freed, so that neither counts later."""
    import ctypes
    import gc

    for source in models:
        for weight in source.model.parameters():
            weight.detach().sum()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim:
        trim(0)


def resident(field: str) -> int:
    """Bytes that the kernel reports of this process: VmRSS now, VmHWM at most."""
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def caches(sources: tuple[Any, ...], prompts: list[Ids], tokens: int) -> int:
    """Bytes of keys and values that these models need for an answer."""
    columns = len(prompts) * (max(map(len, prompts)) + tokens)
    return columns * sum(_column(source.model) for source in sources)


def _column(model: Any) -> int:
    """Bytes of keys and values a token."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def main() -> None:
    """Answer `_ask`."""
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(Settings(**asked["settings"]), asked["design"])))


if __name__ == "__main__":
    main()
