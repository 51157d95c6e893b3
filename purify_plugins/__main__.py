"""The command `purify`, also `python -m purify_plugins`; `run` starts without the others' imports."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["run"]:
        from purify_plugins.running.launch import run

        raise SystemExit(run(sys.argv[2:]))
    from purify_plugins.cli import main as others

    others()


if __name__ == "__main__":
    main()
