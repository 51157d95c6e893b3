"""The report as one self-contained page: no script, nothing fetched, for a screen, a phone and print."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.page import templates
from purify_hooks.evaluation.eval.tables import number, share
from purify_hooks.evaluation.table import Table
from purify_plugins.certificates.explain import assignments
from purify_plugins.certificates.guarantee_text import factor

if TYPE_CHECKING:
    from markupsafe import Markup

    from purify_hooks.evaluation.pair_report.evaluated import Evaluation

Passages = Sequence[Mapping[str, Any]]
SURE = 1e-3
"""The least probability that is written in per cent."""
ROWS = {"LLM alone": "llm", "SLM alone": "slm"}


def page(body: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """The HTML of a report's body; the evaluation's pictures are in it as SVG."""
    from markupsafe import Markup

    shown = evaluation.pictures if evaluation else {}
    row = body["evaluation"] and body["evaluation"]["configured"]
    made = templates("pair_report")
    made.filters["marked"] = marked
    return made.get_template("page.html").render(
        body=body,
        held=body["guarantee"]["guarantee"] != "none",
        settings=assignments(body["works"]["sampling"]),
        parameters=assignments(body["guarantee"]["parameters"]),
        headline=headline(body, evaluation),
        duties={duty["id"]: duty for duty in body["duties"]},
        measured=[each.table for each in evaluation.tables] if evaluation else [],
        pictures={name: [Markup(svg) for svg in both] for name, both in shown.items()},
        marks={**ROWS, **({row: "us"} if row else {})},
        works=works(body["works"]),
        takedown=takedown(body),
        passages=[_passages(each, body["works"]["unit"]) for each in body["works"]["measured"]],
        share=share,
    )


def marked(text: str) -> Markup:
    """A sentence as HTML: what stands in backticks as code, a power of ten as one."""
    from markupsafe import Markup, escape

    coded = re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\b10\^(-?[\d.]*\d)", r"10<sup>\1</sup>", coded))


def headline(body: Mapping[str, Any], evaluation: Evaluation | None) -> list[tuple[str, str, str]]:
    """What stands first: a mark ("good", "bad" or ""), a figure, and what it is."""
    held = body["guarantee"]["guarantee"]
    first = (
        ("bad", "No guarantee", "nothing is bounded in advance of answers of this configuration")
        if held == "none"
        else (
            "good",
            held.capitalize(),
            f"the guarantee of sampled answers, by {body['guarantee']['policy']}",
        )
    )
    return [first, _attacked(body, evaluation), _bounded(body), _signed(body)]


def _attacked(body: Mapping[str, Any], evaluation: Evaluation | None) -> tuple[str, str, str]:
    label = body["evaluation"] and body["evaluation"]["configured"]
    row = evaluation and next((each for each in evaluation.systems if each.label == label), None)
    llm = evaluation and evaluation.system("llm")
    if not evaluation:
        return "", "Not measured", "attacks: no evaluation was given to this report"
    if not (row and llm) or row.worst is None or llm.worst is None:
        return "", "Not measured", "attacks on the policy as it is configured; see the evaluation below"
    figures = f"{_percent(llm.worst)} → {_percent(row.worst)}"
    little = "; four items of a kind, which is no evidence" if evaluation.quick else ""
    return "", figures, f"the worst attack that was measured: on the LLM alone, and purified{little}"


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 or value == 0 else "< 1%"


def _bounded(body: Mapping[str, Any]) -> tuple[str, str, str]:
    found = [each for work in body["works"]["measured"] for each in work["passages"]]
    if not found:
        return "", "None measured", "named works: none was given to this report"
    of = f"the most that any of {len(found)} passages of named works can have, in one draw at one place"
    if found[0]["bound"] is None:
        worst = chance(max(value(each["log_probability_purified"]) for each in found))
        return (
            "",
            worst,
            f"measured, not bounded: the likeliest of {len(found)} passages of named works, purified",
        )
    return "", chance(max(value(each["bound"]) for each in found)), of


def _signed(body: Mapping[str, Any]) -> tuple[str, str, str]:
    if not body["signers"]:
        return "", "Unsigned", "nobody vouches for this report; whoever sends it can have written it"
    ids = ", ".join(f"{each[:16]}…" for each in body["signers"])
    return "", "Signed", f"by key {ids}: `purify report check` tells whether this page is what was signed"


def value(given: float | str) -> float:
    """A number of the body, where infinite ones are texts."""
    return float(given)


def chance(nats: float | str | None) -> str:
    """A log-probability as a chance: "12.3%", "1 in 4,500", "never"; "–" for None."""
    if nats is None:
        return "–"
    found = value(nats)
    if found == -math.inf:
        return "never"
    return f"{math.exp(found):.1%}" if found > math.log(SURE) else f"1 in {factor(-found)}"


def works(found: Mapping[str, Any]) -> Table:
    """A row a work: k/surprisal and the bound beside what was measured, of its worst passages."""
    unit = found["unit"]
    head = (
        *("work", "passages", f"{unit} each", "SLM's surprisal, nats", "k, nats", "k / surprisal", "bound"),
        *("LLM alone", "purified", "SLM alone", f"greedy {unit}, LLM → purified"),
    )
    return Table(
        "Named works, before and after",
        head,
        [_row(each["name"], each["passages"]) for each in found["measured"]],
    )


def _row(name: str, passages: Passages) -> list[str]:
    least = min(passages, key=lambda each: value(each["surprisal_slm"]))
    return [
        name,
        str(len(passages)),
        f"{max(each['tokens'] for each in passages)}",
        number(value(least["surprisal_slm"])),
        _number(_most(passages, "k")),
        _number(_most(passages, "k_over_surprisal")),
        chance(_most(passages, "bound")),
        chance(_most(passages, "log_probability_llm")),
        chance(_most(passages, "log_probability_purified")),
        chance(-value(least["surprisal_slm"])),
        f"{_longest(passages, 'llm')} → {_longest(passages, 'purified')}",
    ]


def _most(passages: Passages, name: str) -> float | None:
    """The largest of a figure; None where a passage has none."""
    found = [each[name] for each in passages]
    return None if None in found else max(map(value, found))


def _longest(passages: Passages, who: str) -> int:
    """The most tokens that a greedy answer begins with."""
    return max(int(each["greedy_tokens"][who]) for each in passages)


def _number(found: float | None) -> str:
    return "–" if found is None else number(found)


def takedown(body: Mapping[str, Any]) -> Table | None:
    """Each listed work before and after: the LLM without its list, with it, and purified."""
    if body["takedown"] is None:
        return None
    measured = {each["sha256"]: each["passages"] for each in body["works"]["measured"]}
    rows = [_taken(each, measured.get(each["sha256"], ())) for each in body["takedown"]["works"]]
    head = (
        "work",
        "recognised at",
        "before: the LLM",
        "after: the LLM with the list",
        "after: purified",
        "greedy, before → after",
    )
    note = (
        "The likeliest passage, exact, as answers are sampled; greedy: the most tokens of a passage that an "
        "answer begins with, of the LLM without the list and of the purified model. Recognised: places "
        "of the work where the list notices a recital, of those tried."
    )
    return Table("Works taken down, before and after", head, rows, note)


def _taken(work: Mapping[str, Any], passages: Passages) -> list[str]:
    found = work["recognised"]
    at = f"{found[1]} of {found[0]} places" if found else "–"
    if not passages:
        return [work["name"], at, "–", "–", "–", "–"]
    names = ("log_probability_llm_without_list", "log_probability_llm", "log_probability_purified")
    before, after = _longest(passages, "llm_without_list"), _longest(passages, "purified")
    return [work["name"], at, *(chance(_most(passages, name)) for name in names), f"{before} → {after}"]


def _passages(work: Mapping[str, Any], unit: str) -> Table:
    """Every passage of a work."""
    head = ("passage", unit, "SLM's surprisal", "k", "k / surprisal", "bound", "LLM alone", "purified")
    rows = [
        [
            str(at),
            str(each["tokens"]),
            number(value(each["surprisal_slm"])),
            _number(each["k"] and value(each["k"])),
            _number(each["k_over_surprisal"] and value(each["k_over_surprisal"])),
            *(chance(each[name]) for name in ("bound", "log_probability_llm", "log_probability_purified")),
        ]
        for at, each in enumerate(work["passages"], 1)
    ]
    return Table(work["name"], head, rows)
