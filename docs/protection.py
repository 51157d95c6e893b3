"""What the stages against leaks and copies do: `python docs/protection.py [--models DIR] [--out DIR]`.

Writes the files that the stages read (the works, their index, the targets) from the questions of the pair,
measures each stage around the LLM alone and around `balanced` by `purify eval`'s suites, and writes tables
and pictures into docs/evaluation.md. DIR of `--models` holds llm/, slm/ and attacks.json, as
`python -m purify_plugins.testbed --real` makes them; without it the test bed is asked. A killed run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from purify_hooks.evaluation.eval import protection
from purify_hooks.evaluation.eval.asked import models_and_questions
from purify_hooks.evaluation.eval.chains import chains
from purify_hooks.evaluation.eval.command import measured_report, planned
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.questions import Questions
from purify_hooks.evaluation.eval.report import Report, picture_file
from purify_hooks.evaluation.eval.systems import systems_for, with_chains
from purify_hooks.protected.build import IndexOptions, build
from purify_plugins.plugin.manager import load_plugins

DOCS = Path(__file__).parent
PAGE = DOCS / "evaluation.md"
SUITES = ("private", "context", "copying", "forgetting", "grounding")
POLICIES = ("geometric:alpha=1", "balanced")
PUBLIC = "these-figures-are-public-and-so-is-this-key"
STAGES = {
    "gatekeeper": 'name = "gatekeeper"',
    "redacted": 'name = "redacted"',
    "copycheck": 'name = "copycheck"\nindex = "works.prints"',
    "forget": 'name = "forget"\ntargets = "targets.txt"',
    "grounded": 'name = "grounded"',
}


def written(questions: Questions, folder: Path) -> list[Path]:
    """What the stages read, and a file for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    assert questions.protected
    assert questions.canaries
    works = folder / "works"
    works.mkdir(exist_ok=True)
    for at, each in enumerate(questions.protected.passages):
        (works / f"{at}.txt").write_text(each.prefix + each.continuation, "utf-8")
    build(IndexOptions([works], folder / "works.prints"), lambda *_: None)
    targets = [f"{each.secret}\n  {each.prompt}\n" for each in questions.canaries.items]
    (folder / "targets.txt").write_text("".join(targets), "utf-8")
    for name, table in STAGES.items():
        (folder / f"{name}.toml").write_text(f"[[stage]]\n{table}\n", "utf-8")
    return [folder / f"{name}.toml" for name in STAGES]


def region_text(found: Report, pictures: Iterable[str]) -> str:
    """Tables, the pictures' references and the facts."""
    tables = [each.markdown for each in protection.tables(found.results, found.suites)]
    shown = [f"![{title}]({picture_file(title)})" for title in pictures]
    facts = "\n".join(f"- {name}: {fact}" for name, fact in found.facts().items())
    return "\n\n".join([*tables, *shown, facts])


def main(
    models: Annotated[Path | None, typer.Option(help="The directory of the pair and its attacks.")] = None,
    out: Annotated[Path, typer.Option(help="The directory of what is measured.")] = Path("purify-protection"),
    suites: Annotated[str, typer.Option(help="Suites with commas between them.")] = ",".join(SUITES),
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Four items of a kind.")] = False,
    so_far: Annotated[bool, typer.Option("--so-far", help="Only what is finished.")] = False,
    write: Annotated[bool, typer.Option(help="Write docs/evaluation.md.")] = True,
) -> None:
    """Measure, and write the region of the page anew."""
    os.environ.setdefault("PURIFY_SECRET", PUBLIC)
    pair = (str(models / "llm"), str(models / "slm"), models / "attacks.json") if models else (None,) * 3
    named, questions = models_and_questions(*pair, batch=64)
    loaded = load_plugins(named.plugins)
    around = chains(written(questions, out / "stages"), loaded)
    systems = with_chains(systems_for(loaded, POLICIES), around)
    plan = planned(named, questions, systems, quick, 0, 1, tuple(suites.split(",")))
    found = measured_report(plan, out, jobs, so_far)
    typer.echo(found.write(out))
    if not write:
        return
    pictures = protection.pictures(found.results, found.suites)
    for title, picture in pictures.items():
        (DOCS / picture_file(title)).write_text(picture, "utf-8")
    body = region_text(found, pictures)
    fill_region(PAGE, "protection", f"\n{body}\n\n")


if __name__ == "__main__":
    typer.run(main)
