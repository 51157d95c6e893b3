"""Write the figures of docs/real-models.md: `python docs/real_models.py`.

Makes the real pair in its cache directory if it is not there, and writes each region of the page from what
was measured.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer

from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.evaluation.eval.page import region
from purify_hooks.evaluation.testbed.real.cache import made
from purify_hooks.evaluation.testbed.real.report import tables

PAGE = Path(__file__).with_name("real-models.md")


def report(home: Path) -> str:
    """What the three models were found to have memorised, and their perplexities."""
    found = json.loads((home / "report.json").read_text("utf-8"))
    measured = "\n\n".join(table.markdown for table in tables(found))
    command = "`python -m purify_plugins.testbed --real --out pair`"
    return f"{command}, {'; '.join(facts().values())}:\n\n{measured}\n"


def main() -> None:
    """Write every region of the page anew."""
    home = made(lambda text: typer.echo(text, err=True))
    text = PAGE.read_text("utf-8")
    for name, write in {"real-report": report}.items():
        filled = write(home)
        text = region(name).sub(lambda found, filled=filled: f"{found[1]}{filled}{found[2]}", text)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    typer.run(main)
