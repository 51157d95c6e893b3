"""The command `purify-verify`, also `python -m purify_verify`."""

from __future__ import annotations

import sys

from purify_plugins.verifying.shelf import Shelf

from purify_plugins.verifying.command import main


def run() -> None:
    """Run the command line."""
    sys.exit(main(Shelf()))


if __name__ == "__main__":
    run()
