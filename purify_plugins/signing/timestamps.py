"""Time-stamps by an authority (RFC 3161): asked for over HTTP, and checked with its certificates."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from purify_plugins.errors import ChainError, ConfigError, SourceError
from purify_plugins.utils.extras import require_extra

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

MOST = 1 << 20  # bytes of a response; real ones have some thousands
SECONDS = 30.0


def require_url(url: str) -> None:
    """Raise ConfigError for what is no HTTP address, or where the library is missing."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"timestamp must be the http(s) address of a time-stamp authority, not {url!r}")
    require_extra("timestamp", "a time-stamp")


def requested(url: str, data: bytes) -> bytes:
    """The authority's response (DER) for these bytes' SHA-512. Raises SourceError."""
    from rfc3161_client import TimestampRequestBuilder

    asked = TimestampRequestBuilder().data(data).nonce(nonce=True).cert_request(cert_request=True).build()
    headers = {"Content-Type": "application/timestamp-query"}
    request = urllib.request.Request(url, asked.as_bytes(), headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = bytes(answer.read(MOST))
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise SourceError(f"the time-stamp authority at {url!r} cannot be asked: {error}") from error
    if _parsed(found).tst_info.nonce != asked.nonce:
        raise SourceError(f"the time-stamp authority at {url!r} answered another request")
    return found


def _parsed(response: bytes) -> TimeStampResponse:
    from rfc3161_client import decode_timestamp_response

    try:
        found = decode_timestamp_response(response)
        _ = found.tst_info  # a refusal has none
    except ValueError as error:
        raise SourceError(f"this is no time-stamp: {error}") from error
    return found


def stamped(response: bytes, data: bytes, authorities: bytes) -> datetime:
    """When the authority saw these bytes; `authorities` are the root certificates (PEM) that are trusted.

    Raises ChainError where it is not such a time-stamp, ConfigError where no certificate is in `authorities`.
    """
    from cryptography.x509 import load_pem_x509_certificates
    from rfc3161_client import VerificationError, VerifierBuilder

    require_extra("timestamp", "to check a time-stamp")
    try:
        roots = load_pem_x509_certificates(authorities)
    except ValueError as error:
        raise ConfigError(f"the authority's certificates are no PEM file: {error}") from error
    try:
        found = _parsed(response)
        VerifierBuilder(roots=roots).build().verify_message(found, data)
    except (SourceError, VerificationError, ValueError) as error:
        raise ChainError(f"a day's time-stamp is not by an authority that you gave: {error}") from error
    time: datetime = found.tst_info.gen_time
    return time
