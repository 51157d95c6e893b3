"""Measure a pair on a sample, and find the settings that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from purify_hooks.calibration.measure import ScoredPassage
    from purify_hooks.calibration.sample import TextSample
    from purify_hooks.policies.calibration import Calibration
    from purify_plugins.certificates.calibration_record import CalibrationRecord
    from purify_plugins.configuration.build import Prepared

CHARACTERS = 24_000
"""Characters of text that are read at most: about 7,000 tokens."""


@dataclass(frozen=True)
class CalibrationResult:
    """What was measured, the settings that follow, and the record of both.

    `copying`: whether the SLM is to be read beside a copyist of its prompt, as the scores are then.
    """

    sample: TextSample
    passages: list[ScoredPassage]
    calibration: Calibration
    options: Mapping[str, Any]
    record: CalibrationRecord
    copying: bool

    @property
    def policy(self) -> dict[str, Any]:
        """The [policy] table."""
        return {"name": "balanced", **self.options}

    @property
    def table(self) -> dict[str, Any]:
        """The [calibration] table."""
        from purify_plugins.certificates.calibration_record import settings_digest

        return {**self.record.as_json(), "settings": settings_digest(self.policy)}

    def as_json(self) -> dict[str, Any]:
        told = {"policy": self.policy, "calibration": self.table, "enough": self.calibration.enough}
        return {**told, "copying": self.copying}

    def show(self, place: Path | None, error: bool = False) -> None:
        """Print what was found; where the settings were printed too, or with `error`, on standard error."""
        from rich.console import Console

        from purify_hooks.calibration.words import meaning, settings_table, text_table
        from purify_hooks.evaluation.table import put

        console = Console(stderr=error or place is None)
        for table in (text_table(self.passages), settings_table(self.options)):
            put(console, table)
        for sentence in meaning(self.calibration, self.sample.name, self.copying):
            console.print(sentence, markup=False, highlight=False)
        if place:
            console.print(
                f"written into {place}; `purify check` says what runs", markup=False, highlight=False
            )


def measured(ready: Prepared, sample: TextSample) -> CalibrationResult:
    """Read both models, then the text with each, and find the settings."""
    from purify_hooks.calibration.measure import left_out, score_texts
    from purify_hooks.copying.source import CopyingSource, without_copyist
    from purify_hooks.policies.calibration import ScoredText
    from purify_hooks.policies.calibration import calibrate as settings_for
    from purify_hooks.progress import shown_progress
    from purify_plugins.canonical_json import options
    from purify_plugins.configuration.build import source
    from purify_plugins.tokenizers.vocabulary_map import align

    typer.echo("reading both models, then the text with each; Ctrl-C changes nothing", err=True)
    llm, slm = (source(ready.plugins, table) for table in (ready.config.llm, ready.config.slm))
    alone = without_copyist(slm)
    alignment = ready.config.alignment
    aligned, _ = align(llm, alone, alignment, ready.config.fidelity)  # what raises does before the reading
    tells_code = alignment == "auto" and not aligned.symbolic
    cut = sample.within(llm.context_length, slm.context_length).cut(CHARACTERS)
    with shown_progress() as progress:
        passages = score_texts(llm, alone, cut, progress)
    if told := left_out(len(cut.passages), len(passages)):
        typer.echo(f"warning: {told}", err=True)
    copying = alone.capabilities is None and predicts_better_copying(passages)
    if copying:
        slm, passages = CopyingSource(alone), [each._replace(slm=each.copied) for each in passages]
    else:
        slm = alone
    found = settings_for(
        [ScoredText(each.llm, each.slm, each.signs if tells_code else None) for each in passages]
    )
    written = options(found.policy, ready.plugins.name_of)
    record = _record(cut, found, llm.identity(), slm.identity())
    return CalibrationResult(cut, passages, found, written, record, copying)


def predicts_better_copying(passages: Sequence[ScoredPassage]) -> bool:
    """Whether the SLM finds these texts likelier beside a copyist than alone."""
    return sum(float(each.copied.sum()) for each in passages) > sum(
        float(each.slm.sum()) for each in passages
    )


def _record(
    sample: TextSample, found: Calibration, llm: Mapping[str, Any], slm: Mapping[str, Any]
) -> CalibrationRecord:
    from purify_plugins._version import __version__
    from purify_plugins.certificates.calibration_record import CalibrationRecord, digest_of

    return CalibrationRecord(
        sample=sample.name,
        text=sample.digest,
        tokens=found.tokens,
        llm=digest_of(llm),
        slm=digest_of(slm),
        llm_perplexity=round(math.exp(found.llm), 4),
        slm_perplexity=round(math.exp(found.slm), 4),
        limited=round(found.limited, 6),
        version=__version__,
    )
