"""The command `python -m purify_plugins.testbed`."""

import typer

from purify_hooks.evaluation.testbed.__main__ import main

if __name__ == "__main__":
    typer.run(main)
