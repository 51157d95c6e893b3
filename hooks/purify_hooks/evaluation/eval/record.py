"""`evaluation.json`: all that an evaluation says, as data, for `purify report` to read without the models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.findings import perplexity, worst
from purify_hooks.evaluation.eval.page import command_line
from purify_hooks.evaluation.table import Table
from purify_plugins.canonical_json import options
from purify_plugins.certificates.calibration_record import digest_of
from purify_plugins.utils.files import write_whole

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.run import Result

RECORD, FORMAT = "evaluation.json", "purify-evaluation/1"


@dataclass(frozen=True)
class EvaluationRecord:
    """The conclusion, tables and pictures of an evaluation, and what it was of.

    `quick`: four items of a kind. `pictures` are an SVG for a broad page and one for a narrow one.
    """

    pair: ModelPair
    results: Sequence[Result]
    conclusion: str
    quick: bool
    tables: Iterable[Table]
    pictures: Mapping[str, tuple[str, str]]
    facts: Mapping[str, str]

    def json(self) -> dict[str, Any]:
        """The record, with both models' digests (None: no files), and each system's worst harm and cost."""
        models = {"llm": self.pair.llm, "slm": self.pair.slm}
        return {
            "format": FORMAT,
            "command": command_line("eval"),
            "conclusion": self.conclusion,
            "quick": self.quick,
            "models": {side: digest_of(source.identity()) or None for side, source in models.items()},
            "systems": [_system(self.pair, each) for each in self.results],
            "tables": [_table(table) for table in self.tables],
            "pictures": {name: list(both) for name, both in self.pictures.items()},
            "facts": dict(self.facts),
        }

    def write(self, folder: Path) -> None:
        """Write it into a directory."""
        write_whole(folder / RECORD, json.dumps(self.json(), indent=1, allow_nan=False) + "\n")


def _system(pair: ModelPair, result: Result) -> dict[str, Any]:
    """A system that was measured: its row's name, its policy with every option, its worst harm, its cost."""
    plugins, system = pair.plugins, result.system
    return {
        "key": system.key,
        "label": system.label,
        "policy": system.policy,
        "parameters": options(pair.policy(system), plugins.name_of),
        "stages": system.chain.name if system.chain else None,
        "worst": _finite(worst(result)),
        "perplexity": _finite(perplexity(result)),
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _table(table: Table) -> dict[str, Any]:
    rows = [list(row) for row in table.rows]
    head = {"title": table.title, "columns": list(table.columns), "rows": rows}
    return {**head, "note": table.note, "more": sorted(table.more)}
