"""Protection against utility, a picture a harm: down is safer, left is better language."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from purify_plugins.errors import ConfigError
from purify_plugins.eval.findings import MARGIN, MODES, harm, model, perplexity
from purify_plugins.eval.run import Result

OURS = ("balanced", "windowed")
"""Policies drawn thick: this project's own."""
SHAPES = "osD^vP*Xp<>hd8H"
FARTHEST = 2.5
"""Perplexity over the LLM's beyond which a system stands at the edge."""


def picture(results: Sequence[Result], name: str) -> str:
    """One harm's SVG, greedy and sampled side by side. Raises ConfigError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("the plots need matplotlib; run pip install 'purify-plugins[eval]'") from None

    with rc_context({"svg.hashsalt": "purify", "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9.2, 3.9), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, mode in zip(axes, MODES, strict=True):
            _panel(axis, results, name, mode)
        axes[0].set_ylabel(f"{name.lower()}: worst attack, share that succeeds")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return "<svg" + written.getvalue().split("<svg", 1)[1]


def _panel(axis: Any, results: Sequence[Result], name: str, mode: str) -> None:
    llm, slm = (model(results, key) for key in ("llm", "slm"))
    axis.axhspan(-0.05, harm(slm, name, [mode]) + MARGIN, color="#2a7f62", alpha=0.12, lw=0)
    for each, colour, label in ((llm, "#a8321a", "LLM alone"), (slm, "#2b7fb8", "SLM alone")):
        point = _place(each, llm), harm(each, name, [mode])
        axis.scatter(*point, s=90, color=colour, marker="o", zorder=5, label=label)
    policies = dict.fromkeys(each.system.policy for each in results if not each.system.alone)
    for at, policy in enumerate(policies):
        _policy(axis, [each for each in results if _of(each, policy)], llm, name, mode, at)
    axis.set_title(mode)
    axis.set_xlabel("perplexity over the LLM's")
    axis.set_ylim(-0.05, 1.05)
    axis.spines[["top", "right"]].set_visible(False)


def _of(result: Result, policy: str) -> bool:
    return not result.system.alone and result.system.policy == policy


def _policy(axis: Any, results: Sequence[Result], llm: Result, name: str, mode: str, at: int) -> None:
    """A policy's settings on one line; its default filled."""
    points = sorted((_place(each, llm), harm(each, name, [mode]), each.system.swept) for each in results)
    ours = results[0].system.policy in OURS
    colour = f"C{at % 10}"
    style = {"color": colour, "marker": SHAPES[at % len(SHAPES)], "label": results[0].system.policy}
    axis.plot(
        [x for x, _, _ in points],
        [y for _, y, _ in points],
        lw=2 if ours else 0.8,
        ms=6 if ours else 4,
        markerfacecolor="white",
        zorder=4 if ours else 3,
        **style,
    )
    for x, y, swept in points:
        if not swept:
            axis.plot([x], [y], marker=style["marker"], color=colour, ms=9 if ours else 6, zorder=6)


def _place(result: Result, llm: Result) -> float:
    ratio = perplexity(result) / perplexity(llm)
    return FARTHEST if math.isnan(ratio) else min(ratio, FARTHEST)
