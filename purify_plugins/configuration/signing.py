"""`[certificate]`: the keys that sign certificates, where their chain is logged, and who dates it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from purify_plugins.configuration.config import Named, has_type, placed, type_in_words, where
from purify_plugins.configuration.find import Table
from purify_plugins.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from purify_plugins.signing.keys import SigningKey
    from purify_plugins.signing.signer import Signer

KINDS = {"key": str | list[str], "log": str, "timestamp": str}


@dataclass(frozen=True, kw_only=True)
class SigningOptions:
    """The keys of `[certificate]`."""

    key: str | list[str] | None = None
    """Needed: the private key, or several, which all sign: a PEM file of `purify keys new`, `env:NAME` for
    one in an environment variable, or a `pkcs11:` URI for one in a security module."""
    log: str | None = None
    """A directory for the chain's links, digests only, and each day's signed root; default none."""
    timestamp: str | None = None
    """The URL of a time-stamp authority (RFC 3161) that dates each day's root; needs `log`."""

    @property
    def keys(self) -> list[str]:
        return [self.key] if isinstance(self.key, str) else list(self.key or ())


def signer(table: Table) -> Signer | None:
    """What signs the certificates of a configuration; None where it names no key. Raises ConfigError."""
    if not table:
        return None
    with placed(where(table)):
        options = _options(table)
        from purify_plugins.signing.signer import Signer
        from purify_plugins.utils.extras import require_extra

        require_extra("sign", "signing certificates")
        folder = table.folder if isinstance(table, Named) else Path()
        log = None if options.log is None else folder / options.log
        return Signer([signing_key(each, folder) for each in options.keys], log, options.timestamp)


def _options(table: Table) -> SigningOptions:
    known = [each.name for each in fields(SigningOptions)]
    for name, value in table.items():
        if name not in known:
            raise UnknownNameError("certificate option", name, known)
        if not has_type(value, KINDS[name]) or not value:
            raise ConfigError(f"{name} must be {type_in_words(KINDS[name])}, not {value!r}")
    if "key" not in table:
        raise ConfigError("key is missing; make a pair with `purify keys new`, and name the private one")
    return SigningOptions(**table)


def signing_key(named: str, folder: Path = Path()) -> SigningKey:
    """The private key that a text names: `env:NAME`, `pkcs11:…` or a file. Raises ConfigError."""
    if named.startswith("env:"):
        from purify_plugins.signing.keys import key_in_environment

        return key_in_environment(named.removeprefix("env:"))
    if named.startswith("pkcs11:"):
        from purify_plugins.signing.hardware import TokenKey

        return TokenKey(named)
    from purify_plugins.signing.keys import key_in_file

    return key_in_file(folder / named)
