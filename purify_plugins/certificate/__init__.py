"""What an answer spent, step by step; made from what the decoder noted, checked by anyone.

A certificate is one line of canonical JSON: sorted keys, no spaces, what was spent in fixed decimals,
and the SHA-256 of all that under `digest`. Its totals are exact sums of its steps.
"""

from purify_plugins.certificate.checking import read, verify
from purify_plugins.certificate.citing import cited, citing
from purify_plugins.certificate.claims import LIMITS, MEANING, claimed, mode_of
from purify_plugins.certificate.making import certify
from purify_plugins.certificate.pinning import Pins, model_digest
from purify_plugins.certificate.recomputing import recompute, recompute_both, require_like
from purify_plugins.certificate.spelling import (
    COLUMNS,
    FORMAT,
    PLACES,
    Certificate,
    canonical,
    digest,
    fixed,
    jsonable,
    options,
    totals,
)

__all__ = [
    "COLUMNS",
    "FORMAT",
    "LIMITS",
    "MEANING",
    "PLACES",
    "Certificate",
    "Pins",
    "canonical",
    "certify",
    "cited",
    "citing",
    "claimed",
    "digest",
    "fixed",
    "jsonable",
    "mode_of",
    "model_digest",
    "options",
    "read",
    "recompute",
    "recompute_both",
    "require_like",
    "totals",
    "verify",
]
