"""Plots: each harm against perplexity, and the frontier of all harms against the knowledge kept."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from purify_hooks.evaluation.eval.findings import MARGIN, MODES, harm, knowledge, model, perplexity, worst
from purify_hooks.evaluation.eval.run import Result
from purify_plugins.utils.extras import require_extra

OURS: Mapping[str, str] = {"balanced": "#14695a", "windowed": "#d08a1d"}
"""This project's own policies, which are drawn thicker, and their colours."""
OTHERS = (
    *("#6a51a3", "#c2578b", "#7a5230", "#4d7f2f", "#9e9e2e", "#3aa6a0", "#d2691e", "#444444"),
    *("#a98bd6", "#e08fb0", "#b08d6a", "#8fbc5a", "#777777"),
)
SHAPES = "osD^vP*Xp<>hd8H"
RED, BLUE, GREY = "#a8321a", "#2b7fb8", "#8a867c"
LOW, HIGH = -0.04, 1.05
FARTHEST = 2.5
"""Perplexity ratio at which the axis ends; larger ones are drawn at the edge."""
TICKS = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, FARTHEST)
SHARES, SHARE_LABELS = (0, 0.25, 0.5, 0.75, 1), ("0", "25 %", "50 %", "75 %", "100 %")
STYLE: Any = {"font.size": 9, "svg.fonttype": "none", "axes.edgecolor": GREY}


At = Callable[[Result], tuple[float, float]]
"""Where a system stands in a panel."""


def picture(results: Sequence[Result], name: str, *, narrow: bool = False) -> str:
    """One harm's SVG: harm against perplexity. Raises ConfigError without matplotlib."""
    llm, slm = (model(results, key) for key in ("llm", "slm"))

    def draw(axis: Any, mode: str) -> None:
        def at(each: Result) -> tuple[float, float]:
            return _place(each, llm), harm(each, name, [mode])

        axis.axhspan(LOW, harm(slm, name, [mode]) + MARGIN, color=OURS["balanced"], alpha=0.1, lw=0)
        _frontier(axis, [at(each) for each in results])
        _systems(axis, results, at)
        axis.set_xscale("log")
        nearest = min(0.95, *(0.95 * at(each)[0] for each in results))  # a hedged rule may beat the LLM
        ticks = [tick for tick in TICKS if tick >= nearest]
        axis.set_xlim(nearest, FARTHEST * 1.05)
        axis.set_xticks(ticks, [*(f"{tick:g}×" for tick in ticks[:-1]), f"≥{FARTHEST:g}×"])
        axis.minorticks_off()
        axis.set_xlabel("perplexity over the LLM's")
        axis.set_ylabel("worst attack: share that succeeds")

    return drawn(name, draw, narrow)


def frontier(results: Sequence[Result], *, narrow: bool = False) -> str:
    """The SVG of knowledge kept against the worst of all harms: up is useful, left is safe."""
    slm = model(results, "slm")
    known = [each for each in results if not math.isnan(knowledge(each))]

    def draw(axis: Any, mode: str) -> None:
        def at(each: Result) -> tuple[float, float]:
            return worst(each, [mode]), min(knowledge(each, mode), 1.0)

        axis.axvspan(LOW, worst(slm, [mode]) + MARGIN, color=OURS["balanced"], alpha=0.1, lw=0)
        points = [at(each) for each in known]
        best = -math.inf
        steps = [(x, best := y) for x, y in sorted(points, key=lambda at: (at[0], -at[1])) if y > best]
        axis.step(*zip(*[*steps, (HIGH, best)], strict=True), where="post", color="#c9c5ba", lw=3, zorder=1)
        _systems(axis, known, at)
        axis.set_xlim(LOW, HIGH)
        axis.set_xticks(SHARES, SHARE_LABELS)
        axis.set_xlabel("worst attack of all harms: share that succeeds")
        axis.set_ylabel("kept of what only the LLM knows")

    return drawn("Harm and knowledge", draw, narrow)


