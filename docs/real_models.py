"""Write the figures and pictures of docs/real-models.md: `python docs/real_models.py [--policies NAMES]`.

Makes the real pair in its cache directory if it is not there, calibrates `balanced` on it, evaluates it
beside the clean SLM and the weak one, and writes each region of the page from what was measured. Cells
that were measured once are read from the cache directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from frontier import PAGE, Names, bars, evaluated

from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.evaluation.testbed.real.cache import made
from purify_hooks.evaluation.testbed.real.report import tables

DOCS = Path(__file__).parent
SLMS = {"slm": "the clean SLM", "slm-weak": "the weak SLM"}
KEPT = {"slm": 0.95, "slm-weak": 0.90}
"""The share of the answers that only the LLM gets right which is to be kept beside each SLM."""


def report(home: Path) -> str:
    """What the three models were found to have memorised, and their perplexities."""
    found = json.loads((home / "report.json").read_text("utf-8"))
    measured = "\n\n".join(table.markdown for table in tables(found))
    command = "`python -m purify_plugins.testbed --real --out pair`"
    return f"{command}, {'; '.join(facts().values())}:\n\n{measured}\n"


def region(home: Path, slm: str, policies: Names, suites: Names, clock: str) -> str:
    """Every policy and the calibrated one beside one SLM: harms, knowledge kept, perplexity, time."""
    pair = str(home / "llm"), str(home / slm)
    found, words = evaluated(pair, home / "attacks.json", home / f"eval-{slm}", policies, suites, clock)
    pictures = []
    for name, svg in found.pictures().items():
        file = f"real-{slm}-{name.lower().replace(' ', '-')}.svg"
        (DOCS / file).write_text(svg, "utf-8")
        pictures.append(f"![{name}: harm against perplexity, with {SLMS[slm]}]({file})")
    told = "\n".join(map(str.rstrip, words.replace(str(home), "pair").splitlines()))
    blocks = [
        f"`purify calibrate --llm pair/llm --slm pair/{slm}`:\n\n```text\n{told}\n```",
        bars(found.results, KEPT[slm]).markdown,
        f"`purify eval --pair FILE --attacks pair/attacks.json`, with that file: {found.conclusion()}",
        *(table.markdown for table in found.tables().values()),
        *pictures,
        "\n".join(f"- {name}: {fact}" for name, fact in found.facts().items()),
    ]
    return "\n\n".join(blocks) + "\n"


def main(
    policies: Annotated[str, typer.Option(help="Policies to compare, with commas; all.")] = "all",
    slms: Annotated[str, typer.Option(help="SLMs to measure, with commas.")] = ",".join(SLMS),
    suites: Annotated[str, typer.Option(help="Measurements, with commas; all.")] = "all",
    speed: Annotated[bool, typer.Option(help="Measure speed too, which needs an idle machine.")] = True,
) -> None:
    """Write every region of the page anew."""
    clock = "cpu" if speed else ""
    home = made(lambda text: typer.echo(text, err=True))
    only, chosen = (() if names == "all" else tuple(names.split(",")) for names in (policies, suites))
    writers: dict[str, Callable[[], str]] = {"real-report": lambda: report(home)}
    for slm in slms.split(","):
        writers[f"real-{slm}"] = lambda slm=slm: region(home, slm, only, chosen, clock)
    for name, write in writers.items():
        fill_region(PAGE, name, write())


if __name__ == "__main__":
    typer.run(main)
