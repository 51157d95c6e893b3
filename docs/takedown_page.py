"""The tables and the picture that `python docs/takedown.py` writes into docs/takedown.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.statistics import Estimate, Metric, Sample, estimate

DOCS = Path(__file__).parent
PAGE, PICTURE = DOCS / "takedown.md", DOCS / "takedown.svg"
PLAIN = Metric("a mean over passages", scale="plain")
NAMES = {"LLM": "the LLM", "without": "**trained without them**"}


class Recital(NamedTuple):
    """For each passage: recall, ROUGE-L, and ROUGE-L beside the other passages' texts, which is chance."""

    recall: Sequence[float]
    rouge: Sequence[float]
    chance: Sequence[float]


class Swept(NamedTuple):
    """A form's figures: perplexities are of clean text, and of the book's other half as multiples."""

    name: str
    named: Recital | None
    others: Recital | None
    clean: float
    book: float
    ratio: float = 1.0


def mean(values: Sequence[float]) -> Estimate:
    """The mean over passages, and its 95 % bootstrap interval."""
    return estimate(PLAIN, [Sample(each) for each in values])


def interval(values: Sequence[float]) -> str:
    found = mean(values)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def apart(one: Sequence[float], other: Sequence[float]) -> str:
    """The mean difference, passage by passage, and its interval."""
    found = mean([a - b for a, b in zip(one, other, strict=True)])
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    made = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return re.sub(r"nan \(nan ×\)|nan ×|nan", "–", made)


def label(name: str) -> str:
    default = name.startswith("linear")
    return NAMES.get(name, f"**{name}** (default)" if default else name)


def write(name: str, body: str) -> None:
    fill_region(PAGE, name, f"\n{body}\n\n")


def sweep(rows: Sequence[Swept], unread: Recital | None) -> str:
    """The table of forms, how the default stands to the LLM trained without, and the picture."""
    head = ["", "named: recall", "ROUGE-L", "by chance", "others: recall", "ROUGE-L"]
    head += ["clean perplexity", "the book's other half"]
    known = [row for row in rows if row.named and row.others]
    made = table(head, [swept(row, row.named, row.others) for row in known if row.named and row.others])
    picture(known)
    found = {row.name: row.named for row in known if row.named}
    said = [made, *levels(found), *([beside(unread)] if unread else [])]
    return "\n\n".join([*said, f"![Named passages' ROUGE-L and its chance]({PICTURE.name})"])


def swept(row: Swept, named: Recital, others: Recital) -> list[str]:
    cells = [f"{fmean(named.recall):.3f}", interval(named.rouge), f"{fmean(named.chance):.3f}"]
    cells += [f"{fmean(others.recall):.3f}", f"{fmean(others.rouge):.3f}"]
    return [label(row.name), *cells, f"{row.clean:.2f} ({row.ratio:.3f} ×)", f"{row.book:.3f} ×"]


def levels(found: Mapping[str, Recital]) -> list[str]:
    """How the default's named passages stand to those of the LLM trained without, with intervals."""
    default = next((each for name, each in found.items() if name.startswith("linear")), None)
    without = found.get("without")
    if default is None or without is None:
        return []
    recall, rouge = apart(default.recall, without.recall), apart(default.rouge, without.rouge)
    chance, theirs = apart(default.rouge, default.chance), apart(without.rouge, without.chance)
    return [
        "The default less the LLM trained without, passage by passage, with 95 % intervals (bootstrap over "
        f"passages): recall {recall}, ROUGE-L {rouge}. ROUGE-L less chance: the default {chance}, trained "
        f"without {theirs}."
    ]


def beside(unread: Recital) -> str:
    return (
        "On ten passages of another book, which it never read, the LLM itself has a recall of "
        f"{fmean(unread.recall):.3f} and a ROUGE-L of {interval(unread.rouge)}, by chance "
        f"{fmean(unread.chance):.3f}."
    )


def picture(rows: Sequence[Swept]) -> None:
    """Named passages' ROUGE-L with its interval and chance, and the other passages'; a line for each form."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "takedown"}):
        figure = Figure(figsize=(7.5, 0.34 * len(rows) + 1.2))
        axis = figure.subplots()
        for at, row in enumerate(rows):
            assert row.named
            assert row.others
            named = mean(row.named.rouge)
            axis.plot([named.low, named.high], [at, at], color="C0", linewidth=2)
            axis.plot(named.value, at, "o", color="C0", zorder=3, label=None if at else "named")
            axis.plot(
                fmean(row.named.chance), at, "|", color="black", markersize=12, label=None if at else "chance"
            )
            axis.plot(fmean(row.others.rouge), at, "s", color="C1", label=None if at else "others")
        axis.set_yticks(range(len(rows)), [label(row.name).replace("*", "") for row in rows], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.03)
        axis.set_xlabel("ROUGE-L (named: less is better, 95 % interval; others: more is better)")
        axis.grid(alpha=0.3, axis="x")
        axis.legend(loc="lower center", fontsize=8)
        figure.savefig(PICTURE, format="svg", metadata={"Date": None}, bbox_inches="tight")


def cell(found: Recital | None) -> str:
    if found is None:
        return "–"
    return f"{fmean(found.recall):.2f} / {fmean(found.rouge):.2f} ({fmean(found.chance):.2f})"


Rows = Sequence[tuple[str, str, str, list[Recital | None]]]


def attacked(tried: Sequence[str], rows: Rows) -> str:
    """The table of attacks: recall / ROUGE-L (chance)."""
    made = []
    for name, policy, mode, cells in rows:
        if any(cells):
            under = "" if policy == "LLM alone" else f"{policy}, "
            made.append([f"{label(name)}, {under}{mode}", *map(cell, cells)])
    return table(["", *tried, "others, single"], made)


def costs(found: Mapping[str, Any] | None) -> str:
    """The CPU time of a token by itself and with the list."""
    if not found or not found["cost, clean"]:
        return "Not measured yet."
    head = ["text", "the LLM alone, µs a token", "with the list, µs", "ratio, median of turns"]
    rows = [
        [kind, f"{each['alone']:.0f}", f"{each['with']:.0f}", f"{each['ratio']:.3f}"]
        for kind in ("clean", "recited")
        if (each := found[f"cost, {kind}"])
    ]
    made = table(head, rows)
    if found["rows changed"] is not None:
        made += f"\n\nOf the rows along clean text {found['rows changed']:.2%} were changed."
    return made


def real(rows: Rows, clean: Mapping[str, float], told: str) -> str:
    """The table of the real pair, and what the list costs there."""
    names = {"without": "**the clean original**", "LLM": "the LLM"}
    made = []
    for name, policy, mode, (named, others) in rows:
        if named or others:
            under = "" if policy == "LLM alone" else f"{policy}, "
            seen = interval(named.rouge) if named else "–"
            recall = f"{fmean(named.recall):.3f}" if named else "–"
            chance = f"{fmean(named.chance):.3f}" if named else "–"
            shown = names.get(name, label(name))
            made.append([f"{shown}, {under}{mode}", recall, seen, chance, cell(others).split(" (")[0]])
    head = ["", "named: recall", "ROUGE-L", "by chance", "others: recall / ROUGE-L"]
    ratios = [
        f"{names.get(name, label(name))} {each:.2f} ({each / clean['LLM']:.3f} ×)"
        for name, each in clean.items()
    ]
    greedy = {
        name: cells[0]
        for name, policy, mode, cells in rows
        if policy == "LLM alone" and mode == "greedy" and cells[0]
    }
    return "\n\n".join([table(head, made), *levels(greedy), f"Clean perplexity: {', '.join(ratios)}.", told])