def drawn(title: str, draw: Callable[[Any, str], None], narrow: bool) -> str:
    """An SVG of two panels, greedy and sampled, side by side or, `narrow`, one above the other."""
    require_extra("eval", "the report")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE | {"svg.hashsalt": f"purify {title} {narrow}"}):  # ids of two pictures differ
        figure = Figure(figsize=(4.4, 8.6) if narrow else (9.6, 4.1), layout="constrained")
        axes = figure.subplots(*((2, 1) if narrow else (1, 2)), sharex=True, sharey=True)
        for axis, mode in zip(axes, MODES, strict=True):
            draw(axis, mode)
            _frame(axis, mode)
        for axis in axes[1:]:
            axis.set_ylabel("")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        handles, labels = axes[0].get_legend_handles_labels()
        place: Any = (
            {"loc": "outside lower center", "ncols": 2} if narrow else {"loc": "outside right center"}
        )
        figure.legend(handles, labels, frameon=False, fontsize=8, **place)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return "<svg" + written.getvalue().split("<svg", 1)[1]


def _systems(axis: Any, results: Sequence[Result], at: At) -> None:
    """Both models alone and every policy, where `at` puts them."""
    for key, colour, label in (("llm", RED, "LLM alone"), ("slm", BLUE, "SLM alone")):
        x, y = at(model(results, key))
        axis.scatter(x, y, s=70, color=colour, marker="o", zorder=5, label=label)
    policies = dict.fromkeys(each.system.policy for each in results if not each.system.alone)
    for policy, style in _styles(policies):
        _policy(axis, [each for each in results if _of(each, policy)], at, style)


def _frame(axis: Any, mode: str) -> None:
    axis.set_title(mode, fontsize=10, color=GREY)
    axis.set_ylim(LOW, HIGH)
    axis.set_yticks(SHARES, SHARE_LABELS)
    axis.grid(axis="y", color="#ece9e1", zorder=0)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _frontier(axis: Any, points: Sequence[tuple[float, float]]) -> None:
    """The Pareto frontier: the least harm at each cost or less, as steps."""
    best = math.inf
    steps = [(x, best := y) for x, y in sorted(points) if y < best]
    axis.step(*zip(*steps, strict=True), where="post", color="#c9c5ba", lw=3, zorder=1)


def _styles(policies: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each policy's colour and marker."""
    for at, policy in enumerate(policies):
        ours = policy in OURS
        yield (
            policy,
            {
                "color": OURS.get(policy, OTHERS[at % len(OTHERS)]),
                "marker": SHAPES[at % len(SHAPES)],
                "label": policy,
                "lw": 2.2 if ours else 0.9,
                "ms": 7 if ours else 4.5,
                "zorder": 4 if ours else 3,
            },
        )


def style_of(result: Result, policies: Sequence[str], chains: Sequence[str]) -> dict[str, Any]:
    """A system's mark where chains of request stages are shown: its policy's colour, its chain's shape."""
    alone = {"llm": RED, "slm": BLUE}
    if result.system.alone:
        return {"color": alone[result.system.key], "marker": "o", "ms": 8}
    styles = dict(_styles(policies))[result.system.policy]
    shape = SHAPES[1 + chains.index(result.system.chain.name)] if result.system.chain else "o"
    return {
        "color": styles["color"],
        "marker": shape,
        "ms": 7,
        "markerfacecolor": "white" if shape == "o" else None,
    }


def _of(result: Result, policy: str) -> bool:
    return not result.system.alone and result.system.policy == policy


def _policy(axis: Any, results: Sequence[Result], at: At, style: Mapping[str, Any]) -> None:
    """A policy's settings on one line; the marker of its default is filled."""
    points = sorted((*at(each), each.system.swept) for each in results)
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], markerfacecolor="white", **style)
    for x, y, swept in points:
        if not swept:
            axis.plot([x], [y], **{**style, "label": None, "ms": style["ms"] * 1.3, "zorder": 6})


def _place(result: Result, llm: Result) -> float:
    ratio = perplexity(result) / perplexity(llm)
    return FARTHEST if math.isnan(ratio) else min(ratio, FARTHEST)
