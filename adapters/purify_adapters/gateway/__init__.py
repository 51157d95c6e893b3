"""`purify serve`: TGI's HTTP interface in front of a purifier.

>>> app = gateway(purifier, api_key="secret")  # an ASGI application
>>> app.serve(port=8080)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.app import Gateway
from purify_adapters.gateway.settings import Settings
from purify_plugins.errors import UnknownNameError

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

__all__ = ["Gateway", "Settings", "gateway"]


def gateway(purifier: Purifier, **settings: Any) -> Gateway:
    """The gateway around a purifier; the options are `Settings`' fields. Raises ConfigError."""
    for name in settings:
        if name not in Settings.__dataclass_fields__:
            raise UnknownNameError("setting of the gateway", name, Settings.__dataclass_fields__)
    return Gateway(purifier, Settings(**settings))
