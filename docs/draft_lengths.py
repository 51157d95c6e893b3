"""Whether the draft length finds itself, for SLMs of five costs: `python docs/draft_lengths.py --write`.

The LLM is the test bed's, widened to 88 million parameters, the SLM the test bed's at five widths and depths,
with unchanged logits: what is drafted and kept is the same for all, and its cost is not. Each is timed with
every draft length held fixed, in lockstep, and with the length that adapts, in turn. A toy at real sizes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.models import BenchModels, batches, load
from purify_hooks.evaluation.bench.run import sweep
from purify_hooks.evaluation.bench.settings import CLOCKS, BenchSettings
from purify_hooks.evaluation.bench.timing import cost_ratio
from purify_hooks.evaluation.bench.vocabulary import threads
from purify_hooks.evaluation.bench.widen import widen
from purify_hooks.evaluation.eval.page import fill_region, machine, today
from purify_hooks.evaluation.eval.page import load as busy
from purify_hooks.local.packed import pack
from purify_plugins.plugin.manager import Plugins, load_plugins

PAGE = Path(__file__).parent / "performance.md"
SIZES = ((1, 1), (3, 2), (4, 2), (5, 2), (6, 3))
"""How many times as wide, and as deep, the SLM is made."""
CALIBRATED = {"budget": 8.2, "gap_limit": 1.16, "memory": 16.0, "hedge": 0.005, "numbers": 5.0}


def sized(models: BenchModels, copies: int, layers: int) -> BenchModels:
    """The pair with an SLM so many times as large, its logits unchanged."""
    if copies == layers == 1:
        return models
    wide = widen(models.slm.model, copies, layers)
    pack(wide)  # as a loaded model is
    return models._replace(
        slm=type(models.slm)(wide, models.slm.tokenizer, "slm, widened", models.slm.folder)
    )


def measured(settings: BenchSettings, plugins: Plugins) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each SLM's cost in LLM steps, and by mode the speeds over lockstep's."""
    pair = load(settings, plugins)
    [first, *_] = next(batches(pair, settings))
    for copies, layers in SIZES:
        models = sized(pair, copies, layers)
        cost = cost_ratio(models, first, CLOCKS[settings.clock])
        yield cost, sweep(settings, models, plugins, lambda line: print(line, file=sys.stderr))


def rows(found: list[tuple[float, dict[str, Any]]]) -> str:
    """The figures in Markdown."""
    columns = ("an SLM step costs", "mode", "adaptive", "best", "adaptive ÷ best")
    head = "".join(f"| {' | '.join(each)} |\n" for each in (columns, ["---"] * len(columns)))
    return head + "".join(
        f"| {cost:.2f} LLM steps | {mode} | {speeds['adaptive']:.2f} | {speeds[swept['best']]:.2f} "
        f"({swept['best']}) | {swept['adaptive_vs_best']:.2f} |\n"
        for cost, modes in found
        for mode, swept in modes.items()
        for speeds in ({"lockstep": 1.0, **swept["vs_lockstep"]},)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/performance.md.")
    given = parser.parse_args()
    settings = BenchSettings(
        policy="balanced",
        parameters=CALIBRATED,
        tokens=given.tokens,
        rounds=given.rounds,
        prompts=given.prompts,
        threads=given.threads,
        clock=given.clock,
    )
    found = []
    with threads(settings.threads):
        for each in measured(settings, load_plugins([])):
            found.append(each)
            print(rows(found), flush=True)
    note = (
        f"\n{today()}, {machine()}, {busy()}, {given.clock} time, {given.rounds} rounds of {given.prompts} "
        f"answers of {given.tokens} tokens.\n"
    )
    print(rows(found) + note)
    if given.write:
        fill_region(PAGE, "lengths", rows(found) + note)


if __name__ == "__main__":
    main()
