"""The process that measures the memory an answer of one design adds: `python -m` of this module.

The kernel keeps the highest resident size a process ever had. It is reset once both models are loaded,
every weight has been read and freed memory has been given back; what the answer then adds is the KV
caches and everything else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.designs import Stopwatch, WritingTask
from purify_hooks.evaluation.bench.models import BenchModels, Ids, batches, load
from purify_hooks.evaluation.bench.run import designs_for
from purify_hooks.evaluation.bench.settings import BenchSettings
from purify_hooks.evaluation.bench.vocabulary import threads
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.utils.freed_memory import give_back

PROC = Path("/proc/self")
MB = 1e6


def measure(settings: BenchSettings, name: str) -> dict[str, float]:
    """What one answer of one design adds to this process, in megabytes."""
    plugins = load_plugins(settings.plugins)
    with threads(settings.threads):
        models = load(settings, plugins)
        [prompts, *_] = next(batches(models, settings))
        design = designs_for(settings, models, plugins).designs[name]
        settle(models)
        before = resident("VmRSS")
        (PROC / "clear_refs").write_text("5")  # the high-water mark begins anew
        design(WritingTask(prompts, settings.tokens, 1.0), Stopwatch())
        added = resident("VmHWM") - before
    kept = caches(models[:2] if name != "llm" else models[:1], prompts, settings.tokens)
    facts = {"weights": models.weights, "caches": kept, "added": added, "beyond": added - kept}
    return {key: round(value / MB, 2) for key, value in facts.items()}


def settle(models: BenchModels) -> None:
    """Touch every weight and return freed memory to the kernel, so that neither counts later."""
    for model in (models.llm.model, models.slm.model, models.alone):
        for weight in model.parameters():
            weight.detach().to_dense().sum()  # packed weights are opaque
    give_back()


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
    """Measure as the JSON argument describes, and print the result as JSON."""
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(BenchSettings(**asked["settings"]), asked["design"])))


if __name__ == "__main__":
    main()
