"""`purify serve`: TGI's and OpenAI's HTTP interfaces for a purifier.

>>> app = gateway(purifier, api_key="secret")  # an ASGI application
>>> app.serve(port=8080)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.app import Gateway
from purify_adapters.gateway.settings import Settings
from purify_plugins.errors import UnknownNameError

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

__all__ = ["Gateway", "Settings", "gateway"]


def gateway(purifier: Purifier | Callable[[], Purifier], **settings: Any) -> Gateway:
    """The gateway around a purifier; the options are `Settings`' fields. Raises ConfigError.

    A callable that returns the purifier is called after the settings are checked, because loading takes long.
    """
    for name in settings:
        if name not in Settings.__dataclass_fields__:
            raise UnknownNameError("setting of the gateway", name, Settings.__dataclass_fields__)
    checked = Settings(**settings)
    return Gateway(purifier() if callable(purifier) else purifier, checked)
