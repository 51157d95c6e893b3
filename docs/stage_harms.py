"""What a guardian stops on the test bed's poisoned LLM: `python docs/stage_harms.py [--out DIR]`.

Measures the chains of docs/examples/stages around the LLM alone (`geometric` with all weight on it), and the
word list around `balanced`; writes the table and its picture into docs/stages.md. DIR keeps what is measured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from purify_hooks.evaluation.eval import staged
from purify_hooks.evaluation.eval.asked import models_and_questions
from purify_hooks.evaluation.eval.chains import chains
from purify_hooks.evaluation.eval.command import measured_report, planned
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.systems import systems_for, with_chains
from purify_plugins.plugin.manager import load_plugins

DOCS = Path(__file__).parent
PAGE, PICTURE = DOCS / "stages.md", DOCS / "stages-harms.svg"
FILES = [DOCS / "examples" / "stages" / f"{name}.toml" for name in ("words", "words-and-odds")]
POLICIES = ("geometric:alpha=1", "balanced")
PUBLIC = "these-figures-are-public-and-so-is-this-key"
SUITE, DRAWS = "requests", 1


def command(secret: str) -> str:
    """The command that measures the same, and `balanced` in the other chain."""
    files = " ".join(f"--stages {file.relative_to(DOCS.parent)}" for file in FILES)
    return (
        f"PURIFY_SECRET={secret} purify eval --policies {','.join(POLICIES)} --suites {SUITE} "
        f"--draws {DRAWS} --clock cpu {files}"
    )


def main(
    out: Annotated[Path, typer.Option(help="The directory of what is measured.")] = Path("purify-eval"),
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 1,
    so_far: Annotated[bool, typer.Option("--so-far", help="Only what is finished.")] = False,
) -> None:
    """Write the region of the page anew."""
    os.environ.setdefault("PURIFY_SECRET", PUBLIC)
    models, questions = models_and_questions(None, None, None, batch=64)
    loaded = load_plugins(models.plugins)
    llm, slm, unguarded, balanced = systems_for(loaded, POLICIES)
    words, odds = chains(FILES, loaded)
    around = with_chains([unguarded], [words, odds]), with_chains([balanced], [words])
    systems = [llm, slm, *around[0], *around[1]]
    plan = planned(models, questions, systems, False, 0, DRAWS, (SUITE,))
    found = measured_report(plan, out, jobs, so_far, "cpu")
    facts = "\n".join(f"- {name}: {fact}" for name, fact in found.facts().items())
    blocks = [
        f"```sh\n{command(os.environ['PURIFY_SECRET'])}\n```",
        staged.sentence(found.results),
        staged.table(found.results).markdown,
        f"![Request stages: the worst attack against clean prompts refused]({PICTURE.name})",
        facts,
    ]
    PICTURE.write_text(staged.picture(found.results), "utf-8")
    body = "\n\n".join(blocks)
    fill_region(PAGE, "stage-harms", f"\n{body}\n\n")


if __name__ == "__main__":
    typer.run(main)
