"""`cascade`: the SLM answers alone what it is sure of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from purify_hooks.stages.wording import require, whole
from purify_plugins.errors import ConfigError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft, Stage

if TYPE_CHECKING:
    from purify_hooks.stages.confidence import ConfidenceCalibration
    from purify_plugins.protocols import LogitSource


@dataclass(frozen=True)
class Cascade(Stage):
    """Release what the SLM answers alone where it is sure; else ask the fused model, streamed.

    `sure` is the least confidence, from 0 to 1: the chance that the answer is good by the `calibration`, a
    file of `purify tune --stage cascade`; without one the geometric mean of its tokens' probabilities, which
    is not calibrated. With `after`, the first so many tokens decide, and what the SLM then answers is drawn
    anew and streamed: the rest of it has not been judged. 0 decides on whole answers.
    """

    sure: float = 0.9
    after: int = 0
    calibration: str = ""
    paths: ClassVar[tuple[str, ...]] = ("calibration",)

    def __post_init__(self) -> None:
        fine = type(self.sure) in (int, float) and 0 < self.sure <= 1
        require("cascade", "sure", self.sure, fine, "above 0 and at most 1")
        require("cascade", "after", self.after, whole(self.after, 0), "a number of tokens, 0 for all")
        require(
            "cascade", "calibration", self.calibration, isinstance(self.calibration, str), "a file's path"
        )
        if self._fitted is not None and self._fitted.after != self.after:
            raise ConfigError(
                f"stage 'cascade': {self.calibration} was fitted with after = {self._fitted.after}, not "
                f"{self.after}; use the same, or tune again"
            )

    def bind(self, slm: LogitSource) -> Self:
        if self._fitted is not None:
            from purify_hooks.stages.confidence import slm_digest

            if self._fitted.slm != slm_digest(slm.identity()):
                raise ConfigError(
                    f"stage 'cascade': {self.calibration} was fitted to another SLM; tune again for this one"
                )
        return self

    @cached_property
    def _fitted(self) -> ConfidenceCalibration | None:
        """The calibration; None: there is none."""
        from purify_hooks.stages.confidence import read_calibration

        return read_calibration(self.calibration) if self.calibration else None

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Answer:
        alone, most = request.alone(), request.sampling.max_tokens
        trial = yield alone.sampled(max_tokens=min(self.after, most)) if self.after else alone
        if not self.confidence(trial) >= self.sure:  # a NaN is not sure
            return request
        unfinished = self.after and trial.finish_reason == "length" and self.after < most
        return alone if unfinished else trial

    def confidence(self, draft: Draft) -> float:
        """The chance that an answer of the SLM alone is good, from 0 to 1."""
        if self._fitted is None or not draft.steps:
            return draft.confidence
        from purify_hooks.stages.confidence import features

        found = features(draft.steps)
        return self._fitted.chance(found) if all(map(math.isfinite, found.values())) else 0.0

    def remarks(self) -> Sequence[str]:
        if self._fitted is not None:
            return ()
        return ("cascade is uncalibrated: fit it on your own questions with `purify tune --stage cascade`",)
