"""`[certificate]`: the keys that sign certificates, who dates them, and the store that records them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from purify_plugins.configuration.config import Named, has_type, placed, type_in_words, where
from purify_plugins.configuration.find import Table
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.types import Keep, OnError

if TYPE_CHECKING:
    from purify_plugins.signing.keys import SigningKey
    from purify_plugins.signing.signer import Signer
    from purify_plugins.store.records import Records
    from purify_plugins.store.store import CertificateStore

NEED = {"timestamp": ("key", "store"), "keep": ("store",), "retention": ("store",), "on_error": ("store",)}
"""Options, and those without which they mean nothing."""


@dataclass(frozen=True, kw_only=True)
class CertificateOptions:
    """The keys of `[certificate]`."""

    key: str | list[str] | None = None
    """The private key, or several, which all sign: a PEM file of `purify keys new`, `env:NAME` for
    one in an environment variable, or a `pkcs11:` URI for one in a security module; default: none signs."""
    store: str | None = None
    """Where every certificate is recorded: `sqlite:FILE`, or a directory; default none. With `key` the chain
    of each process is logged beside it."""
    keep: Keep = "digests"
    """`digests` records what identifies no text, `certificates` the whole certificate, token ids and all."""
    retention: str | None = None
    """How long a record is kept, such as `"184d"`; default for ever."""
    on_error: OnError = "refuse"
    """What becomes of an answer that cannot be recorded: `refuse` ends it with an error, `warn` logs one."""
    timestamp: str | None = None
    """The URL of a time-stamp authority (RFC 3161) that dates each day's root; needs `key` and `store`."""

    @property
    def keys(self) -> list[str]:
        return [self.key] if isinstance(self.key, str) else list(self.key or ())


def issuing(table: Table) -> dict[str, Any]:
    """A Purifier's `signer` and `store`, None where the table names none. Raises ConfigError, StoreError."""
    if not table:
        return {"signer": None, "store": None}
    with placed(where(table)):
        options = _options(table)
        folder = table.folder if isinstance(table, Named) else Path()
        records = None if options.store is None else _records(options.store, folder)
        signed = _signer(options, folder, records) if options.keys else None
        return {"signer": signed, "store": None if records is None else _store(options, records, signed)}


def _signer(options: CertificateOptions, folder: Path, records: Records | None) -> Signer:
    from purify_plugins.signing.signer import Signer
    from purify_plugins.utils.extras import require_extra

    require_extra("sign", "signing certificates")
    keys = [signing_key(each, folder) for each in options.keys]
    return Signer(keys, None if records is None else records.chain, options.timestamp)


def _records(named: str, folder: Path) -> Records:
    from purify_plugins.store.places import records_at

    return records_at(named, folder)


def _store(options: CertificateOptions, records: Records, signed: Signer | None) -> CertificateStore:
    from purify_plugins.store.store import CertificateStore

    days = None if options.retention is None else retention_days(options.retention, "retention")
    return CertificateStore(
        records, keep=options.keep, retention=days, on_error=options.on_error, signer=signed
    )


def retention_days(text: str, name: str) -> int:
    """The days of a text such as "184d". Raises ConfigError."""
    if not re.fullmatch("[1-9][0-9]{0,4}d", text):
        raise ConfigError(f"{name} must be a number of days, such as '184d' (six months), not {text!r}")
    return int(text.removesuffix("d"))


def _options(table: Table) -> CertificateOptions:
    known, hints = [each.name for each in fields(CertificateOptions)], get_type_hints(CertificateOptions)
    for name, value in table.items():
        if name not in known:
            raise UnknownNameError("certificate option", name, known)
        if not has_type(value, hints[name]) or not value:
            raise ConfigError(f"{name} must be {type_in_words(hints[name])}, not {value!r}")
    _require_needed(table)
    return CertificateOptions(**table)


def _require_needed(table: Mapping[str, Any]) -> None:
    if not {"key", "store"} & table.keys():
        raise ConfigError(
            "neither key nor store is there; make a key with `purify keys new` and name the private one, "
            "or name a store"
        )
    for name, needed in NEED.items():
        for other in needed:
            if name in table and other not in table:
                raise ConfigError(f"{name} needs {other}, which is not there; add it, or leave {name} out")


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
