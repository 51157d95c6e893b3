"""Recompute a certificate's figures with the models that it names."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.canonical_json import canonical, jsonable
from purify_plugins.certificates.answer_recomputation import (
    check_prompt,
    decoder_of,
    replayed,
    replayed_with_both,
    require_slm,
)
from purify_plugins.certificates.staged import prompt_digest
from purify_plugins.certificates.staged_claims import fused
from purify_plugins.certificates.verification import drafts_of, read
from purify_plugins.errors import CertificateError
from purify_plugins.types import Certificate

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.protocols import Constraint, LogitSource
    from purify_plugins.types import Prompt


class Recomputed(NamedTuple):
    """The largest difference (nats) of what was recomputed, and in words what could not be."""

    off: float
    untold: tuple[str, ...] = ()


def recompute(
    certificate: Certificate,
    slm: LogitSource,
    tolerance: float = 1e-3,
    *,
    prompt: str | None = None,
    constraints: Sequence[Constraint] = (),
) -> float:
    """Replay the benign model; the largest difference (nats) from the recorded log-probabilities.

    The recorded tokens must spell the answer and end it for the recorded reason; of an answer that stages
    made, every draft. `prompt`, where it is given, must be the recorded one, or a draft's. `constraints` are
    those that it was drawn under: a certificate has their digests only. Raises OtherModelError when the model
    is not the one named, CertificateError where constraints are missing, MismatchError for another prompt,
    ForgedError when a step differs by more than `tolerance` (machines and libraries differ in the last
    digits, and a temperature below 1 divides those too).
    """
    return _all_told(recomputed(certificate, slm, tolerance, prompt=prompt, constraints=constraints))


def recompute_both(
    certificate: Certificate,
    llm: LogitSource,
    slm: LogitSource,
    plugins: Plugins,
    tolerance: float = 1e-3,
    *,
    constraints: Sequence[Constraint] = (),
    shown: Sequence[Prompt] = (),
) -> float:
    """Replay both models and the policy; the largest difference (nats) of any figure of any step.

    This also checks the LLM's side, which otherwise only a signature covers. It takes the LLM that the
    certificate names, of the same vocabulary, reading the prompt's recorded ids, or that of the prompts
    `shown` whose digest is recorded under the same secret. Raises as `recompute`.
    """
    recompute(certificate, slm, tolerance, constraints=constraints)
    how: dict[str, Any] = {"constraints": constraints, "shown": shown}
    return _all_told(recomputed_both(certificate, llm, slm, plugins, tolerance, **how))


def recomputed(
    certificate: Certificate,
    slm: LogitSource,
    tolerance: float = 1e-3,
    *,
    prompt: str | None = None,
    constraints: Sequence[Constraint] = (),
) -> Recomputed:
    """As `recompute`; figures that depend on a constraint that is not given are named, and not refused."""
    bodies = _bodies(certificate)
    read_as = [require_slm(body, slm) for body in bodies]
    if prompt is not None and bodies:
        check_prompt(bodies, prompt, read_as[0])
    gaps, untold = [0.0], []
    for at, (body, source) in enumerate(zip(bodies, read_as, strict=True)):
        held = _held(body, constraints)
        if held is None:
            untold.append(f"{_draft(certificate, at)} {_masked(body)}")
        else:
            gaps.append(replayed(body, source, tolerance, held))
    return Recomputed(max(gaps), tuple(untold))


def recomputed_both(
    certificate: Certificate,
    llm: LogitSource,
    slm: LogitSource,
    plugins: Plugins,
    tolerance: float = 1e-3,
    *,
    constraints: Sequence[Constraint] = (),
    shown: Sequence[Prompt] = (),
) -> Recomputed:
    """As `recompute_both`, what cannot be replayed is named, and not refused. Recompute the SLM first."""
    gaps, untold = [0.0], []
    known = {prompt_digest(each): each for each in shown}
    for at, body in enumerate(_bodies(certificate)):
        held = _held(body, constraints)
        why = _masked(body) if held is None else _unshown(certificate, at, known)
        if held is None or why:
            untold.append(f"{_draft(certificate, at)} {why}")
        else:
            decoder = decoder_of(body, llm, require_slm(body, slm), plugins, held)
            digest = certificate.body["drafts"][at]["shown"] if certificate.staged else None
            gaps.append(replayed_with_both(body, decoder, tolerance, known.get(str(digest))))
    return Recomputed(max(gaps), tuple(untold))


def _all_told(found: Recomputed) -> float:
    """The largest difference. Raises CertificateError for what could not be recomputed."""
    if found.untold:
        raise CertificateError(f"not every figure can be recomputed: {'; '.join(found.untold)}")
    return found.off


def _bodies(certificate: Certificate) -> list[dict[str, Any]]:
    body = read(certificate.text).body
    return drafts_of(body) if certificate.staged else [body]


def _draft(certificate: Certificate, at: int) -> str:
    return f"draft {at}" if certificate.staged else "the answer"


def _held(body: Mapping[str, Any], constraints: Sequence[Constraint]) -> list[Constraint] | None:
    """Those of the constraints that an answer was drawn under, in its order; None: one is not given."""
    by_fact = {canonical(jsonable(each.public())): each for each in constraints}
    wanted = [canonical(each) for each in body["method"].get("constraints", [])]
    return [by_fact[each] for each in wanted] if by_fact.keys() >= set(wanted) else None


def _masked(body: Mapping[str, Any]) -> str:
    kinds = ", ".join(repr(each.get("kind")) for each in body["method"]["constraints"])
    return f"was drawn under {kinds}, which the certificate has by a digest; give the same as `constraints`"


def _unshown(certificate: Certificate, at: int, known: Container[str]) -> str:
    """Why the LLM's side of an answer cannot be replayed from its certificate; "": it can."""
    if not certificate.staged:
        return ""
    draft = certificate.body["drafts"][at]
    if draft["shown"] and draft["shown"] not in known:
        return "showed the LLM another prompt, of which the certificate has a digest; give it as `shown`"
    if draft["redone"] and fused(draft):
        return "was written again in part by the SLM, which an LLM's replay does not repeat"
    return ""
