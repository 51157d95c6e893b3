"""Certificates: a record of every step of an answer, issued from the decoder's notes, verifiable by anyone.

A certificate is one line of canonical JSON: sorted keys, no spaces, figures as fixed decimals, and the
SHA-256 of the rest under `digest`. Its totals are exact sums of its steps.
"""

from purify_plugins.canonical_json import model_digest
from purify_plugins.certificates.answer_recomputation import require_like
from purify_plugins.certificates.citations import cited, citing
from purify_plugins.certificates.claims import LIMITS, MEANING, claimed, mode_of
from purify_plugins.certificates.figures import COLUMNS, FORMAT, STAGED_FORMAT, totals
from purify_plugins.certificates.issuing import certify
from purify_plugins.certificates.pinning import Pins
from purify_plugins.certificates.recomputation import recompute, recompute_both, recomputed, recomputed_both
from purify_plugins.certificates.staged import (
    AnswerRecord,
    CheckRecord,
    DraftRecord,
    SegmentRecord,
    StageRecord,
    certify_stages,
)
from purify_plugins.certificates.verification import read, verify
from purify_plugins.types import Certificate

__all__ = [
    "COLUMNS",
    "FORMAT",
    "LIMITS",
    "MEANING",
    "STAGED_FORMAT",
    "AnswerRecord",
    "Certificate",
    "CheckRecord",
    "DraftRecord",
    "Pins",
    "SegmentRecord",
    "StageRecord",
    "certify",
    "certify_stages",
    "cited",
    "citing",
    "claimed",
    "mode_of",
    "model_digest",
    "read",
    "recompute",
    "recompute_both",
    "recomputed",
    "recomputed_both",
    "require_like",
    "totals",
    "verify",
]
