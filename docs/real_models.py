"""Write the figures and pictures of docs/real-models.md: `python docs/real_models.py [--policies NAMES]`.

Makes the real pair in its cache directory if it is not there, calibrates `balanced` on it, evaluates it
beside the clean SLM and the weak one, and writes each region of the page from what was measured. Cells
that were measured once are read from the cache directory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from purify_hooks.evaluation.eval.command import measured_report, models_and_questions, planned
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.evaluation.eval.systems import System, systems_for
from purify_hooks.evaluation.testbed.real.cache import made
from purify_hooks.evaluation.testbed.real.report import tables
from purify_plugins.configuration.config import read_config
from purify_plugins.plugin.manager import load_plugins

DOCS = Path(__file__).parent
PAGE = DOCS / "real-models.md"
Names = tuple[str, ...]
SLMS = {"slm": "the clean SLM", "slm-weak": "the weak SLM"}


def report(home: Path) -> str:
    """What the three models were found to have memorised, and their perplexities."""
    found = json.loads((home / "report.json").read_text("utf-8"))
    measured = "\n\n".join(table.markdown for table in tables(found))
    command = "`python -m purify_plugins.testbed --real --out pair`"
    return f"{command}, {'; '.join(facts().values())}:\n\n{measured}\n"


def calibrated(home: Path, slm: str) -> tuple[System, Mapping[str, Any], str]:
    """`balanced` and the SLM's table as `purify calibrate` sets them, and what the command says."""
    file = home / f"calibrated-{slm}.toml"
    file.unlink(missing_ok=True)
    pair = ["--llm", str(home / "llm"), "--slm", str(home / slm), "--config", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "purify_plugins", "calibrate", *pair],
        capture_output=True,
        text=True,
        check=True,
    )
    config = read_config(file)
    named = {name: value for name, value in config.policy.items() if name != "name"}
    system = System("calibrated", "balanced, calibrated", "balanced", named, named=True)
    return system, config.slm, done.stdout.replace(str(home), "pair")


def evaluated(home: Path, slm: str, policies: Names, suites: Names, clock: str) -> str:
    """Every policy and the calibrated one beside one SLM: harms, knowledge kept, perplexity, time."""
    models, questions = models_and_questions(
        str(home / "llm"), str(home / slm), home / "attacks.json", batch=64
    )
    ours, table, words = calibrated(home, slm)
    models = models._replace(slm=dict(table))  # every policy beside the SLM that was calibrated
    systems = [*systems_for(load_plugins(models.plugins), policies, False), ours]
    plan = planned(models, questions, systems, quick=False, seed=0, only=suites)
    found = measured_report(plan, home / f"eval-{slm}", jobs=0, clock=clock)
    pictures = []
    for name, svg in found.pictures().items():
        file = f"real-{slm}-{name.lower().replace(' ', '-')}.svg"
        (DOCS / file).write_text(svg, "utf-8")
        pictures.append(f"![{name}: harm against perplexity, with {SLMS[slm]}]({file})")
    blocks = [
        f"`purify calibrate --llm pair/llm --slm pair/{slm}`:\n\n```text\n{words.rstrip()}\n```",
        f"`purify eval --pair pair/calibrated-{slm}.toml --attacks pair/attacks.json`: {found.conclusion()}",
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
        writers[f"real-{slm}"] = lambda slm=slm: evaluated(home, slm, only, chosen, clock)
    for name, write in writers.items():
        fill_region(PAGE, name, write())


if __name__ == "__main__":
    typer.run(main)
