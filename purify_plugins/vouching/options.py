"""`card`, `signature` and `signature_key`: the keys of a model's table that every source takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_bytes
from purify_plugins.vouching.bundle import Bundle, SignatureKey
from purify_plugins.vouching.card import ProvenanceCard, read_card

MOST = 1 << 24
"""The most bytes of a card, a signature or a key; a signature has 150 for each file that it is of."""


@dataclass(frozen=True, kw_only=True)
class VouchingOptions:
    """Keys of `[llm]` and `[slm]`, whatever their source, where the model's files are here."""

    card: str | Path | None = None
    """The model's provenance card, a file of `purify slm card`; a card of another model is refused."""
    signature: str | Path | None = None
    """The signature of the model's directory or GGUF file, as `model_signing` writes it: a model that is not
    as it was signed is refused before its weights are loaded."""
    signature_key: str | Path | None = None
    """Needed with `signature`: the signer's public key (PEM, an elliptic curve), or the certificate (PEM) of
    an authority whose certified signers are all trusted."""

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Self | None:
        """The keys of a model's table; None where it has none. Raises ConfigError."""
        found = {key: value for key, value in keys.items() if key in NAMES}
        for key, value in found.items():
            if not isinstance(value, str | Path) or not str(value).strip():
                raise ConfigError(f"{key} must be the path of a file, not {value!r}")
        if not found:
            return None
        if "signature" in found and "signature_key" not in found:
            raise ConfigError(
                "signature says nothing without signature_key; name the file of the signer's public key"
            )
        if "signature_key" in found and "signature" not in found:
            raise ConfigError("signature_key checks nothing without signature; name the signature's file too")
        return cls(**found)

    def read(self, where: str) -> Vouchers:
        """What the files say; `where` they are named, for errors. Raises ConfigError, ModelError."""
        card = None if self.card is None else read_card(_content(self.card, "card"), str(self.card))
        if self.signature is None or self.signature_key is None:
            return Vouchers(where, card, None, None)
        key = SignatureKey.read(_content(self.signature_key, "signature_key"), str(self.signature_key))
        bundle = Bundle.read(_content(self.signature, "signature"), str(self.signature))
        bundle.require_key(key)
        return Vouchers(where, card, bundle, key)


NAMES = tuple(each.name for each in fields(VouchingOptions))
"""The keys."""


@dataclass(frozen=True)
class Vouchers:
    """What vouches for a model, read once; `where` it was named."""

    where: str
    card: ProvenanceCard | None
    bundle: Bundle | None
    key: SignatureKey | None

    def told(self) -> dict[str, Any]:
        """What a certificate says of them: digests, by which a reader knows the files again."""
        found: dict[str, Any] = {}
        if self.card is not None:
            found["card"] = {"sha256": self.card.sha256}
        if self.bundle is not None and self.key is not None:
            found["signature"] = {"sha256": self.bundle.sha256, "key": self.key.id}
        return found


def vouching_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's identity says of its card and its signature."""
    return {key: identity[key] for key in ("card", "signature") if key in identity}


def without(keys: Mapping[str, Any]) -> dict[str, Any]:
    """A model's table without these keys: what its source takes."""
    return {key: value for key, value in keys.items() if key not in NAMES}


def refuse_unseen(keys: Mapping[str, Any], what: str) -> None:
    """Raise ConfigError for these keys where `what` says why the model's files are not seen."""
    for key in NAMES:
        if key in keys:
            raise ConfigError(f"{key} cannot be checked: {what}; leave it out")


def _content(file: str | Path, what: str) -> bytes:
    place = Path(file).expanduser()
    if place.exists() and not place.is_file():
        raise ConfigError(f"{what} names {str(file)!r}, which is no file; name a file")
    if place.exists() and (size := place.stat().st_size) > MOST:
        raise ConfigError(f"{what} names {str(file)!r} with {size:,} bytes; name another file")
    try:
        return read_bytes(place)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
