"""A private key in a security module (PKCS #11), which signs and never gives it out.

The key is named by a URI (RFC 7512): `pkcs11:token=NAME;object=LABEL?module-path=FILE&pin-source=env:NAME`.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from purify_plugins.errors import ConfigError
from purify_plugins.signing.keys import PublicKey, SigningKey
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.locks import ForkedLock

SHAPE = "pkcs11:token=NAME;object=LABEL?module-path=FILE&pin-source=env:NAME"
PIN = "env:"


class TokenKey(SigningKey):
    """An Ed25519 key of a security module; its session is opened once, and asked by one thread at a time."""

    def __init__(self, uri: str) -> None:
        require_extra("pkcs11", f"the key {SHAPE.partition(':')[0]!r}")
        self._where, self._lock = _parsed(uri), ForkedLock()
        self._opened: tuple[int, Any, PublicKey] | None = None

    @cached_property
    def public(self) -> PublicKey:
        with self._lock:
            return self._open()[1]

    def sign(self, data: bytes) -> bytes:
        from pkcs11 import Mechanism
        from pkcs11.exceptions import PKCS11Error

        with self._lock:
            private, _ = self._open()
            try:
                return bytes(private.sign(data, mechanism=Mechanism.EDDSA))
            except PKCS11Error as error:
                raise ConfigError(f"the security module does not sign: {_said(error)}") from error

    def _open(self) -> tuple[Any, PublicKey]:
        """The private key, and the public one beside it; a forked process opens its own session."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *_found(self._where))
        return self._opened[1:]


def _parsed(uri: str) -> dict[str, str]:
    """The parts of a key's URI. Raises ConfigError."""
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    parts = {key: unquote(value) for key, _, value in (each.partition("=") for each in path.split(";"))}
    parts |= dict(parse_qsl(query))
    lacking = [key for key in ("token", "object", "module-path", "pin-source") if not parts.get(key)]
    if lacking or not parts["pin-source"].startswith(PIN):
        raise ConfigError(
            f"a key in a security module is written {SHAPE!r}; its PIN is never in a file of ours"
        )
    return parts


def _found(where: dict[str, str]) -> tuple[Any, PublicKey]:
    import pkcs11
    from pkcs11.exceptions import PKCS11Error

    variable = where["pin-source"].removeprefix(PIN)
    if not (pin := os.environ.get(variable)):
        raise ConfigError(f"the PIN's environment variable {variable!r} is not set")
    try:
        token = pkcs11.lib(where["module-path"]).get_token(token_label=where["token"])
        session = _session(token, pin)
        kind, label = pkcs11.KeyType.EC_EDWARDS, where["object"]
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, kind, label)
        public = session.get_key(pkcs11.ObjectClass.PUBLIC_KEY, kind, label)
        point = bytes(public[pkcs11.Attribute.EC_POINT])
    except (PKCS11Error, RuntimeError) as error:
        raise ConfigError(f"no key of a security module at {SHAPE!r}: {_said(error)}") from error
    return private, PublicKey(point[-32:])  # behind two bytes that say so: an octet string of 32


def _session(token: Any, pin: str) -> Any:
    """A session that may sign; a process logs in once to each token, and all its sessions are then."""
    from pkcs11.exceptions import UserAlreadyLoggedIn

    try:
        return token.open(user_pin=pin)
    except UserAlreadyLoggedIn:
        return token.open()


def _said(error: Exception) -> str:
    """What a module's error says; most have a name and no message."""
    return str(error) or type(error).__name__
