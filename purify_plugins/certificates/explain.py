"""A certificate in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purify_plugins.canonical_json import model_digest
from purify_plugins.certificates.calibration_record import CalibrationRecord
from purify_plugins.certificates.guarantee_text import factor, meant
from purify_plugins.certificates.in_numbers import in_numbers
from purify_plugins.threat import IN_ENGINE
from purify_plugins.types import Certificate


def summary(certificate: Certificate, off: float | None, known: Sequence[str] = ()) -> list[str]:
    """A verified certificate in sentences, one a line, the verdict first.

    `off` is the largest difference (nats) when its models were replayed; `known` names the reader's pins.
    """
    body = certificate.body
    return [
        verdict(body["method"]),
        f"In plain words: {meant(body['method'])}.",
        *in_numbers(body),
        *issued(body["method"]),
        "The certificate is intact: its digest, its totals and its guarantee follow from what it records.",
        replayed(off, "llm" in known),
        *comparisons(known),
        *_made(body),
        *figures(body),
        *_per_token(certificate),
        f"The formula: {body['method']['meaning']}.",
        *(f"Limit: {limit}" for limit in body["limits"]),
    ]


def verdict(method: Mapping[str, Any], of: str = "this answer") -> str:
    """The guarantee `of` what was or would be drawn so, or the reason why there is none."""
    if method["guarantee"] == "none":
        return f"Guarantee of {of}: NONE, because {method['reason']}."
    return f"Guarantee of {of}: {method['guarantee']}, against {AGAINST[method['adversary']]}."


def issued(method: Mapping[str, Any]) -> list[str]:
    """Whose word a certificate is that the LLM's own engine issued."""
    if method["walk"] != IN_ENGINE:
        return []
    return [
        "In-engine: the engine that runs the LLM drew the tokens, sent the text and issued this. It assumes "
        "that machine and its operator honest, and only the LLM's weights hostile; compare the text with "
        "--answer FILE."
    ]


def replayed(off: float | None, both: bool) -> str:
    """Which models were replayed, and how near the figures are."""
    if off is None:
        return "No model was asked; `purify verify --slm DIR` asks the SLM again, and spells the text."
    if both:
        return f"Both models were replayed, and the policy: every figure is right to within {off:.1e} nats."
    return (
        f"Recomputed with the SLM: its figures are right to within {off:.1e} nats. The LLM was not replayed."
    )


PARTS: Mapping[str, tuple[str, frozenset[str]]] = {
    "the answer": ("--answer FILE", frozenset(("answer", "answer.sha256"))),
    "the prompt": ("--prompt FILE with --slm DIR", frozenset(("prompt",))),
    "the policy": ("--policy NAME", frozenset(("policy",))),
    "the SLM's files": ("--slm DIR or --slm-digest", frozenset(("slm", "slm_digest", "models.slm.files"))),
    "the LLM's files": ("--llm-digest, or --llm DIR", frozenset(("llm", "llm_digest", "models.llm.files"))),
}
"""Parts that a reader can compare: the option for each, and its names in `known`."""
SAID = {
    "require": "the guarantee",
    "key": "who signed it",
    "issued_after": "when it was issued",
    "chain": "its place in its issuer's chain",
    "tsa": "its day's time-stamp",
    "slm_card": "the SLM's provenance card",
    "llm_card": "the LLM's provenance card",
}
"""What a reader gave beside parts, in words."""
SIGNED = "the models' names, who wrote it and when (a signature's matter)"


