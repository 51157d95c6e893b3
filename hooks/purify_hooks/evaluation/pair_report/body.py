"""The body of a report: everything it says, as JSON, of which the page is a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.page import made
from purify_hooks.evaluation.pair_report import works
from purify_hooks.evaluation.pair_report.duties import DISCLAIMER, DUTIES
from purify_hooks.evaluation.pair_report.measured import TOKENS, MeasuredWork, shaping
from purify_hooks.evaluation.pair_report.provenance import provenance
from purify_plugins.canonical_json import digest, jsonable, options
from purify_plugins.certificates.claims import LIMITS, MEANING, mode_of
from purify_plugins.certificates.explain import calibration, verdict
from purify_plugins.certificates.guarantee_text import meant
from purify_plugins.configuration.digest import config_digest
from purify_plugins.configuration.signing import CertificateOptions
from purify_plugins.plugin.listing import listing
from purify_plugins.sampling import Sampling
from purify_plugins.threat import ADVERSARIES, TRUST

if TYPE_CHECKING:
    from purify_hooks.evaluation.pair_report.evaluated import Evaluation
    from purify_hooks.evaluation.pair_report.works import NamedWork
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.purifier import Purifier

FORMAT = "purify-report/1"
KEPT = ("keep", "retention", "on_error")
STORED = {each.name: each.default for each in fields(CertificateOptions) if each.name in KEPT}


@dataclass(frozen=True)
class Findings:
    """What a report is made of: the loaded pair, the evaluation, the named works, and how it was made.

    `measured` are the works that were, under `sampling`; `unmeasured` those of which no text is known, or too
    little. `signers` are the ids of the keys that will sign it, `command` makes it again.
    """

    ready: Prepared
    purifier: Purifier
    evaluation: Evaluation | None
    measured: Sequence[MeasuredWork]
    unmeasured: Sequence[NamedWork]
    recognised: Mapping[str, tuple[int, int]]
    sampling: Sampling
    signers: tuple[str, ...]
    command: str

    def body(self) -> dict[str, Any]:
        """The whole report, with a digest of all that is in it."""
        facts = {
            "format": FORMAT,
            "made": made(),
            "command": self.command,
            "configuration": config_digest(self.ready.config),
            "signers": list(self.signers),
            "disclaimer": DISCLAIMER,
            "guarantee": guarantee(self.purifier),
            "models": provenance(self.ready, self.purifier),
            "calibration": self._calibration(),
            "stages": self._stages(),
            "evaluation": self.evaluation and self._evaluated(self.evaluation),
            "works": self._works(),
            "takedown": self._takedown(),
            "records": self._records(),
            "marking": self._marking(),
            "threat": threat(self.purifier),
            "plugins": [
                {"name": each.name, "from": each.distribution, "version": each.version}
                for each in listing(self.purifier.plugins)
                if each.active
            ],
        }
        whole = {**facts, "duties": [duty.json(facts) for duty in DUTIES]}
        return {**whole, "digest": digest(whole)}

    def _stages(self) -> list[dict[str, Any]]:
        """The request stages, the outermost first, each with what certificates say of it."""
        offered = self.purifier.plugins.offered
        return [
            {"name": offered("purify_stages", type(each))[0] or each.name, **each.public()}
            for each in self.purifier.stages
        ]

    def _calibration(self) -> list[str]:
        record = self.purifier.calibration
        if record is None:
            return []
        models = {"llm": self.purifier.llm.identity(), "slm": self.purifier.slm.identity()}
        return calibration({"method": {"calibration": record.as_json()}, "models": models})

    def _evaluated(self, found: Evaluation) -> dict[str, Any]:
        """The evaluation, and its row of the policy as it is configured; None: it was not measured so."""
        plain = self.ready.policy
        named = self.purifier.plugins.name_of(plain)
        row = found.configured(named, options(plain, self.purifier.plugins.name_of))
        return {**found.as_json(), "configured": row and row.label}

    def _works(self) -> dict[str, Any]:
        return {
            "unit": "symbols" if self.purifier.slm.symbolic else "tokens",
            "at_most": TOKENS,
            "sampling": shaping(self.sampling),
            "measured": [
                {**works.as_json(each.work), "passages": [passage.json() for passage in each.passages]}
                for each in self.measured
            ],
            "not_measured": [{**works.as_json(each), "why": _why(each)} for each in self.unmeasured],
        }

    def _takedown(self) -> dict[str, Any] | None:
        told = self.purifier.llm.identity().get("takedown")
        if told is None:
            return None
        listed = [each for each in self.measured if works.TAKEDOWN in each.work.sources]
        every = [each.work for each in listed]
        every += [each for each in self.unmeasured if works.TAKEDOWN in each.sources]
        return {
            "rule": dict(told),
            "works": [
                {**works.as_json(each), "recognised": self.recognised.get(each.sha256)} for each in every
            ],
        }

    def _records(self) -> dict[str, Any]:
        """The keys that sign certificates, what is recorded of them and for how long, and who dates them."""
        table, signer = self.ready.config.certificate, self.purifier.signer
        store = {name: table.get(name, usual) for name, usual in STORED.items()} if "store" in table else None
        return {
            "keys": list(signer.key_ids) if signer else [],
            "store": store,
            "timestamp": "timestamp" in table,
        }

    def _marking(self) -> dict[str, Any] | None:
        mark = self.purifier.watermark
        return {"key": mark.id, "context": mark.context} if mark else None


def guarantee(purifier: Purifier) -> dict[str, Any]:
    """What answers may claim under this configuration, in the words that `purify verify` says of each."""
    claim, sampling = purifier.claim(), purifier.sampling
    name_of = purifier.plugins.name_of
    method = {
        "guarantee": claim.guarantee,
        "adversary": claim.adversary,
        "reason": claim.reason,
        "claimed": purifier.policy.guarantee,
        "policy": name_of(purifier.policy),
        "parameters": options(purifier.policy, name_of),
        "mode": mode_of(sampling, ()),
        "sampling": jsonable(sampling),
    }
    first = verdict(method, "answers of this configuration")
    return {
        **method,
        "sentences": [first, *_plainly(purifier, method)],
        "formula": MEANING[claim.guarantee],
        "limits": list(LIMITS),
    }


def _plainly(purifier: Purifier, method: Mapping[str, Any]) -> list[str]:
    """The guarantee in plain words, and of which answers it is."""
    said = [f"In plain words, of each answer: {meant(method)}."]
    if method["mode"] == "greedy" and purifier.claim(Sampling()).guarantee != "none":
        said.append(f"At temperature 1 it would be: {purifier.claim(Sampling()).guarantee}.")
    elif method["guarantee"] != "none":
        said.append("Greedy answers (temperature 0) have none.")
    if purifier.stages:
        said.append(
            "Request stages are configured: this is of each draft that they ask for. Drafts and choices "
            "among them add up, and the certificate of each answer says to how much."
        )
    if purifier.on_llm_failure == "slm":
        said.append("When the LLM fails the SLM goes on alone, and the certificate says so.")
    return said


def threat(purifier: Purifier) -> dict[str, Any]:
    """Whom the guarantee holds against, which engines run the two models, and who is trusted with what."""
    claim = purifier.claim()
    return {
        "adversary": claim.adversary,
        "in_words": ADVERSARIES[claim.adversary],
        "engines": {"llm": purifier.llm.engine, "slm": purifier.slm.engine},
        "walk": purifier.walk,
        "trust": [dict(zip(("who", "with", "not_with"), row, strict=True)) for row in TRUST],
    }


def _why(work: NamedWork) -> str:
    if work.text:
        return "it has too few words for a passage"
    return "an index of prints holds no text; name its file with --work NAME=FILE"
