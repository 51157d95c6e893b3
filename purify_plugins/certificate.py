"""What an answer spent, step by step; made by the loop, checked by anyone.

A certificate is one line of canonical JSON: sorted keys, no spaces, what was spent in fixed decimals,
and the SHA-256 of all that under `digest`. Its totals are exact sums of its steps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from purify_plugins.errors import CertificateError, ConfigError
from purify_plugins.threat import Engine, Facts, claim, draws, engine
from purify_plugins.types import FusionPolicy, Guarantee, Sampling, Token

if TYPE_CHECKING:
    from purify_plugins.plugins import Plugins
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import LogitSource

FORMAT = "purify-certificate/1"
PLACES = Decimal("1e-9")
COLUMNS = ("id", "slm", "fused", "kl", "peak", "revealed", "slm_only", "hidden")
MEANING: Mapping[Guarantee, str] = {
    "none": "no bound is claimed; the figures are what this answer spent",
    "mean": "the average of log fused/slm over all answers to this prompt is within the policy's budget; "
    "a single answer may exceed it",
    "window": "in every run of `window` tokens, log fused/slm adds up to at most `budget` nats, so a passage "
    "of n tokens is at most exp(budget * ceil(n / window)) times as likely as from the SLM",
    "passage": "in every run of tokens, (1 + doubt) * log fused - log slm adds up to at most `budget` nats, "
    "so a passage to which the SLM gives probability q has at most (exp(budget) * q) ** (1 / (1 + doubt))",
    "path": "log fused/slm adds up to at most `total` nats over the whole answer, so anything this model can "
    "say is at most exp(total) times as likely as from the SLM",
}
LIMITS = (
    "It bounds how far the untrusted model could move this answer from the benign one; it does not say that "
    "the text is free of copyrighted or private material.",
    "Text copied from the prompt or from retrieved context is not covered: both models read it.",
    "It is worth as much as the benign model: what that model knows by heart, the answer may contain.",
    "Probabilities of the benign model are those under the same sampling settings.",
    "It covers this one answer; budgets of several answers, retries and choices among them add up.",
    "It says nothing of truth, safety or bias, and is no legal advice.",
)


_CITED: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("cited", default=())


@contextmanager
def citing(texts: Mapping[str, str]) -> Iterator[None]:
    """Name the texts, by id, that were put into the prompts of the answers asked for in this block.

    Their certificates record each id and the text's SHA-256 under `context`; what such a text says, an
    answer may repeat. Blocks add up. It is the caller's word: nobody looks for the texts in the prompt.

    >>> with citing({"page 7": page}):
    ...     purifier.generate(f"{page}\n\nIn one sentence:")
    """
    named = tuple((name, hashlib.sha256(text.encode()).hexdigest()) for name, text in texts.items())
    before = _CITED.get()
    token = _CITED.set((*before, *(each for each in named if each not in before)))
    try:
        yield
    finally:
        _CITED.reset(token)


def cited() -> tuple[tuple[str, str], ...]:
    """The id and SHA-256 of every text that `citing` names here."""
    return _CITED.get()


@dataclass(frozen=True)
class Certificate:
    """The proof that goes with an answer; `text` is its canonical JSON."""

    text: str

    @cached_property
    def body(self) -> dict[str, Any]:
        """Everything it says, by name."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def digest(self) -> str:
        return str(self.body["digest"])

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee that holds for this very answer, in the mode it was drawn."""
        return self.body["method"]["guarantee"]  # type: ignore[no-any-return]  # checked by the schema

    @property
    def log_ratio(self) -> float:
        """log fused/slm of the whole answer, in nats."""
        return float(self.body["totals"]["log_ratio"])


def certify(
    purifier: Purifier,
    sampling: Sampling,
    prompt: Sequence[int],
    steps: Sequence[Token],
    text: str,
    finish_reason: str,
    context: Sequence[tuple[str, str]] = (),
) -> Certificate:
    """The certificate of an answer, from the records its tokens were sent with."""
    rows = [_row(token) for token in steps]
    body = {
        "format": FORMAT,
        "answer": {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "bytes": len(text.encode()),
            "finish_reason": finish_reason,
        },
        "prompt": list(prompt),
        "context": [{"id": name, "sha256": sha256} for name, sha256 in context],
        "models": {"llm": _model(purifier.llm, False), "slm": _model(purifier.slm, True)},
        "vocabulary": purifier.vocabulary.fingerprint,
        "method": _method(purifier, sampling, steps),
        "columns": list(COLUMNS),
        "steps": rows,
        "totals": totals(rows),
        "limits": list(LIMITS),
    }
    return Certificate(canonical({**body, "digest": digest(body)}))


def _model(source: LogitSource, trusted: bool) -> dict[str, Any]:
    return {**source.identity(), "engine": engine(source), "trusted": trusted}


def _method(purifier: Purifier, sampling: Sampling, steps: Sequence[Token]) -> dict[str, Any]:
    from purify_plugins import __version__

    mode, source = mode_of(sampling, steps), draws(sampling)
    engines = engine(purifier.llm), engine(purifier.slm)
    claimed = claim(Facts(purifier.policy.guarantee, mode, purifier.walk, source, *engines))
    return {
        "policy": purifier.plugins.name_of(purifier.policy),
        "parameters": options(purifier.policy, purifier.plugins),
        "sampling": jsonable(sampling),
        "mode": mode,
        "walk": purifier.walk,
        "draws": source,
        "claimed": purifier.policy.guarantee,
        "guarantee": claimed.guarantee,
        "adversary": claimed.adversary,
        "reason": claimed.reason,
        "meaning": MEANING[claimed.guarantee],
        "version": __version__,
    }


def options(policy: FusionPolicy, plugins: Plugins) -> dict[str, Any]:
    """A policy's options as `Plugins.policy` takes them back; a policy inside it has its name too.

    Raises ConfigError when they are no JSON.
    """
    try:
        found: dict[str, Any] = json.loads(canonical(jsonable(policy)))
    except (TypeError, ValueError) as error:
        kind = type(policy).__name__
        raise ConfigError(
            f"the policy {kind!r} has an option that no certificate can hold: {error}"
        ) from error
    for name, inner in ((name, getattr(policy, name)) for name in found):
        if isinstance(inner, FusionPolicy):
            found[name] = {"name": plugins.name_of(inner), **options(inner, plugins)}
    return found


def mode_of(sampling: Sampling, steps: Sequence[Token]) -> str:
    """How the answer was drawn: "sampled", "greedy" or "slm-only"."""
    if all(token.slm_only for token in steps):
        return "slm-only"
    return "greedy" if sampling.greedy else "sampled"


def _row(token: Token) -> list[Any]:
    numbers = (token.slm, token.fused, token.kl, token.peak, token.revealed)
    return [token.id, *map(fixed, numbers), token.slm_only, fixed(token.hidden)]


def fixed(number: float) -> str:
    """A number as a fixed decimal with nine places; "inf" and "-inf" are themselves."""
    return f"{number:.9f}" if math.isfinite(number) else f"{number}"


def totals(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """What an answer's steps add up to, exactly: the sums of their decimals."""
    table = [[Decimal(cell) for cell in row[1:6]] for row in rows]
    ratios = [fused - slm for slm, fused, *_ in table]
    return {
        "tokens": len(table),
        "log_ratio": _decimal(sum(ratios, Decimal(0))),
        "kl": _decimal(sum((row[2] for row in table), Decimal(0))),
        "largest_step": _decimal(max(ratios, default=Decimal(0))),
        "largest_peak": _decimal(max((row[3] for row in table), default=Decimal(0))),
        "surprisal": _decimal(sum((-row[0] for row in table), Decimal(0))),
        "least_revealed": _decimal(min((row[4] for row in table), default=Decimal(1))),
        "slm_only": sum(bool(row[6]) for row in rows),
        "most_hidden": _decimal(max((Decimal(row[7]) for row in rows), default=Decimal(0))),
    }