def compared(known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The parts of a certificate that were compared with the reader's values, and those that were not."""
    parts = {part: bool(names & set(known)) for part, (_, names) in PARTS.items()}
    covered = frozenset().union(*(names for _, names in PARTS.values()), {"set"})
    fields = [SAID.get(name, name) for name in known if name not in covered]
    return [part for part in parts if parts[part]] + fields, [part for part in parts if not parts[part]]


def comparisons(known: Sequence[str]) -> list[str]:
    """The parts that were compared, and those that were not."""
    fine, open_ = compared(known)
    missing = [f"{part} ({PARTS[part][0]})" for part in open_] + [SIGNED] * ("key" not in known)
    return [
        f"Compared with what you gave, and the same: {', '.join(fine) or 'nothing'}.",
        f"Not compared, so its issuer's word: {', '.join(missing) or 'nothing'}.",
    ]


def _made(body: Mapping[str, Any]) -> list[str]:
    """The models, the policy and the settings of the answer."""
    method, answer = body["method"], body["answer"]
    plugins = [f"{each['name']} ({each['distribution']} {each['version']})" for each in method["plugins"]]
    context = [f"{each['id']} ({each['sha256']})" for each in body["context"]]
    return [
        *(model(side, body["models"][side]) for side in ("llm", "slm")),
        f"Policy: {method['policy']} ({assignments(method['parameters']) or 'no fields'}). "
        f"Claimed: {method['claimed']}. Holds for this answer: {method['guarantee']}, "
        f"because {method['reason']}.",
        *calibration(body),
        *configuration(body),
        f"Drawn: {method['mode']}, in {method['walk']}, with {DRAWN[method['draws']]}, "
        f"seed {said(method['sampling'].get('seed'))}, by purify-plugins {method['version']}. "
        f"Plugins: {', '.join(plugins) or 'none'}. Edits: {', '.join(method['edits']) or 'none'}.",
        *watermark(body),
        f"Sampling: {assignments(method['sampling'])}.",
        f"Answer: {answer['bytes']} bytes, SHA-256 {answer['sha256']}, ended by {answer['finish_reason']}.",
        f"Texts put into the prompt: {', '.join(context) or 'none named'}.",
        f"This certificate's digest: {body['digest']}.",
    ]


def watermark(body: Mapping[str, Any]) -> list[str]:
    """The answer's watermark, or that it carries none, where there was a key for one."""
    mark, tokens = body["method"].get("watermark"), len(body["steps"])
    if mark is None:
        return []
    if not mark["tokens"]:
        why = "greedy" if body["method"]["mode"] == "greedy" else "too short, or drawn after other tokens"
        return [f"Watermark: none in this answer, which is {why}; key {mark['key']}."]
    return [
        f"Watermark: {mark['tokens']} of {tokens} tokens were drawn by key {mark['key']} and the "
        f"{mark['context']} tokens before each; `purify detect` finds it with the key."
    ]


def calibration(body: Mapping[str, Any]) -> list[str]:
    """What the policy's options were set by, where that is recorded."""
    record = body["method"].get("calibration")
    if record is None:
        return []
    unlike = CalibrationRecord.of(record).strangers(body["models"]["llm"], body["models"]["slm"])
    made = (
        f"It was made with another {' and another '.join(unlike)}."
        if unlike
        else "It was made with these models."
    )
    return [
        f"Calibrated on {record['sample']} ({record['tokens']:,} tokens, SHA-256 {record['text']}): the LLM "
        f"had perplexity {record['llm_perplexity']:.4g} on it and the SLM {record['slm_perplexity']:.4g}; "
        f"{1 - record['limited']:.1%} of its tokens never met the limit. {made}"
    ]


def configuration(body: Mapping[str, Any]) -> list[str]:
    """Which configuration the service ran by, where that is recorded."""
    found = body["method"].get("configuration")
    return [f"The service ran by the configuration with SHA-256 {found['sha256']}."] if found else []


DRAWN = {
    "system": "the operating system's random numbers",
    "keyed": "random numbers that follow from a secret, the seed and the request",
    "marked": "random numbers that follow from a watermark's key and the tokens before",
}


COPYING = (
    "It is mixed with a copyist of the prompt and the answer so far: what is bounded is bounded against the "
    "model or that copyist, and what stands in the prompt may be copied at little cost."
)


def model(side: str, told: Mapping[str, Any]) -> str:
    """A model of a certificate in words."""
    found = f"{side.upper()}: {told['name']} ({told['kind']}, {told['engine']}), {_digest(told)}."
    found += f" {_members(told)}" if told.get("members") else ""
    found += f" {_takedown(told['takedown'])}" if told.get("takedown") else ""
    found += "".join(f" {each}" for each in vouching(side, told))
    return f"{found} {COPYING}" if told.get("copyist") else found


def _takedown(told: Mapping[str, Any]) -> str:
    """The list of works that are taken out of a model's rows."""
    count = f"{told['works']} work{'s' * (told['works'] != 1)}"
    return (
        f"Its rows are changed before the policy, while a text recites the takedown list of {count} "
        f"(SHA-256 {told['list']}), in the {told['form']} form."
    )


def vouching(side: str, told: Mapping[str, Any]) -> list[str]:
    """Who vouches for a model, where that is recorded."""
    found = []
    if card := told.get("card"):
        found.append(
            f"Its provenance card (training data, licence, what was checked and by whom) has SHA-256 "
            f"{card['sha256']}: ask for the card, and compare it with --{side}-card FILE."
        )
    if signed := told.get("signature"):
        found.append(
            "By its operator's word its files were loaded as they had been signed: the signature's file has "
            f"SHA-256 {signed['sha256']}, and the key it was checked with {signed['key']}."
        )
    return found


def _digest(model: Mapping[str, Any]) -> str:
    files = model.get("files")
    return f"SHA-256 of its files {model_digest(files)}" if files else "no digest of its files"


def _members(model: Mapping[str, Any]) -> str:
    """The members of a mixture and their weights; every bound is against the mixture."""
    members = [
        f"{each['weight']:.4g} of {each['name']} ({each['kind']}, {_digest(each)})"
        for each in model["members"].values()
    ]
    share = model.get("share")
    how = (
        "fixed weights"
        if share is None
        else f"weights that follow the text from there, fixed share {share:g}"
    )
    return (
        f"It is the mixture of {' and '.join(members)}, in probability, with {how}; what is bounded is "
        "bounded against it."
    )


def figures(body: Mapping[str, Any]) -> list[str]:
    """What the tokens of one decode took from the LLM."""
    totals, spent = body["totals"], float(body["totals"]["log_ratio"])
    return [
        f"{totals['tokens']} tokens took {spent:.3f} nats from the LLM, "
        f"{spent / max(totals['tokens'], 1):.3f} a token (largest step "
        f"{float(totals['largest_step']):.3f}; KL {float(totals['kl']):.3f}); "
        f"the SLM's own surprisal at them is {float(totals['surprisal']):.3f}.",
        odds(spent),
    ]


def _per_token(certificate: Certificate) -> list[str]:
    """For symbols smaller than tokens: nats per symbol, per token of the LLM and per byte."""
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
    """A note where the SLM's rows are approximate."""
    alphabet = certificate.body["models"]["slm"].get("alphabet")
    return (
        ["The SLM has another tokenizer and rated the LLM's tokens roughly: nothing is claimed."]
        if alphabet
        else []
    )


def odds(spent: float) -> str:
    """A total of K nats as a factor, e^K."""
    if not math.isfinite(spent):
        return "The SLM alone could not have written this answer."
    return (
        f"This very answer is e^{spent:.3f} = {factor(spent)} times as likely as from the SLM alone. That "
        "factor grows with every token of any answer and is no verdict; compare nats a token."
    )


AGAINST = {
    "weights": "untrusted weights in an honest engine",
    "engine": "untrusted weights, and the server that runs them",
    "none": "nobody",
}
"""Adversary -> words."""


def assignments(fields: Mapping[str, Any]) -> str:
    """`name = value` pairs; only the name of a field that is not set."""
    return ", ".join(key if value is None else f"{key} = {said(value)}" for key, value in fields.items())


def said(value: Any) -> str:
    """A value in words instead of Python's repr; nested values are in brackets."""
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
