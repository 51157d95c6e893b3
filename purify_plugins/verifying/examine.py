"""Check a certificate with all that its reader knows, and say what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from purify_plugins.certificates.offered import Policies
from purify_plugins.certificates.pinning import NOTHING, Pins
from purify_plugins.certificates.verification import verify
from purify_plugins.errors import CertificateError, ConfigError, MismatchError, UncheckableError
from purify_plugins.signing.keys import PublicKey
from purify_plugins.signing.statement import Statement
from purify_plugins.types import Certificate
from purify_plugins.utils.printable import shown
from purify_plugins.verifying.chain_check import check_chain
from purify_plugins.verifying.opening import Opened, opened

HOLDS, FAILS, UNKNOWN, UNREADABLE = 0, 1, 2, 3
"""What `purify verify` ends with."""
VERDICTS = {HOLDS: "holds", FAILS: "does not hold", UNKNOWN: "cannot tell", UNREADABLE: "unreadable"}


@dataclass(frozen=True)
class Known:
    """What a reader knows, or asks for: each makes the verdict stricter.

    `keys` must all have signed it, `pins` must agree; it must have been issued at `after` or later
    ("2026-11-29T00:00:00Z"), stand in the `chain` at that place, and be of a day that one of `authorities`
    (PEM) has dated.
    """

    keys: tuple[PublicKey, ...] = ()
    pins: Pins = NOTHING
    after: str | None = None
    chain: Path | None = None
    authorities: bytes | None = None


@dataclass(frozen=True)
class Examined:
    """What was found: the certificate, what its signatures and its chain say, and what keeps it from holding.

    `open` is why it is not known whether it holds; "": it holds.
    """

    opened: Opened
    findings: tuple[str, ...]
    open: str = ""

    @property
    def certificate(self) -> Certificate:
        return self.opened.certificate

    @property
    def code(self) -> int:
        return UNKNOWN if self.open else HOLDS

    @property
    def verdict(self) -> str:
        """What can be said, in one sentence."""
        if self.open:
            return f"Verdict: CANNOT TELL, since {self.open}; all that follows from it alone holds."
        fine = "It agrees with itself and with what you gave."
        if self.certificate.guarantee == "none":
            fine += " It guarantees nothing, as the next line says."
        if self.opened.statement is None:
            return f"Verdict: HOLDS, as far as it can without a signature. {fine}"
        keys = "key you gave has" if len(self.opened.signers) == 1 else "keys you gave have"
        return f"Verdict: HOLDS. The {keys} signed it, and it is unaltered. {fine}"

    def told(self) -> dict[str, object]:
        """The verdict and the findings as JSON."""
        stated = self.opened.statement
        return {
            "verdict": VERDICTS[self.code],
            "exit_code": self.code,
            "sentence": self.verdict,
            "signed_by": [key.id for key in self.opened.signers],
            "not_checked_signatures": list(self.opened.others),
            "issued": None if stated is None else stated.link.issued,
            "findings": list(self.findings),
        }


def in_order(seen: Examined, explained: Sequence[str]) -> list[str]:
    """All sentences, a line each: the verdict, the guarantee in words, who vouches for it, then the rest."""
    numbers = [line for line in explained if line.startswith("In numbers: ")]
    guarantee, plain, *rest = [line for line in explained if line not in numbers]
    # What a certificate names is its sender's: a line break in it would begin a sentence of ours.
    return [*map(shown, (seen.verdict, guarantee, plain, *numbers, *seen.findings, *rest))]


def examined(data: bytes, known: Known, policies: Policies) -> Examined:
    """What can be said of a certificate as received. Raises CertificateError where it does not hold."""
    found = opened(data, known.keys)
    verify(found.certificate, policies, known.pins)
    findings = [*_signed(found), *_issued(found.statement, known.after)]
    if known.chain is not None:
        findings += check_chain(_stated(found.statement), known.chain, known.keys, known.authorities)
    elif known.authorities is not None:
        raise UncheckableError("a time-stamp is of a chain's daily root; give the chain's directory too")
    unsure = "it is signed, and no key was given: who signed it is not known" if _unkeyed(found) else ""
    return Examined(found, tuple(findings), unsure)


def _unkeyed(found: Opened) -> bool:
    return found.statement is not None and not found.signers


def _stated(statement: Statement | None) -> Statement:
    if statement is None:
        raise UncheckableError("the certificate is not signed, so that it has no place in a chain")
    return statement


def _signed(found: Opened) -> list[str]:
    """Who vouches for it, as far as keys show."""
    if found.statement is None:
        return ["Signature: none. Nobody vouches for it; whoever sends it can have written it."]
    others = ", ".join(f"{each[:16]}…" for each in found.others)
    if not found.signers:
        return [
            f"Signature: by {others}, if it is one; to check it give --key FILE, which its issuer publishes."
        ]
    by = " and ".join(key.id for key in found.signers)
    more = (
        [f"Signatures that were not checked, since no key of theirs was given: {others}."] if others else []
    )
    return [
        f"Signature: right, by {by}. Who holds that key vouches for the answer and for every figure here; "
        "that it is your issuer's, the place you have it from must show.",
        *more,
    ]


def _issued(statement: Statement | None, after: str | None) -> list[str]:
    """When it was issued, by its issuer's clock."""
    if statement is None:
        if after is not None:
            raise UncheckableError("the certificate is not signed, so that it has no date")
        return []
    if after is not None and statement.link.issued < after:
        raise MismatchError(f"the certificate was issued at {statement.link.issued}, before {after}")
    return [f"Issued: {statement.link.issued}, by its issuer's clock."]


def moment(text: str) -> str:
    """A date, or a date with a time, as certificates have it. Raises ConfigError."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            text += "T00:00:00Z"
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigError(f"a date is written 2026-11-29 or 2026-11-29T08:30:00Z, not {text!r}") from error
    return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def public_keys(files: Sequence[str], contents: Callable[[str], bytes]) -> tuple[PublicKey, ...]:
    """The public keys in these files. Raises ConfigError, and for a key that is named twice."""
    keys = tuple(PublicKey.read(contents(file), repr(file)) for file in files)
    if len(set(keys)) != len(keys):
        raise ConfigError("a key is given twice; name each once")
    return keys


def refused(error: CertificateError) -> dict[str, object]:
    """A refusal as JSON."""
    code = error.exit_code
    return {
        "valid": False,
        "verdict": VERDICTS[code],
        "exit_code": code,
        "error": type(error).__name__,
        "sentence": str(error),
    }
