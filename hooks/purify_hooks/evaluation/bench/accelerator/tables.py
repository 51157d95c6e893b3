"""A preset's measurement as tables, and the page's section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from purify_hooks.evaluation.bench.settings import MODES
from purify_hooks.evaluation.bench.tables import NAMES as DESIGNS
from purify_hooks.evaluation.bench.tables import bars_table
from purify_hooks.evaluation.bench.targets import Target
from purify_hooks.evaluation.table import Table

NAMES = {
    "llm": DESIGNS["llm"],
    "llm, compiled": "LLM alone, `generate` with a static cache",
    **{name: DESIGNS[name] for name in ("assisted", "lockstep", "speculative")},
    "lockstep, compiled": "lockstep, both models compiled",
    "speculative, compiled": "speculative, both models compiled",
}


def heading(found: Mapping[str, Any]) -> str:
    """What was measured, when and on what, in a line."""
    llm, slm = (found["model_parameters"][side] / 1e6 for side in ("llm", "slm"))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{found['device']}: the test bed's pair (a toy, widened) with {llm:,.0f} M and {slm:,.0f} M "
        f"parameters, {found['preset']['dtype']}, {found['policy']}, {found['tokens']} tokens, "
        f"{found['rounds']} rounds, {versions}, {found['date']}"
    )


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Every vocabulary, batch and mode, the policies' arithmetic, and the bars."""
    shown = [_cell(cell, mode) for cell in found["cells"] for mode in MODES]
    return [*shown, _policies(found), bars_table(bars(found))]


def _cell(cell: Mapping[str, Any], mode: str) -> Table:
    designs = cell["modes"][mode]
    rows = [[NAMES[name], *_row(facts, designs["llm"])] for name, facts in designs.items()]
    columns = ["design", "tokens/s", "vs LLM alone", "first token", "outside both models", "memory added"]
    return Table(f"{cell['vocabulary']:,} tokens, batch {cell['batch']}, {mode}", columns, rows)


def _row(facts: Mapping[str, Any], llm: Mapping[str, Any]) -> Iterator[str]:
    yield f"{facts['tokens_per_second']:.1f}"
    yield f"{facts['tokens_per_second'] / llm['tokens_per_second']:.2f}"
    yield f"{facts['first_token_ms']:.0f} ms"
    yield "–" if facts["outside"] is None else f"{facts['outside_ms']:.2f} ms a token, {facts['outside']:.0%}"
    yield "–" if facts["memory_mb"] is None else f"{facts['memory_mb']:.0f} MB"


def _policies(found: Mapping[str, Any]) -> Table:
    rows = [
        [each["policy"], f"{each['vocabulary']:,}", str(each["batch"]), *_pair(each)]
        for each in found["policies"]
    ]
    return Table("A policy's arithmetic, ms", ["policy", "tokens", "rows", "as it is", "compiled"], rows)


def _pair(each: Mapping[str, Any]) -> list[str]:
    return [f"{each['fuse_ms']:.3f}", f"{each['compiled_ms']:.3f}"]


def bars(found: Mapping[str, Any]) -> Iterator[Target]:
    """Speculative over the faster LLM alone, and what a lockstep token takes outside both models."""
    for cell in found["cells"]:
        for mode, designs in cell["modes"].items():
            where = f"{cell['vocabulary']:,} tokens, batch {cell['batch']}, {mode}"
            speeds = {name: facts["tokens_per_second"] for name, facts in designs.items()}
            if cell["batch"] == 1:
                ours = max(speeds["speculative"], speeds["speculative, compiled"])
                alone = max(speeds["llm"], speeds["llm, compiled"])
                yield Target(f"speculative ÷ LLM alone, the faster of each, {where}", ours / alone, 1.5)
            if (cell["vocabulary"], cell["batch"]) == (1 << 17, 32):
                step = designs["lockstep, compiled"]
                share = step["outside_ms"] / step["llm_ms"]
                yield Target(f"policy and draw ÷ an LLM step, {where}", share, 0.1, at_least=False)


def section(found: Mapping[str, Any]) -> str:
    """The part of the page that a measurement writes."""
    return "\n\n".join([f"{heading(found)}.", *(table.markdown for table in tables(found))]) + "\n"
