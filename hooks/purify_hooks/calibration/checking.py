"""A part of `purify check`: what both models make of a text, and whether the policy is calibrated to them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from purify_hooks.calibration.measure import ScoredPassage, by_kind, left_out, perplexities, score_texts
from purify_hooks.calibration.sample import TextSample, sample_of
from purify_plugins.certificates.calibration_record import digest_of
from purify_plugins.errors import ConfigError
from purify_plugins.types import Remarks

if TYPE_CHECKING:
    from purify_plugins.configuration.config import Config
    from purify_plugins.purifier import Purifier

SHORT = 400
"""Characters of a passage here: many short ones say more of the kinds of text than a few long ones."""
WEAK = 4.0
"""How many times the LLM's perplexity the SLM's may be before a warning."""
BETTER = 0.95
"""Below this ratio of perplexities the SLM is the better model."""
SAME = 0.02
"""Nats a token by which two models differ on average, below which they are one model in practice."""


def check_text(purifier: Purifier, config: Config, texts: Sequence[Path], seconds: float) -> Remarks:
    """Both models' perplexity on each kind of text, as far as the time allows; and warnings.

    Raises ConfigError for a file that is no text.
    """
    warnings = list(_uncalibrated(purifier, config))
    if not seconds:
        return Remarks({}, warnings)
    contexts = purifier.llm.inner.context_length, purifier.slm.inner.context_length
    sample = sample_of(texts).within(*contexts, most=SHORT)
    try:
        passages, warning = _read(purifier, sample.in_turn(), seconds)
    except ConfigError as error:  # a server that scores no text: the rest of the check stands
        return Remarks({}, [*warnings, str(error)])
    facts = {kind: _figures(some) for kind, some in by_kind(passages).items()}
    return Remarks(facts, [*warnings, *filter(None, [warning]), *compared(purifier, passages)])


def _read(purifier: Purifier, sample: TextSample, seconds: float) -> tuple[list[ScoredPassage], str]:
    """The passages that are read within the time, at least one, and a warning of those left out or ""."""
    typer.echo(f"reading {sample.name} with both models, {seconds:g} s at most (--seconds)", err=True)
    start, found, count = time.monotonic(), list[ScoredPassage](), 0
    for passage in sample.passages:
        count += 1
        found += score_texts(purifier.llm.inner, purifier.slm.inner, TextSample(sample.name, (passage,)))
        if time.monotonic() - start > seconds:
            break
    return found, left_out(count, len(found))


def _figures(passages: Sequence[ScoredPassage]) -> dict[str, Any]:
    llm, slm = perplexities(passages)
    return {
        "tokens": sum(len(each.llm) for each in passages),
        "LLM perplexity": float(f"{llm:.4g}"),
        "SLM perplexity": float(f"{slm:.4g}"),
        "ratio": float(f"{slm / llm:.3g}"),
    }


def compared(purifier: Purifier, passages: Sequence[ScoredPassage]) -> Iterator[str]:
    """Warnings: one model twice, an SLM that is too weak, or better than the LLM."""
    apart = sum(float((each.llm - each.slm).abs().sum()) for each in passages)
    llm, slm = (digest_of(each.identity()) for each in (purifier.llm, purifier.slm))
    if (llm and llm == slm) or apart < SAME * sum(len(each.llm) for each in passages):
        yield (
            "the LLM and the SLM are practically the same model: what one knows by heart the other does, so "
            "nothing is held back; name a model of other training data as the SLM"
        )
        return
    for kind, some in by_kind(passages).items():
        figures = _figures(some)
        if figures["ratio"] > WEAK:
            yield (
                f"the SLM is weak on this text, {kind}: perplexity {figures['SLM perplexity']:g}, "
                f"and the LLM {figures['LLM perplexity']:g}; much of what the LLM knows of it will be "
                "held back. A larger SLM, or one that was trained on such text, keeps more"
            )
    whole = _figures(passages)
    if whole["ratio"] < BETTER:
        yield (
            f"the SLM predicts this text better than the LLM (perplexity {whole['SLM perplexity']:g} and "
            f"{whole['LLM perplexity']:g}); check that they are not swapped, and whether the LLM is needed"
        )


def _uncalibrated(purifier: Purifier, config: Config) -> Iterator[str]:
    """Warnings: `balanced` at its defaults, or at settings that are of another pair."""
    if purifier.plugins.name_of(purifier.policy) != "balanced":
        return
    if purifier.calibration is None:
        yield (
            "balanced is not calibrated to this pair, so it may hold back more or less than it needs to; "
            "run `purify calibrate`"
        )
        return
    if others := purifier.calibration.strangers(purifier.llm.identity(), purifier.slm.identity()):
        yield (
            f"balanced was calibrated with another {' and another '.join(others)} than this pair's; run "
            "`purify calibrate` again"
        )
