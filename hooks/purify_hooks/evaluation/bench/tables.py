"""A measurement as tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from purify_hooks.evaluation.bench.settings import MODES, POLICIES
from purify_hooks.evaluation.bench.targets import Target, targets
from purify_hooks.evaluation.table import Table

NAMES = {
    "llm": "LLM alone, `generate`",
    "assisted": "LLM alone, assisted by the SLM",
    "naive": "fusion as a LogitsProcessor",
    "lockstep": "lockstep",
    "speculative": "speculative",
    "anchoreddecode": "anchoreddecode 0.1.0, k = 1.5",
    "anchored": "speculative, anchored, budget = 1.5",
}
AGAINST = {"anchoreddecode": "peer_vs_llm"}
"""Design -> key of its ratio to the LLM alone, where it is not "NAME_vs_llm"."""


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was measured."""
    shown = [*(_speeds(found, mode) for mode in MODES), _speculation(found)]
    shown += [_swept(found)] if found["sweep"] else []
    shown += [_work(found, policy) for policy in POLICIES] if found["vocabulary"] else []
    shown += [_memory(found)] if found["memory"] else []
    shown += [_crossed(found["another_tokenizer"])] if found["another_tokenizer"] else []
    return shown


def _speeds(found: Mapping[str, Any], mode: str) -> Table:
    """Each design's ratio with its quartiles, its speed and its time to the first token."""
    facts = found[mode]
    rows = [
        [NAMES[name], _vs_llm(facts, name), f"{speed:.1f}", _first(facts["first_token_ms"][name])]
        for name, speed in facts["tokens_per_second"].items()
    ]
    return Table(f"Speed, {mode}", ["design", "vs LLM alone", "tokens/s", "first token"], rows)


def _vs_llm(facts: Mapping[str, Any], name: str) -> str:
    return "1.00" if name == "llm" else ratio(facts, AGAINST.get(name, f"{name}_vs_llm"))


def _first(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"


def ratio(mode: Mapping[str, Any], name: str) -> str:
    """A median and its quartiles; a dash where there is none."""
    if mode[name] is None:
        return "-"
    low, high = mode["quartiles"][name]
    return f"{mode[name]:.2f} ({low:.2f}-{high:.2f})"


def _speculation(found: Mapping[str, Any]) -> Table:
    columns = ["", "vs assisted", "vs peer", "drafted tokens kept", "LLM passes per token"]
    rows = [
        [
            mode,
            ratio(found[mode], "speculative_vs_assisted"),
            ratio(found[mode], "anchored_vs_peer"),
            "-" if found[mode]["acceptance"] is None else f"{found[mode]['acceptance']:.3f}",
            f"{found[mode]['passes_per_token']:.2f}",
        ]
        for mode in MODES
    ]
    return Table(f"Speculation (an SLM step costs {found['cost_ratio']:.3f} of an LLM step)", columns, rows)


def _swept(found: Mapping[str, Any]) -> Table:
    """The speed of every draft length over lockstep, and of the adaptive one over the best decoder."""
    rows = [
        [mode, *(f"{each:.2f}" for each in swept["vs_lockstep"].values()), *_against_best(swept)]
        for mode, swept in found["sweep"].items()
    ]
    columns = ["", *found["sweep"]["greedy"]["vs_lockstep"], "best", "adaptive ÷ best"]
    return Table("Draft length, speed over lockstep", columns, rows)


def _against_best(swept: Mapping[str, Any]) -> list[str]:
    return [swept["best"], f"{swept['adaptive_vs_best']:.2f}"]


def _work(found: Mapping[str, Any], policy: str) -> Table:
    kinds = {"greedy": "greedy_ms", "sampled": "sampled_ms", "top-p 0.9": "top_p_ms"}
    rows = [
        [size, *(f"{work[policy][key]:.3f}" for key in kinds.values()), f"{work['floor_ms']:.3f}"]
        for size, work in found["vocabulary"].items()
    ]
    columns = ["tokens", *kinds, "reading both rows"]
    return Table(f"Choosing a token, {policy}, ms on one core", columns, rows)


def _memory(found: Mapping[str, Any]) -> Table:
    rows = [
        [NAMES[name], *(f"{facts[key]:.1f}" for key in ("weights", "caches", "added", "beyond"))]
        for name, facts in found["memory"].items()
    ]
    columns = ["design", "both models' weights", "its caches", "added by an answer", "beyond caches"]
    return Table("Memory, MB", columns, rows)


def _crossed(facts: Mapping[str, Any]) -> Table:
    """Purified text beside the LLM's own, in bytes a second: their tokens differ."""
    rows = [
        [
            mode,
            ratio(
                {"vs_llm": facts[mode]["vs_llm"], "quartiles": {"vs_llm": facts[mode]["quartiles"]}}, "vs_llm"
            ),
            *(f"{facts[mode]['bytes_per_second'][name]:.1f}" for name in ("purified", "llm")),
            f"{facts[mode]['calls_per_token']:.2f}",
        ]
        for mode in MODES
    ]
    columns = ["", "vs LLM alone", "bytes/s", "LLM alone, bytes/s", "passes of the LLM per token of its own"]
    return Table(f"Another tokenizer: {facts['slm']}, fused in {facts['alphabet']}", columns, rows)


def promised(found: Mapping[str, Any]) -> Table:
    return bars_table(targets(found))


def bars_table(bars: Iterable[Target]) -> Table:
    """Each bar, what was measured, and whether it holds."""
    rows = [
        [bar.what, f"{bar.measured:.2f}", f"{bar.sign} {bar.bar:.2f}", "yes" if bar.holds else "no"]
        for bar in bars
    ]
    return Table("Bars", ["what", "measured", "bar", "holds"], rows)
