"""What the SLM says of a certificate, asked again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from purify_plugins.certificate.checking import parameters
from purify_plugins.errors import CertificateError
from purify_plugins.types import Sampling

if TYPE_CHECKING:
    from purify_plugins.certificate.spelling import Certificate
    from purify_plugins.types import LogitSource


def recompute(certificate: Certificate, slm: LogitSource, tolerance: float = 1e-3) -> float:
    """Replay the benign model; the largest difference (nats) from the recorded log-probabilities.

    Raises CertificateError when the model is not the one named, or a step differs by more than
    `tolerance` (machines and libraries differ in the last digits).
    """
    from purify_plugins.bridge.source import as_recorded
    from purify_plugins.decode.replay import score

    body = certificate.body
    slm = as_recorded(slm, body["models"]["slm"])
    _same_model(body, slm)
    sampling = Sampling(**parameters(body["method"]["sampling"]))
    answer = [row[0] for row in body["steps"]]
    if max(answer, default=0) >= len(slm.vocabulary):
        raise CertificateError(f"the SLM has no token {max(answer)}")
    logprobs = score(slm, tuple(body["prompt"]), answer, sampling)
    differences = (
        0.0 if abs(a) == math.inf and a == float(row[1]) else abs(a - float(row[1]))
        for a, row in zip(logprobs, body["steps"], strict=True)
    )
    largest = max(differences, default=0.0)
    if not largest <= tolerance:
        raise CertificateError(f"the SLM gives other probabilities than recorded: off by {largest:.3g} nats")
    return largest


def _same_model(body: Mapping[str, Any], slm: LogitSource) -> None:
    recorded = body["models"]["slm"].get("files", {})
    if recorded != slm.identity().get("files", {}):
        raise CertificateError("this is not the SLM the certificate names: the files' digests differ")
    if body["vocabulary"] != slm.vocabulary.fingerprint:
        raise CertificateError(
            "the answer was written in an alphabet the two models shared, not the SLM's own"
        )
