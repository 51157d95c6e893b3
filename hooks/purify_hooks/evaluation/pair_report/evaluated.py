"""What `purify eval` wrote, read for a report: whose evaluation it is, its tables and its pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from purify_hooks.evaluation.eval.record import FORMAT, RECORD
from purify_hooks.evaluation.table import Table
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import decoded, read_bytes
from purify_plugins.utils.strict_json import loads
from purify_plugins.utils.wording import must_be

AGAIN = "make it with `purify eval --pair purify.toml`"
ACTIVE = re.compile(
    r"<\s*(?:script|foreignobject|iframe|image)|\son[a-z]+\s*=\s*[\"']|@import|(?:href\s*=|url\()(?!\s*[\"']?#)",
    re.IGNORECASE,
)
"""What no picture of ours has: a program, and whatever is fetched from elsewhere."""


class EvaluationPart(BaseModel):
    """Base of the record's parts: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedTable(EvaluationPart):
    """A table of an evaluation."""

    title: str
    columns: Annotated[list[str], Field(min_length=1)]
    rows: list[list[str]]
    note: str
    more: list[str]

    @property
    def table(self) -> Table:
        return Table(self.title, self.columns, self.rows, self.note, set(self.more))


class RecordedSystem(EvaluationPart):
    """A system that was measured; `worst` is the share of its worst attack that succeeds."""

    key: str
    label: str
    policy: str
    parameters: dict[str, Any]
    stages: str | None
    worst: float | None
    perplexity: float | None


class Evaluation(EvaluationPart):
    """The record of an evaluation; see `purify_hooks.evaluation.eval.record`."""

    format: Literal["purify-evaluation/1"]
    command: str
    conclusion: str
    quick: bool
    models: dict[str, str | None]
    systems: Annotated[list[RecordedSystem], Field(min_length=2)]
    tables: list[RecordedTable]
    pictures: dict[str, tuple[str, str]]
    facts: dict[str, str]
    sha256: str = ""
    """Of the file."""

    def system(self, key: str) -> RecordedSystem | None:
        """A model alone, by "llm" or "slm"."""
        return next((each for each in self.systems if each.key == key), None)

    def configured(self, policy: str, parameters: Mapping[str, Any]) -> RecordedSystem | None:
        """The policy with these options, if it was measured; the configuration's own row before others."""
        same = [each for each in self.systems if (each.policy, each.parameters) == (policy, dict(parameters))]
        plain = [each for each in same if each.key not in ("llm", "slm") and each.stages is None]
        return next((each for each in plain if each.key == "configured"), next(iter(plain), None))

    def require_of(self, digests: Mapping[str, str]) -> None:
        """Raise ConfigError for an evaluation of another pair; "": a model without files."""
        for side, digest in digests.items():
            if (self.models.get(side) or "") != digest:
                raise ConfigError(
                    f"the evaluation is of another {side.upper()} ({_named(self.models.get(side))}) than "
                    f"the configuration's ({_named(digest)}); {AGAIN}"
                )

    def as_json(self) -> dict[str, Any]:
        """As the report holds it: its figures and tables, without the pictures."""
        return self.model_dump(exclude={"format", "pictures"})


def _named(digest: str | None) -> str:
    return f"SHA-256 {digest[:16]}…" if digest else "no digest of its files"


def read_evaluation(place: Path) -> Evaluation:
    """The evaluation in a directory of `purify eval`, or in its `evaluation.json`. Raises ConfigError."""
    if place.is_dir() and not (place / RECORD).is_file():
        raise ConfigError(f"{str(place)!r} holds no {RECORD}; {AGAIN} --out {place}")
    file = place / RECORD if place.is_dir() else place
    content = read_bytes(file)
    try:
        found = loads(decoded(content, repr(str(file))))
        known = isinstance(found, dict) and found.get("format") == FORMAT
        if not known:
            raise ConfigError(f"{str(file)!r} is no {RECORD} of `purify eval` ({FORMAT}); {AGAIN}")
        read = Evaluation.model_validate(found).model_copy(
            update={"sha256": hashlib.sha256(content).hexdigest()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{str(file)!r}: {where} {must_be(first)}; {AGAIN}") from error
    except ValueError as error:
        raise ConfigError(f"{str(file)!r} is not valid JSON ({error}); {AGAIN}") from error
    _require_whole(read, file)
    return read


def _require_whole(read: Evaluation, file: Path) -> None:
    """Raise ConfigError for a table with rows of another length, and for a picture that is no plain SVG."""
    for table in read.tables:
        if any(len(row) != len(table.columns) for row in table.rows):
            raise ConfigError(
                f"{str(file)!r}: the table {table.title!r} has a row of another length; {AGAIN}"
            )
    for name, pictures in read.pictures.items():
        if any(ACTIVE.search(svg) or "<svg" not in svg for svg in pictures):
            raise ConfigError(f"{str(file)!r}: the picture {name!r} is no plain SVG; {AGAIN}")
