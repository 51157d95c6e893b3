"""A Ray Serve application of its own: `python -m tests.adapters.ray_driver PORT KEY=VALUE…`.

Prints `serving` once replicas serve. Each line on standard input deploys anew with further KEY=VALUE
arguments, and is answered by `deployed` or by the error's text; the end of the input ends everything.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "purify_adapters.ray_serve.proxy_middlewares"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def arguments(texts: list[str]) -> dict[str, Any]:
    return dict(text.split("=", 1) for text in texts)


def main() -> None:
    import ray
    from ray import serve

    from purify_adapters.ray_serve import ServeArguments, app

    port, *texts = sys.argv[1:]
    given = arguments(texts)
    gpus = float(given.pop("cluster_gpus", 0))
    # Ray kills replicas of a machine that is nearly full, whoever fills it; here that would be other tests.
    unwatched = {"memory_monitor_refresh_ms": 0}
    ray.init(num_cpus=8, num_gpus=gpus or None, include_dashboard=False, _system_config=unwatched)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port), "request_timeout_s": 40})
    serve.run(app(ServeArguments(**given)), name="purify")
    print("serving", flush=True)
    for line in sys.stdin:
        try:
            serve.run(app(ServeArguments(**given | arguments(line.split()))), name="purify")
            print("deployed", flush=True)
        except Exception as error:  # told to the test
            print(f"failed: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
