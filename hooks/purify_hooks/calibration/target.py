"""Where a calibration goes: into purify.toml, whose other lines stay, or to standard output."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from purify_hooks.calibration.toml_file import TomlTable, rewritten
from purify_hooks.calibration.words import COPYING, FIELDS, meaning
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
            *meaning(found.calibration, found.sample.name, found.copying),
        ]
        text = self._rewritten([
            *self._slm(found.copying),
            TomlTable("policy", found.policy, about, FIELDS),
            TomlTable("calibration", found.table),
        ])  # fmt: skip
        if self.place:
            write_whole(self.place, text)
        else:
            typer.echo(text, nl=False)

    def _slm(self, copying: bool) -> list[TomlTable]:
        """The SLM's table as it is to be; none where it is so already."""
        there = self.place is not None and self.place.exists()
        table = self._written() if there else self.config.slm
        wanted = copied(table) if copying else alone(table)
        return [] if wanted == table else [TomlTable("slm", wanted, [f"Read {COPYING}."] if copying else [])]

    def _written(self) -> Mapping[str, Any]:
        """The file's own [slm], its directories as they are spelled there."""
        table = tomllib.loads(read_text(self.place)) if self.place else {}
        slm: Mapping[str, Any] = (table["tool"]["purify"] if self._prefix else table)["slm"]
        return slm

    @property
    def _prefix(self) -> str:
        """What stands before a table's name."""
        return "tool.purify." if self.place and self.place.name == "pyproject.toml" else ""

    def _rewritten(self, blocks: Sequence[TomlTable]) -> str:
        """The file's text with these tables."""
        place = self.place
        if place and place.exists():
            with placed(f"{place}:"):
                return rewritten(read_text(place), blocks, self._prefix)
        models = [TomlTable("llm", self.config.llm), TomlTable("slm", self.config.slm)]
        return rewritten("", [*models, *blocks] if place else blocks)


def copied(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """An SLM's table beside a copyist."""
    if table.get("source") == "copying":
        return table
    return {"source": "copying", "model": table["model"] if table.keys() == {"model"} else {**table}}


def alone(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """An SLM's table without the copyist."""
    if table.get("source") != "copying":
        return table
    model = table["model"]
    return {**model} if isinstance(model, Mapping) else {"model": model}
