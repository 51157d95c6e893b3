"""Performance targets, and whether a measurement meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from purify_hooks.evaluation.bench.settings import MODES


class Target(NamedTuple):
    """A target: a measured number and its lower (or upper) limit."""

    what: str
    measured: float
    bar: float
    at_least: bool = True

    @property
    def sign(self) -> str:
        return "≥" if self.at_least else "≤"

    @property
    def holds(self) -> bool:
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar


VS_LLM = {
    ("geometric", 1, "greedy"): 1.5,
    ("geometric", 1, "sampled"): 1.5,
    ("geometric", 8, "greedy"): 1.3,
    ("windowed", 1, "greedy"): 1.4,
    ("windowed", 1, "sampled"): 1.4,
    ("balanced", 1, "greedy"): 1.6,
    ("balanced", 1, "sampled"): 1.6,
}
"""(policy, batch, mode) -> target speed over the LLM alone."""


def targets(found: Mapping[str, Any]) -> list[Target]:
    """Every target that this measurement covers."""
    return [*_races(found), *_sweeps(found), *_work(found), *_memory(found), *_crossed(found)]


def _races(found: Mapping[str, Any]) -> Iterator[Target]:
    limit = 1 / (1 + found["cost_ratio"])
    for mode in MODES:
        speculative = found[mode]["speculative_vs_llm"]
        if bar := VS_LLM.get((found["policy"]["name"], found["batch"], mode)):
            yield Target(f"speculative ÷ LLM alone, {mode}", speculative, bar)
        if assisted := found[mode]["speculative_vs_assisted"]:
            yield Target(f"speculative ÷ assisted, {mode}", assisted, 1.2)
        yield Target(f"lockstep ÷ LLM alone, {mode}", found[mode]["lockstep_vs_llm"], 0.95 * limit)


def _sweeps(found: Mapping[str, Any]) -> Iterator[Target]:
    for mode, swept in (found["sweep"] or {}).items():
        yield Target(f"adaptive ÷ best decoder, {mode}", swept["adaptive_vs_best"], 0.95)


def _work(found: Mapping[str, Any]) -> Iterator[Target]:
    if found["vocabulary"]:
        work = found["vocabulary"]["128k"]["geometric"]
        yield Target("choosing among 128k, greedy, ms", work["greedy_ms"], 0.3, at_least=False)
        yield Target("choosing among 128k, top-p 0.9, ms", work["top_p_ms"], 0.6, at_least=False)


def _memory(found: Mapping[str, Any]) -> Iterator[Target]:
    for name in ("lockstep", "speculative"):
        if found["memory"]:
            beyond = found["memory"][name]["beyond"]
            yield Target(f"{name}: memory beyond weights and caches, MB", beyond, 64, at_least=False)


def _crossed(found: Mapping[str, Any]) -> Iterator[Target]:
    facts = found["another_tokenizer"]
    for mode in MODES if facts else ():
        yield Target(f"another tokenizer ÷ LLM alone, {mode}", facts[mode]["vs_llm"], 0.6)
        calls = facts[mode]["calls_per_token"]
        yield Target(f"another tokenizer: passes of the LLM per token, {mode}", calls, 2.0, at_least=False)
