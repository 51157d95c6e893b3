"""`Signer`: signs a process's certificates, chains them, and logs the chain and its daily roots."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from purify_plugins.errors import ConfigError
from purify_plugins.signing.chain import CertificateChain
from purify_plugins.signing.envelope import Envelope, Signature, pae
from purify_plugins.signing.keys import SigningKey
from purify_plugins.signing.log import ChainLog
from purify_plugins.signing.statement import PAYLOAD_TYPE, statement
from purify_plugins.types import Certificate
from purify_plugins.utils.locks import ForkedLock


class Signer:
    """Puts certificates into envelopes, each signed by every key.

    One lock is held while a statement is made, signed and logged, since each names the one before; an answer
    waits for it once, when it is complete. With a `log` directory, `timestamp` may be the URL of an authority
    (RFC 3161) that dates each day's root. Raises ConfigError for keys that cannot be used.
    """

    def __init__(
        self, keys: Sequence[SigningKey], log: Path | None = None, timestamp: str | None = None
    ) -> None:
        if timestamp is not None and log is None:
            raise ConfigError("a timestamp is of the log's daily root; name a log directory too")
        self.keys, self._chain, self._lock = tuple(keys), CertificateChain(), ForkedLock()
        self.key_ids = tuple(key.public.id for key in self.keys)
        if not self.keys or len(set(self.key_ids)) != len(self.keys):
            raise ConfigError("certificates are signed with one key or more, each named once")
        self._log = None if log is None else ChainLog(log, self.envelope, timestamp)
        if self._log is not None:
            atexit.register(self.close)

    def signed(self, certificate: Certificate) -> Certificate:
        """The certificate with its envelope. Raises ConfigError where a key or the log fails."""
        with self._lock:
            link = self._chain.next()
            payload = statement(certificate.text, link)
            envelope = self.envelope(PAYLOAD_TYPE, payload)
            try:
                digest = self._chain.add(payload)
                if self._log is not None:
                    self._log.add(link, digest)
            except BaseException:
                self._chain = CertificateChain()  # the log lacks this one, so that another chain begins
                raise
        return replace(certificate, envelope=envelope.text)

    def envelope(self, payload_type: str, payload: bytes) -> Envelope:
        """Bytes with every key's signature."""
        data = pae(payload_type, payload)
        signatures = (Signature(key.public.id, key.sign(data)) for key in self.keys)
        return Envelope(payload, payload_type, tuple(signatures))

    def close(self) -> None:
        """Write the root of what no root covers yet, and wait for its time-stamp."""
        with self._lock:
            if self._log is not None:
                self._log.close()
