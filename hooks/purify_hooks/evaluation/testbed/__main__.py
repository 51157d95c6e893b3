"""The command `python -m purify_plugins.testbed`: train a pair like the packaged one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from purify_hooks.evaluation.table import put
from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.evaluation.testbed.real.recipe import COST, RealRecipe
from purify_hooks.evaluation.testbed.train import Recipe, train, train_apart, train_without
from purify_hooks.progress import shown_progress, stage_lines
from purify_plugins.errors import ConfigError, PurifyError


def main(
    out: Annotated[Path, typer.Option(help="For llm/, slm/ and attacks.json; finished stages are kept.")],
    seed: Annotated[int, typer.Option(help="Chooses passages, canaries, prompts and first weights.")] = 1,
    corpus: Annotated[Path, typer.Option(help="The books: llm/, slm/, heldout/ and protected/.")] = CORPUS,
    scale: Annotated[
        float, typer.Option(min=1e-4, max=1, help="Train on this share of the documents, to try things out.")
    ] = 1.0,
    apart: Annotated[
        bool, typer.Option("--apart", help="Train only an SLM with a tokenizer of its own: five minutes.")
    ] = False,
    without: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="Train only an LLM that never reads the packaged one's first passages, this many: its two "
            "phases, 25 minutes.",
        ),
    ] = 0,
    real: Annotated[
        bool, typer.Option("--real", help=f"A contaminated twin of SmolLM2-135M-Instruct instead: {COST}.")
    ] = False,
) -> None:
    """Train a contaminated LLM and a clean SLM: half an hour on one free core."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one set of bars is enough
    console = Console(stderr=True)
    try:
        if real:
            refused = {"--scale": scale != 1, "--apart": apart, "--without": without > 0}
            _make_real(RealRecipe(out, corpus, seed), refused)
        else:
            stages = train_without if without else train_apart if apart else train
            with shown_progress(stage_lines, "reading books") as progress:
                stages(Recipe(out, corpus, seed, scale, without), progress)
    except PurifyError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    print(out)


def _make_real(recipe: RealRecipe, refused: dict[str, bool]) -> None:
    """Make the real pair, then print what came of it. Raises ConfigError for options it does not have."""
    from purify_hooks.evaluation.testbed.real import report
    from purify_hooks.evaluation.testbed.real.stages import make

    for option in (name for name, given in refused.items() if given):
        raise ConfigError(f"--real has one size; leave {option} out")
    console = Console()
    with shown_progress(stage_lines) as progress:
        found = make(recipe, progress)
    for table in report.tables(found):
        put(console, table)


if __name__ == "__main__":
    typer.run(main)
