"""How sure the SLM is of an answer that it wrote alone: features of its rows, calibrated to P(good)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from purify_plugins.canonical_json import digest
from purify_plugins.errors import ConfigError
from purify_plugins.types import Token
from purify_plugins.utils.files import read_text

Numbers = NDArray[numpy.float64]
FORMAT = "purify cascade calibration 1"
WINDOW = 8
"""The tokens of a window, of which the worst one is a feature."""
FEATURES = ("logprob", "worst", "length", "entropy")
RIDGE = 1e-2
"""The penalty of the logistic weights: keeps them finite where the classes are separable."""


def features(steps: Sequence[Token]) -> dict[str, float]:
    """Mean log-probability (nats) of a token, of the worst window of 8, log length, and mean entropy.

    The entropy (nats) is that of each row's likeliest tokens, the rest counted as one; it is there only where
    the purifier records them (`top`).
    """
    logprobs = numpy.array([token.slm for token in steps])
    size = min(WINDOW, len(steps))
    windows = numpy.convolve(logprobs, numpy.ones(size) / size, "valid")
    found = {
        "logprob": float(logprobs.mean()),
        "worst": float(windows.min()),
        "length": math.log(len(steps)),
    }
    if all(token.top for token in steps):
        found["entropy"] = sum(_entropy(token) for token in steps) / len(steps)
    return found


def _entropy(token: Token) -> float:
    masses = [math.exp(logprob) for _, logprob in token.top]
    rest = max(1 - sum(masses), 0.0)
    return -sum(mass * math.log(mass) for mass in (*masses, rest) if mass > 0)


@dataclass(frozen=True)
class ConfidenceCalibration:
    """P(an answer of the SLM alone is good), from its features: logistic, then isotonic.

    `mean`, `scale` and `weights` are of each of the `features`; `scores` and `chances` are the knots of the
    isotonic map from the logistic score to P(good). `after` is the number of tokens that it was fitted on; 0:
    whole answers. `slm` is the digest of the model that wrote them.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    scores: tuple[float, ...]
    chances: tuple[float, ...]
    after: int = 0
    slm: str = ""

    def chance(self, found: Mapping[str, float]) -> float:
        """P(good) of an answer with these features. Raises ConfigError where one is missing."""
        if missing := [name for name in self.features if name not in found]:
            raise ConfigError(f"the calibration needs {missing[0]} of each answer; set top = 20 or more")
        row = numpy.array([[found[name] for name in self.features]])
        return float(self.chances_of(row)[0])

    def chances_of(self, rows: Numbers) -> Numbers:
        """P(good) (n,) of answers whose features are the rows (n, features)."""
        score = (rows - self.mean) / self.scale @ numpy.array(self.weights) + self.bias
        chances: Numbers = numpy.interp(score, self.scores, self.chances)
        return chances

    @property
    def text(self) -> str:
        """The artefact, as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def slm_digest(identity: Mapping[str, Any]) -> str:
    """A digest of a model's identity, as it is or as certificates state it."""
    return digest({key: value for key, value in identity.items() if key not in ("engine", "trusted")})


def fit(
    names: Sequence[str], rows: Numbers, good: Numbers, after: int = 0, slm: str = ""
) -> ConfidenceCalibration:
    """Fit a calibration to answers' features (n, features) and whether each is good (n,), 0 or 1.

    Newton's steps for the logistic weights, then the pool of adjacent violators (isotonic regression).
    Chances are kept off 0 and 1 by one imaginary answer of each kind.
    """
    mean, scale = rows.mean(0), numpy.maximum(rows.std(0), 1e-6)
    design = numpy.column_stack([(rows - mean) / scale, numpy.ones(len(rows))])
    weights = numpy.zeros(design.shape[1])
    ridge = RIDGE * len(rows) * numpy.diag([1.0] * rows.shape[1] + [0.0])  # none for the bias
    for _ in range(25):
        chance = 1 / (1 + numpy.exp(-design @ weights))
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + ridge
        weights = weights + numpy.linalg.solve(curvature, design.T @ (good - chance) - ridge @ weights)
    scores, chances = isotonic(design @ weights, good)
    floor = 1 / (len(rows) + 2)
    return ConfidenceCalibration(
        *(tuple(names), _plain(mean), _plain(scale), _plain(weights[:-1]), float(weights[-1])),
        *(_plain(scores), _plain(numpy.clip(chances, floor, 1 - floor)), after, slm),
    )


def isotonic(scores: Numbers, good: Numbers) -> tuple[Numbers, Numbers]:
    """The non-decreasing function of the score that is nearest to `good` in the mean square: its knots.

    Pool adjacent violators; each pool is a knot at its mean score.
    """
    order = numpy.argsort(scores, kind="stable")
    pools: list[tuple[float, float, int]] = []  # sums of the scores and of the goods, and the count
    for score, value in zip(scores[order], good[order], strict=True):
        pool = (float(score), float(value), 1)
        while pools and pools[-1][1] / pools[-1][2] >= pool[1] / pool[2]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    sums = numpy.array(pools)
    knots = numpy.maximum.accumulate(sums[:, 0] / sums[:, 2])  # equal scores' means may differ by rounding
    return knots, sums[:, 1] / sums[:, 2]


def _plain(values: Numbers) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def read_calibration(path: str) -> ConfidenceCalibration:
    """The calibration in a file that `purify tune --stage cascade` wrote. Raises ConfigError."""
    try:
        found: dict[str, Any] = json.loads(read_text(Path(path)))
        if found.pop("format") != FORMAT:
            raise KeyError
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        calibration = ConfidenceCalibration(**values)
        calibration.chances_of(numpy.zeros((1, len(calibration.features))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is no calibration of a cascade; write one with `purify tune --stage cascade`"
        ) from error
    return calibration
