"""The Serve deployment: a replica runs the gateway, and changes to another configuration while it serves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve

from purify_adapters.gateway import gateway
from purify_adapters.ray_serve.gateway_switch import GatewaySwitch
from purify_plugins.configuration.build import Prepared, prepare
from purify_plugins.configuration.config import check_config
from purify_plugins.configuration.digest import config_digest
from purify_plugins.configuration.find import find_config, read_table
from purify_plugins.configuration.preflight import refuse_one
from purify_plugins.errors import ConfigError
from purify_plugins.purifier import Purifier

if TYPE_CHECKING:
    from purify_adapters.gateway import Gateway
    from purify_adapters.ray_serve.arguments import ServeArguments

log = logging.getLogger("purify.gateway")
PROXY_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Serve's own variable; only the environment in which Ray starts can add to its proxies."""
UserConfig = Mapping[str, Any]
"""What Serve hands to every replica: JSON, and shown on Ray's dashboard, so it holds no secret.

`file` is the configuration's path, `configuration` its table (None: replicas read the file), `settings` the
gateway's, `api_key_env` the variable with the clients' key. A Serve config file that changes any of it, or a
further key such as `revision`, has every replica load it anew.
"""


class PurifyReplica:
    """A replica: the gateway of the configuration that Serve has handed over last."""

    def __init__(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        self.switch = GatewaySwitch()

    def __serve_build_asgi_app__(self) -> GatewaySwitch:
        return self.switch

    async def reconfigure(self, user_config: UserConfig) -> None:
        """Load a configuration, then serve by it; answers that run end by the one before.

        Raises PurifyError: Serve then replaces this replica, and updates no other.
        """
        # In a thread: the answers that run go on meanwhile.
        self.switch.change(await asyncio.to_thread(built, user_config))


def application(arguments: ServeArguments) -> Any:
    """The deployment with its options and configuration bound. Raises PurifyError."""
    if not os.environ.get(PROXY_VARIABLE):
        log.warning(
            "%s is not set: streams of a replica that dies end without an error event; "
            "set it to purify_adapters.ray_serve.proxy_middlewares before Ray starts",
            PROXY_VARIABLE,
        )
    file = find_config(arguments.config).absolute()
    user_config = {
        "file": str(file),
        "configuration": read_table(file),
        "settings": arguments.settings,
        "api_key_env": arguments.api_key_env,
    }
    prepared(user_config)
    deployment = serve.deployment(serve.ingress()(PurifyReplica))
    return deployment.options(**arguments.options, user_config=user_config).bind()


def prepared(user_config: UserConfig) -> Prepared:
    """The configuration, checked before a model is read. Raises PurifyError."""
    file = Path(user_config["file"])
    ready = prepare(check_config(user_config.get("configuration") or read_table(file), file))
    refuse_one(ready.previews["llm"], ready.previews["slm"])
    return ready


def built(user_config: UserConfig) -> Gateway:
    """The gateway of a configuration, both models loaded. Raises PurifyError."""
    ready = prepared(user_config)
    settings = {**user_config.get("settings", {}), "api_key": _key(user_config)}

    def loaded() -> Purifier:
        return ready.load(Purifier).replace(configuration=config_digest(ready.config))

    return gateway(loaded, **settings)


def _key(user_config: UserConfig) -> str | None:
    variable = user_config.get("api_key_env")
    if variable is None:
        return None
    if not os.environ.get(variable):  # "" is a mistake too, and no open door
        raise ConfigError(f"api_key_env names {variable!r}, which is not set in the replica's environment")
    return os.environ[variable]
