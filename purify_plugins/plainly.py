"""A certificate in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purify_plugins.certificate import Certificate


def summary(certificate: Certificate, off: float | None, known: Sequence[str] = ()) -> list[str]:
    """What a verified certificate says, a sentence a line; `known` names what its reader pinned."""
    method, totals = certificate.body["method"], certificate.body["totals"]
    models = certificate.body["models"]
    spent = certificate.log_ratio
    return [
        "The certificate is intact: its digest, its totals and its guarantee follow from what it records.",
        _how(off),
        _whose(known),
        f"LLM: {models['llm'].get('name')}. SLM: {models['slm'].get('name')}. "
        f"Policy: {method['policy']} ({assignments(method['parameters']) or 'no fields'}). "
        f"Mode: {method['mode']}.",
        f"Claimed: {method['claimed']}. Holds for this answer: {method['guarantee']}, "
        f"because {method['reason']}.",
        f"That means: {method['meaning']}.",
        f"{totals['tokens']} tokens took {spent:.3f} nats from the LLM (largest step "
        f"{float(totals['largest_step']):.3f}; KL {float(totals['kl']):.3f}); "
        f"the SLM's own surprisal at them is {float(totals['surprisal']):.3f}.",
        *_per_token(certificate),
        odds(spent),
        *(f"Limit: {limit}" for limit in certificate.body["limits"]),
    ]


def _how(off: float | None) -> str:
    if off is None:
        return "The SLM was not asked; give --slm DIR to recompute its figures and to spell the answer."
    return f"Recomputed with the SLM: its figures are right to within {off:.1e} nats."


def _whose(known: Sequence[str]) -> str:
    """What the reader brought, and what is still somebody's word."""
    pins = [each.replace("_", "-") for each in known if each not in ("slm", "set")]
    if pins:
        return f"It agrees with what you gave: {', '.join(pins)}."
    return (
        "Whose it is, nobody has checked: --answer FILE, --policy and --slm-digest compare what you know; "
        "the rest is its issuer's word."
    )


def _per_token(certificate: Certificate) -> list[str]:
    """Where symbols are no tokens: what was spent on each of the LLM's tokens, and on each byte."""
    alphabet = certificate.body["models"]["llm"].get("alphabet")
    if not alphabet:
        return _rough(certificate)
    symbols, length = certificate.body["totals"]["tokens"], certificate.body["answer"]["bytes"]
    spent = certificate.log_ratio
    return [
        f"A token here is a symbol ({alphabet['kind']}), {alphabet['per_token']:.2f} to one of the LLM's: "
        f"{spent / max(symbols, 1):.3f} nats a symbol, "
        f"{spent * alphabet['per_token'] / max(symbols, 1):.3f} a token of the LLM, "
        f"{spent / max(length, 1):.3f} a byte. Each model's rows are off by {alphabet['off_by']:.3g} at most "
        "in total variation, for the spellings that were not asked about."
    ]


def _rough(certificate: Certificate) -> list[str]:
    """Where the SLM rated tokens that are not its own."""
    alphabet = certificate.body["models"]["slm"].get("alphabet")
    return (
        ["The SLM has another tokenizer and rated the LLM's tokens roughly: nothing is claimed."]
        if alphabet
        else []
    )


def odds(spent: float) -> str:
    """What a total of K nats says of the answer: e^K."""
    if not math.isfinite(spent):
        return "The SLM alone could not have written this answer."
    factor = f"{math.exp(spent):,.3g}" if abs(spent) < 15 else f"10^{spent / math.log(10):.1f}"
    return (
        f"This very answer is e^{spent:.3f} = {factor} times as likely as from the SLM alone; "
        "that grows with every token, and is large for any long answer."
    )


AGAINST = {
    "weights": "untrusted weights in an honest engine",
    "engine": "untrusted weights, and the server that runs them",
    "none": "nobody",
}
"""The adversary that a claim names, in words."""


def assignments(fields: Mapping[str, Any]) -> str:
    """Fields as one writes them, without a value where none is set."""
    return ", ".join(key if value is None else f"{key} = {said(value)}" for key, value in fields.items())


def said(value: Any) -> str:
    """A value in words, not as Python spells it: what is inside another value stands in brackets."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if len(str(value)) < 8 else f"{value:.4g}"
    if isinstance(value, Mapping):
        inside = assignments({key: each for key, each in value.items() if key != "name"})
        return f"{value.get('name', '')} ({inside})".strip() if inside else str(value.get("name", "none"))
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value)) or "none"
    return "none" if value is None else str(value)
