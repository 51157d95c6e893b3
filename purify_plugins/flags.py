"""Options that commands of every kind have; these need not import the command line they are part of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration; default purify.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, nothing else.")]
