"""A pool of the tasks of a Ray cluster, with the interface of `worker_pool`: `purify eval --ray`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from purify_plugins.decode.draw_keys import adopt, secret
from purify_plugins.errors import PurifyError
from purify_plugins.utils.extras import require_extra

P = ParamSpec("P")
T = TypeVar("T")


class RayPool(ThreadPoolExecutor):
    """An executor whose calls are tasks of the cluster, at most `count` at once; a thread waits for each."""

    def __init__(self, count: int) -> None:
        import ray

        super().__init__(count, "purify-ray")
        # One core each, so that Ray gives a process one thread, and an evaluation the cells of one machine.
        self._task = ray.remote(num_cpus=1)(_measure)
        self._secret = secret()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a process of the cluster call `fn`. The future raises what the call raised, or PurifyError."""
        return super().submit(self._called, fn, args, kwargs)

    def _called(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        import ray

        try:
            found: T = ray.get(self._task.remote(self._secret, fn, args, kwargs))
        except ray.exceptions.RayTaskError as error:  # Ray's class around the task's own error
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise PurifyError(
                f"a process of the cluster that was measuring has died ({type(error).__name__}); see "
                "Ray's logs, free some memory, or measure with fewer at once (`--jobs`)"
            ) from error
        return found


@contextmanager
def ray_pool(count: int = 0) -> Iterator[RayPool]:
    """At most `count` tasks at once, 0: as many as the cluster has cores.

    The cluster is that of $RAY_ADDRESS or of this machine; without one, one is started and ended here.
    The models and the plugins must be on every machine of it, at the same paths.
    """
    require_extra("ray", "purify eval --ray")
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False)
    pool = RayPool(count or max(int(ray.cluster_resources().get("CPU", 1)), 1))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if ours:
            ray.shutdown()  # which ends the tasks that run, and so the threads that wait for them


def _measure(known: bytes, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
    """Call `fn` in a process of the cluster as in one of `worker_pool`: the parent's secret, one thread."""
    import warnings

    import torch
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    adopt(known)
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    return fn(*args, **kwargs)
