"""A measurement as a picture: every design's speed over that of the LLM alone."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.settings import MODES
from purify_hooks.evaluation.bench.tables import AGAINST, NAMES
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.files import write_whole

OURS, OTHERS = "#2a7f62", "#9aa5b1"


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Write the picture; its suffix says whether it is SVG or PNG. Raises ConfigError without matplotlib."""
    require_extra("eval", "the plot")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "purify", "font.size": 9}):  # the same numbers, the same file
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        for axis, mode in zip(figure.subplots(1, 2, sharey=True), MODES, strict=True):
            _bars(axis, mode, found[mode])
        drawn = BytesIO()
        kind = path.suffix.removeprefix(".") or "svg"
        figure.savefig(drawn, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, drawn.getvalue())


def _bars(axis: Any, mode: str, facts: Mapping[str, Any]) -> None:
    """One mode's designs from the top, whiskers to the quartiles, a line at the LLM's own speed."""
    for name in facts["tokens_per_second"]:
        key = AGAINST.get(name, f"{name}_vs_llm")
        middle, (low, high) = facts.get(key, 1.0), facts["quartiles"].get(key, (1.0, 1.0))
        label = NAMES[name].replace("`", "")
        ours = name in ("lockstep", "speculative", "anchored")
        axis.barh(label, middle, xerr=[[middle - low], [high - middle]], color=OURS if ours else OTHERS)
        axis.annotate(f"{middle:.2f}", (high, label), xytext=(3, 0), textcoords="offset points", va="center")
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.margins(x=0.15)
    axis.set_title(mode)
    axis.set_xlabel("speed over the LLM alone")
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
