"""Verify a certificate without a model: everything that follows from its own content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates.answer_checks import check_answer
from purify_plugins.certificates.figures import FORMAT, STAGED_FORMAT
from purify_plugins.certificates.pinning import NOTHING, Pins
from purify_plugins.certificates.staged_verification import check_stages
from purify_plugins.errors import (
    AlteredError,
    ConfigError,
    ForgedError,
    NoCertificateError,
)
from purify_plugins.types import Certificate

if TYPE_CHECKING:
    from purify_plugins.certificates.offered import Policies

FAMILY = FORMAT.partition("/")[0]


def read(text: str | bytes) -> Certificate:
    """The certificate in `text`, every byte as it was written.

    Raises NoCertificateError for anything else, AlteredError for a certificate that was edited.
    """
    from purify_plugins.certificates.schema import CertificateBody, StagedBody

    try:
        text = text.decode() if isinstance(text, bytes) else text
        body = json.loads(text)
        edited = canonical(body).encode() != text.encode()
    except (ValueError, RecursionError) as error:
        raise NoCertificateError(
            f"this is not a certificate ({_unread(error)}); "
            "give what `purify generate --certificate FILE` wrote"
        ) from error
    staged = _format(body) == STAGED_FORMAT
    (StagedBody if staged else CertificateBody).check(body)
    if edited:
        raise AlteredError("the certificate is not in its canonical form; it has been edited or reformatted")
    if any(digest(each) != each["digest"] for each in (body, *drafts_of(body))):
        raise AlteredError("the certificate's digest does not match its content; it has been altered")
    return Certificate(text)


def _unread(error: Exception) -> str:
    """Why the text could not be parsed; most often a file was cut off in copying."""
    if not isinstance(error, json.JSONDecodeError) or not error.doc.lstrip().startswith("{"):
        return str(error)
    cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
    return f"it is cut off after {len(error.doc)} characters" if cut else str(error)


def _format(body: object) -> object:
    """Its format. Raises NoCertificateError for another version's, before its fields are checked."""
    found = body.get("format") if isinstance(body, Mapping) else None
    if isinstance(found, str) and found.startswith(f"{FAMILY}/") and found not in (FORMAT, STAGED_FORMAT):
        raise NoCertificateError(
            f"the certificate is a {found[:40]!r}, and this version reads {FORMAT!r} and {STAGED_FORMAT!r}; "
            "check it with the version of purify-plugins that wrote it"
        )
    return found


def drafts_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The certificates of the drafts of an answer that stages made; [] for any other."""
    return [each["certificate"] for each in body.get("drafts", ())]


def verify(certificate: Certificate, plugins: Policies, pins: Pins = NOTHING) -> None:
    """Check everything that follows from the certificate alone, and the reader's `pins`.

    Raises ForgedError if its parts contradict each other, BudgetError if its steps exceed the claimed budget,
    MismatchError if it differs from a pin, UncheckableError if no plugin in use offers the policy.
    docs/certificates.md lists the check of every field.
    """
    body = read(certificate.text).body
    try:
        if body["format"] == STAGED_FORMAT:
            for draft in drafts_of(body):
                check_answer(draft, plugins)
            check_stages(body, plugins)
        else:
            check_answer(body, plugins)
    except (ConfigError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ForgedError(f"the certificate describes nothing that can run: {error}") from error
    pins.check(certificate, plugins)
