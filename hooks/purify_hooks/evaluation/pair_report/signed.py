"""A report as it is handed over: an in-toto statement about its page, signed or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.pair_report.body import FORMAT
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.errors import AlteredError, ForgedError, MismatchError, NoCertificateError, SignatureError
from purify_plugins.signing.statement import PAYLOAD_TYPE, STATEMENT
from purify_plugins.utils.strict_json import loads

if TYPE_CHECKING:
    from purify_plugins.signing.keys import PublicKey
    from purify_plugins.signing.signer import Signer

PREDICATE = "urn:purify-plugins:report:1"
PAGE, DATA = "report.html", "report.json"


def stated(body: Mapping[str, Any], page: bytes, signer: Signer | None) -> str:
    """The file that states a report and its page's digest: signed, or as plain JSON."""
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": PAGE, "digest": {"sha256": sha256(page).hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": dict(body),
    }
    if signer is None:
        return json.dumps(statement, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return signer.envelope(PAYLOAD_TYPE, canonical(statement).encode()).text + "\n"


@dataclass(frozen=True)
class StatedReport:
    """A report as it was received: its body, its page's SHA-256, and whose signatures it has.

    `signers` are the given keys that signed it, `others` the ids of signatures that were not checked.
    """

    body: Mapping[str, Any]
    page: str
    signers: tuple[PublicKey, ...] = ()
    others: tuple[str, ...] = ()
    signed: bool = False

    def require_page(self, content: bytes) -> None:
        """Raise MismatchError for another page than the one that was stated."""
        if sha256(content).hexdigest() != self.page:
            raise MismatchError(
                f"the page is not this report's: its SHA-256 is {sha256(content).hexdigest()[:16]}…, and "
                f"the report states {self.page[:16]}…; ask for the page that was made with it"
            )


def read_report(data: bytes, keys: Sequence[PublicKey] = ()) -> StatedReport:
    """The report in a file, its signatures checked first; every key given must have signed it.

    Raises NoCertificateError, SignatureError, AlteredError, ForgedError.
    """
    found = _parsed(data)
    if "payloadType" not in found:
        if keys:
            raise SignatureError(
                "the report is not signed, and you gave a key; whoever sends it can have written it"
            )
        return StatedReport(*_read(found))
    from purify_plugins.signing.envelope import read_envelope
    from purify_plugins.verifying.opening import signatures

    envelope = read_envelope(data)
    signers, others = signatures(envelope, keys)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _none(f"what is signed is {envelope.payload_type[:80]!r}")
    return StatedReport(*_read(_parsed(envelope.payload)), signers, others, signed=True)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = loads(data.decode())
    except ValueError as error:
        raise _none(f"it is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise _none("it is no JSON object")
    return found


def _read(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The body and the page's digest of a statement."""
    if found.get("_type") != STATEMENT or found.get("predicateType") != PREDICATE:
        raise _none(f"it states a {str(found.get('predicateType'))[:80]!r}")
    body = found.get("predicate")
    match found.get("subject"):
        case [{"name": str(name), "digest": {"sha256": str(page)}}] if name == PAGE:
            pass
        case _:
            raise ForgedError("the report is not about one page")
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise _none("it is of another format")
    if body.get("digest") != digest(body):
        raise AlteredError("the report's digest does not match: it was changed after it was made")
    return body, page


def _none(why: str) -> NoCertificateError:
    return NoCertificateError(f"this is no report of `purify report` ({why}); give the {DATA} as it was sent")
