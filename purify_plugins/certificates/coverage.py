"""Which check detects an edit of each single field of a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

Way = Literal["alone", "slm", "both", "pin"]
"""`verify` alone, `recompute` with the SLM, `recompute_both` with the LLM too; or a pin, else a signature."""


class Cover(NamedTuple):
    """The check that covers a field, and its comparison."""

    way: Way
    how: str


WAYS: Mapping[Way, str] = {
    "alone": "`purify verify`",
    "slm": "with `--slm`",
    "both": "with `--slm` and `--llm`",
    "pin": "a pin or a signature",
}
COVERED: Mapping[str, Cover] = {
    "format": Cover("alone", "this version's own"),
    "answer.sha256": Cover("slm", "of the text that the steps spell; `--answer` pins it"),
    "answer.bytes": Cover("slm", "of the text that the steps spell; `--answer` pins it"),
    "answer.finish_reason": Cover(
        "slm", "an end token is last, or a stop string was whole, or the limit was met"
    ),
    "answer.limit": Cover(
        "alone", "from `max_tokens` and the steps; where `limited_by` is `context`, only that it is less"
    ),
    "answer.limited_by": Cover(
        "alone", "`max_tokens` or not; which of `context`, `plugin` and `engine` it was takes a signature"
    ),
    "prompt.*": Cover("slm", "the SLM's figures follow from it; `--prompt` pins it"),
    "context.*": Cover("pin", "the caller's word"),
    "models.llm.trusted": Cover("alone", "the LLM never is"),
    "models.slm.trusted": Cover("alone", "the SLM always is"),
    "models.slm.files.*": Cover("slm", "the digests of the files given; `--slm-digest` pins them"),
    "models.slm.name": Cover("pin", "a label; the files say who it is"),
    "models.slm.engine": Cover("pin", "where somebody ran it; `untrusted` would leave no claim"),
    "models.slm.card.*": Cover("pin", "the operator's word; `--slm-card` pins it"),
    "models.slm.signature.*": Cover("pin", "the operator's word; the files it is of are named beside it"),
    "models.slm.*": Cover("slm", "as the SLM given says of itself"),
    "models.llm.files.*": Cover("both", "the digests of the files given; `--llm-digest` pins them"),
    "models.llm.name": Cover("pin", "a label; the files say who it is"),
    "models.llm.engine": Cover("pin", "where somebody ran it; the claim follows from it"),
    "models.llm.card.*": Cover("pin", "the operator's word; `--llm-card` pins it"),
    "models.llm.signature.*": Cover("pin", "the operator's word; the files it is of are named beside it"),
    "models.llm.*": Cover("both", "as the LLM given says of itself"),
    "vocabulary": Cover("slm", "the SLM's own fingerprint"),
    "method.policy": Cover("pin", "`--policy`; and the steps keep the budget of the one that is named"),
    "method.parameters.*": Cover(
        "pin", "`--policy` with `--set`; and the steps keep the budget that is named"
    ),
    "method.sampling.max_tokens": Cover(
        "alone", "with `answer.limit`; where a context or a plugin was the limit, only that it is more"
    ),
    "method.sampling.seed": Cover("pin", "no draw is repeated to check it"),
    "method.sampling.stop*": Cover("pin", "the text ends with the first of them; others are not missed"),
    "method.sampling.ignore_eos": Cover("pin", "where the SLM hardly ever ends, it moves no figure"),
    "method.sampling.*": Cover(
        "slm", "its figures follow from it; what moves none by 0.001 nats takes a pin"
    ),
    "method.mode": Cover("alone", "from the temperature and the steps"),
    "method.walk": Cover("pin", "the operator's word; the claim follows from it"),
    "method.plugins.*": Cover("pin", "the operator's word"),
    "method.edits": Cover("pin", "the operator's word; any leaves no claim"),
    "method.watermark.tokens": Cover(
        "pin",
        "the operator's word; `purify detect` with the key finds them; alone, whether there is room",
    ),
    "method.watermark.*": Cover("pin", "the operator's word; `purify detect` with the key compares the id"),
    "method.calibration.*": Cover("pin", "the operator's word; the claim does not follow from it"),
    "method.configuration.*": Cover("pin", "the operator's word; the claim does not follow from it"),
    "method.draws": Cover("alone", "from the seed and the watermark"),
    "method.claimed": Cover("alone", "the policy's own"),
    "method.guarantee": Cover("alone", "from the rest of `method` and the steps"),
    "method.adversary": Cover("alone", "from the rest of `method` and the engines"),
    "method.reason": Cover("alone", "word for word"),
    "method.meaning": Cover("alone", "word for word"),
    "method.version": Cover("pin", "the operator's word"),
    "columns.*": Cover("alone", "the same in every certificate"),
    "steps.*.0": Cover("slm", "`id`: the steps spell the answer"),
    "steps.*.1": Cover("slm", "`slm`: asked again"),
    "steps.*.2": Cover("both", "`fused`: computed again; alone, whether it can be beside the others"),
    "steps.*.3": Cover("both", "`kl`: computed again; alone, whether it can be beside the others"),
    "steps.*.4": Cover("both", "`peak`: computed again; alone, whether it can be beside the others"),
    "steps.*.5": Cover("both", "`revealed`: computed again"),
    "steps.*.6": Cover("both", "`slm_only`: computed again; alone, that `fused` is then `slm`"),
    "steps.*.7": Cover("both", "`hidden`: computed again"),
    "totals.*": Cover("alone", "the exact sums of the steps"),
    "limits.*": Cover("alone", "word for word"),
    "digest": Cover("alone", "of all the rest; anyone can make a new one"),
}
"""Patterns of paths into a certificate; the first match counts."""

STAGED_COVERED: Mapping[str, Cover] = {
    "format": Cover("alone", "this version's own"),
    "answer.sha256": Cover("pin", "`--answer`; alone where one draft or the operator's text is all of it"),
    "answer.bytes": Cover("alone", "of its segments"),
    "answer.finish_reason": Cover("alone", "its draft's; `refused` where an operator's text ends it"),
    "stages.*.choices": Cover("alone", "with `ledger.choices`"),
    "stages.*": Cover("pin", "the operator's word"),
    "drafts.*.role": Cover("alone", "from what was asked, and after how many drafts"),
    "drafts.*.after": Cover("pin", "the operator's word, where no role follows from it"),
    "drafts.*.shown": Cover("pin", "the operator's word"),
    "drafts.*.redo": Cover("pin", "alone of the draft that was released, and where the ledger counts it"),
    "drafts.*.redone": Cover("pin", "the operator's word; at most `redo`"),
    "drafts.*.allowed": Cover("alone", "its policy's, for its limit"),
    "drafts.*.certificate.method.llm_asked": Cover("alone", "a step of the LLM's refutes it"),
    "drafts.*.certificate.method.constraints.*": Cover("slm", "the figures follow from those given"),
    "drafts.*.certificate.*": Cover("slm", "as in a certificate of its own: the table above"),
    "segments.*.draft": Cover("alone", "the one that was released"),
    "segments.*.from": Cover("alone", "where the one before ends"),
    "segments.*.to": Cover("alone", "with the answer's length"),
    "segments.*.bytes": Cover("alone", "with the answer's length"),
    "segments.*.sha256": Cover("pin", "`--answer`; alone where the answer is this text"),
    "segments.*.kind": Cover("pin", "that a value was put back is the operator's word"),
    "segments.*.name": Cover("pin", "the operator's word"),
    "checks.*.redo": Cover("alone", "with the `redo` of the draft that was released"),
    "checks.*": Cover("pin", "the operator's word"),
    "ledger.most_calls": Cover("pin", "at least `calls`; the choices follow where a stage declares none"),
    "ledger.*": Cover("alone", "from the stages and the drafts"),
    "claim.*": Cover("alone", "from the stages and the drafts, word for word"),
    "scores.*": Cover("pin", "the operator's word"),
    "totals.*": Cover("alone", "those of the draft that was released"),
    "limits.*": Cover("alone", "word for word"),
    "digest": Cover("alone", "of all the rest; anyone can make a new one"),
}
"""The same for the certificate of an answer that stages made."""


def cover(path: str, covered: Mapping[str, Cover] = COVERED) -> Cover:
    """The check that covers the field at `path`, such as `steps.3.1`. Raises KeyError if there is none."""
    for pattern, found in covered.items():
        if fnmatchcase(path, pattern) or fnmatchcase(path, pattern.removesuffix(".*")):
            return found
    raise KeyError(path)