def _decimal(number: Decimal) -> str:
    return f"{number.quantize(PLACES):f}" if number.is_finite() else f"{float(number)}"


def jsonable(value: Any) -> Any:
    """A dataclass or value as JSON; fields that a policy hides from its `repr` are derived, not options."""
    if dataclasses.is_dataclass(value):
        shown = (field for field in dataclasses.fields(value) if field.repr)
        return {field.name: jsonable(getattr(value, field.name)) for field in shown}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return str(value) if value in (math.inf, -math.inf) else value


def canonical(body: Mapping[str, Any]) -> str:
    """The one spelling of a certificate: sorted keys, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the digest itself."""
    return hashlib.sha256(canonical({k: v for k, v in body.items() if k != "digest"}).encode()).hexdigest()


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
        _check_method(body["method"], _engines(body), _tokens(body), plugins)
    except (ConfigError, TypeError, ValueError, ArithmeticError) as error:
        raise CertificateError(f"the certificate describes nothing that can run: {error}") from error


def _check_totals(body: Mapping[str, Any]) -> None:
    if body["columns"] != list(COLUMNS):
        raise CertificateError(f"the columns of the steps must be {', '.join(COLUMNS)}")
    if totals(body["steps"]) != body["totals"]:
        raise CertificateError("the totals are not the sums of the steps")


def _check_method(
    method: Mapping[str, Any], engines: tuple[Engine, Engine], steps: Sequence[Token], plugins: Plugins
) -> None:
    policy = plugins.policy(method["policy"], _parameters(method["parameters"]))
    sampling = Sampling(**_parameters(method["sampling"]))
    mode, source = mode_of(sampling, steps), draws(sampling)
    found = claim(Facts(policy.guarantee, mode, method["walk"], source, *engines))
    follows = (mode, source, policy.guarantee, *found, MEANING[found.guarantee])
    said = ("mode", "draws", "claimed", "guarantee", "adversary", "reason", "meaning")
    if follows != tuple(method[key] for key in said):
        raise CertificateError(f"a {mode} answer under {method['policy']!r} has no such guarantee")
    holds = getattr(policy, "holds", None)
    if found.guarantee != "none" and holds and not holds(steps):
        raise CertificateError(f"the steps exceed the budget of {method['policy']!r}")


def _engines(body: Mapping[str, Any]) -> tuple[Engine, Engine]:
    """What ran the LLM and the SLM. Raises ValueError."""
    llm, slm = (body["models"][side].get("engine") for side in ("llm", "slm"))
    if not {llm, slm} <= set(get_args(Engine)):
        raise ValueError(f"a model's engine is one of {', '.join(get_args(Engine))}")
    return llm, slm


def _tokens(body: Mapping[str, Any]) -> list[Token]:
    return [  # the LLM's own figure is not kept
        Token._make((row[0], math.nan, *map(float, row[1:6]), row[6], float(row[7]), ()))
        for row in body["steps"]
    ]


def _parameters(value: Any) -> Any:
    """`jsonable` undone: JSON knows neither tuples nor infinity."""
    if isinstance(value, dict):
        return {key: _parameters(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_parameters, value))
    return float(value) if value in ("inf", "-inf") else value


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
    sampling = Sampling(**_parameters(body["method"]["sampling"]))
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
