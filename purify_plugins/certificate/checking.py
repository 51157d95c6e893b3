"""What follows from a certificate alone, checked without any model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from purify_plugins.certificate.claims import MEANING, claimed, mode_of
from purify_plugins.certificate.spelling import COLUMNS, Certificate, canonical, digest, totals
from purify_plugins.errors import CertificateError, ConfigError
from purify_plugins.threat import Engine, draws
from purify_plugins.types import Bounded, Sampling, Token

if TYPE_CHECKING:
    from purify_plugins.plugins import Plugins


def read(text: str | bytes) -> Certificate:
    """The certificate in `text`; raises CertificateError unless every byte is as it was written."""
    from purify_plugins.schema import CertificateBody

    try:
        text = text.decode() if isinstance(text, bytes) else text
        body = json.loads(text)
        edited = canonical(body).encode() != text.encode()
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"this is not a certificate: {error}") from error
    CertificateBody.check(body)
    if edited:
        raise CertificateError(
            "the certificate is not in its canonical form; it has been edited or reformatted"
        )
    if digest(body) != body["digest"]:
        raise CertificateError("the certificate's digest does not match its content; it has been altered")
    return Certificate(text)


def verify(certificate: Certificate, plugins: Plugins) -> None:
    """Check all that follows from the certificate alone.

    Totals must be the sums of the steps, the guarantee must be the one this policy has in this mode,
    and the recorded steps must keep the policy's budget. Raises CertificateError.
    """
    body = certificate.body
    try:
        _check_totals(body)
        _check_method(body["method"], _engines(body), tokens_of(body), plugins)
    except (ConfigError, TypeError, ValueError, ArithmeticError) as error:
        raise CertificateError(f"the certificate describes nothing that can run: {error}") from error


def _check_totals(body: Mapping[str, Any]) -> None:
    if body["columns"] != list(COLUMNS):
        raise CertificateError(f"the columns of the steps must be {', '.join(COLUMNS)}")
    if totals(body["steps"]) != body["totals"]:
        raise CertificateError("the totals are not the sums of the steps")


def _engines(body: Mapping[str, Any]) -> tuple[Engine, Engine]:
    """What ran the LLM and the SLM. Raises ValueError."""
    llm, slm = (body["models"][side].get("engine") for side in ("llm", "slm"))
    if not {llm, slm} <= set(get_args(Engine)):
        raise ValueError(f"a model's engine is one of {', '.join(get_args(Engine))}")
    return llm, slm


def _check_method(
    method: Mapping[str, Any], engines: tuple[Engine, Engine], steps: Sequence[Token], plugins: Plugins
) -> None:
    policy = plugins.policy(method["policy"], parameters(method["parameters"]))
    sampling = Sampling(**parameters(method["sampling"]))
    claim = claimed(policy, sampling, method["walk"], engines, steps, method["edits"])
    if method["guarantee"] != claim.guarantee and isinstance(policy, Bounded) and not policy.holds(steps):
        raise CertificateError(f"the steps exceed the budget of {method['policy']!r}")
    mode = mode_of(sampling, steps)
    follows = (mode, draws(sampling), policy.guarantee, *claim, MEANING[claim.guarantee])
    said = ("mode", "draws", "claimed", "guarantee", "adversary", "reason", "meaning")
    if follows != tuple(method[key] for key in said):
        raise CertificateError(f"a {mode} answer under {method['policy']!r} has no such guarantee")


def tokens_of(body: Mapping[str, Any]) -> list[Token]:
    return [  # the LLM's own figure is not kept
        Token._make((row[0], math.nan, *map(float, row[1:6]), row[6], float(row[7]), ()))
        for row in body["steps"]
    ]


def parameters(value: Any) -> Any:
    """`jsonable` undone: JSON knows neither tuples nor infinity."""
    if isinstance(value, dict):
        return {key: parameters(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(parameters, value))
    return float(value) if value in ("inf", "-inf") else value
