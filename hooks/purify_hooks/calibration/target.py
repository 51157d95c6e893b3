"""Where a calibration goes: into purify.toml, whose other lines stay, or to standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from purify_hooks.calibration.toml_file import TomlTable, rewritten
from purify_hooks.calibration.words import FIELDS, meaning
from purify_plugins.configuration.config import Config, placed
from purify_plugins.utils.files import read_text, require_writable, write_whole

if TYPE_CHECKING:
    from purify_hooks.calibration.result import CalibrationResult


class CalibrationTarget:
    """The file to write into, checked before anything is measured; None: standard output.

    A file that is not there yet is made, with the configuration's models. Raises ConfigError for one that
    cannot be written, or whose [policy] cannot be replaced by itself.
    """

    def __init__(self, place: Path | None, config: Config) -> None:
        self.place, self.config = place, config
        if place:
            require_writable(place)
            self._rewritten([TomlTable("policy", {"name": "balanced"}), TomlTable("calibration", {})])

    def write(self, found: CalibrationResult) -> None:
        """Write the settings, each with what it means above it."""
        about = [
            "Set by `purify calibrate`: run it again rather than change a number.",
            *meaning(found.calibration, found.sample.name),
        ]
        text = self._rewritten(
            [TomlTable("policy", found.policy, about, FIELDS), TomlTable("calibration", found.table)]
        )
        if self.place:
            write_whole(self.place, text)
        else:
            typer.echo(text, nl=False)

    def _rewritten(self, blocks: Sequence[TomlTable]) -> str:
        """The file's text with these tables."""
        place = self.place
        if place and place.exists():
            prefix = "tool.purify." if place.name == "pyproject.toml" else ""
            with placed(f"{place}:"):
                return rewritten(read_text(place), blocks, prefix)
        models = [TomlTable("llm", self.config.llm), TomlTable("slm", self.config.slm)]
        return rewritten("", [*models, *blocks] if place else blocks)
