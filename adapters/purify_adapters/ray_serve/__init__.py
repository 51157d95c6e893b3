"""The gateway as a Ray Serve application: replicas, autoscaling, and a rolling update of the configuration.

$ export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=purify_adapters.ray_serve.proxy_middlewares
$ serve run purify_adapters.ray_serve:app config=purify.toml replicas=2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_adapters.ray_serve.arguments import ServeArguments
from purify_plugins.utils.extras import require_extra

if TYPE_CHECKING:
    from starlette.middleware import Middleware

__all__ = ["ServeArguments", "app", "proxy_middlewares"]


def app(arguments: ServeArguments) -> Any:
    """The Serve application of a `purify.toml`; `serve run` passes its KEY=VALUE arguments.

    The configuration is checked here, before Serve changes a replica. Raises PurifyError.
    """
    require_extra("tgi", "the gateway")
    require_extra("ray", "purify_adapters.ray_serve")
    from purify_adapters.ray_serve.deployment import application

    return application(arguments)


def proxy_middlewares() -> list[Middleware]:
    """What Serve's HTTP proxies run around every request; named by `PROXY_VARIABLE`."""
    from starlette.middleware import Middleware

    from purify_adapters.ray_serve.answer_guard import AnswerGuard

    return [Middleware(AnswerGuard)]
