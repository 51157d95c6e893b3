"""Whose a request is, by its key, and how strict a policy it asks for, by its headers."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from purify_adapters.gateway.rejections import Rejected, invalid, overloaded

if TYPE_CHECKING:
    from starlette.requests import Request

    from purify_plugins.configuration.tenants import Tenant

NO_KEY = "the key is missing or wrong; send the header `Authorization: Bearer KEY`"
STRENGTH = "x-purify-strength"
ASKED = "x-purify-"
"""How the headers begin with which a request asks for something; one that is not known is refused."""


def key_digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def tenant_of(request: Request, api_key: str | None, tenants: Sequence[Tenant]) -> Tenant | None:
    """Whose key the request has; None: the gateway's own, or none is needed.

    Raises Rejected (401). The comparison takes the same time whichever key it is, right or wrong.
    """
    if api_key is None and not tenants:
        return None
    given = request.headers.getlist("authorization")
    key = given[0].removeprefix("Bearer ") if len(given) == 1 and given[0].startswith("Bearer ") else ""
    digest = hashlib.sha256(key.encode("latin-1")).hexdigest()
    own = api_key is not None and hmac.compare_digest(digest, key_digest(api_key))
    found = [
        each for each in tenants for known in each.key_sha256 if hmac.compare_digest(digest, known)
    ]  # all of them, so that the time shows no key
    if not key or not (own or found):
        raise Rejected(401, NO_KEY, www_authenticate="Bearer")
    return found[0] if found else None


def strength_of(request: Request) -> float:
    """The share of the policy's latitude that a request leaves, from 1 down to 0.

    Raises Rejected, naming the header, for one that would loosen the policy, or that is not known.
    """
    for name in request.headers:
        if name.startswith(ASKED) and name != STRENGTH:
            raise invalid(f"the header `{name[:64]}` is not known; there is `{STRENGTH}`", name[:64])
    given = request.headers.getlist(STRENGTH)
    if not given:
        return 1.0
    try:
        found = float(given[0]) if len(given) == 1 else -1.0
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        wrong = "is above 1 and would loosen the policy" if found > 1 else "is no number from 0 to 1"
        raise invalid(f"`{STRENGTH}` {wrong}; a request can only tighten it", STRENGTH)
    return found


class Shares:
    """How many requests of each tenant are under way."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()

    @contextmanager
    def held(self, tenant: Tenant | None) -> Iterator[None]:
        """One more request of a tenant. Raises Rejected (429) beyond its `max_concurrent`."""
        if tenant is None:
            yield
            return
        if tenant.max_concurrent is not None and self.running[tenant.name] >= tenant.max_concurrent:
            raise overloaded()
        self.running[tenant.name] += 1
        try:
            yield
        finally:
            self.running[tenant.name] -= 1
