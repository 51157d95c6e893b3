"""`purify serve` on SIGHUP: the configuration is read anew, and taken over whole or not at all."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from purify_plugins.cli.options import load_pair, prepared
from purify_plugins.cli.worker_reload import note
from purify_plugins.configuration.digest import config_digest
from purify_plugins.configuration.tenants import tenants_of
from purify_plugins.errors import ConfigError, PurifyError

if TYPE_CHECKING:
    from purify_plugins.configuration.config import Config
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

SETTLED = 0.2
"""Seconds between two readings that must be equal: a file that is still being written is not taken."""
TRIES = 25
FIXED = "address, --workers, keys and limits of the command line stay as they are until a restart"
GOES_ON = "the configuration of before goes on"


class Hangups:
    """The SIGHUPs that came and were not acted on yet; several count as one.

    Signals interrupt their own handlers: of two in a row, the second waited for ever for the lock that
    `threading.Event.set` held in the first. A SimpleQueue's `put` may be interrupted, and runs no Python.
    """

    def __init__(self) -> None:
        self._came: SimpleQueue[Any] = SimpleQueue()
        self.came: Callable[..., None] = self._came.put

    def wait(self) -> None:
        """Block until one has come."""
        self._came.get()
        self.taken()

    def taken(self) -> bool:
        """Whether one has come; from now on none has."""
        found = False
        with suppress(Empty):
            while True:
                self._came.get_nowait()
                found = True
        return found


@contextmanager
def hangups() -> Iterator[Hangups]:
    """The SIGHUPs of this block."""
    found = Hangups()
    if sys.platform == "win32":  # which sends none
        yield found
        return
    before = signal.signal(signal.SIGHUP, found.came)
    try:
        yield found
    finally:
        signal.signal(signal.SIGHUP, before)


def settled(read: Callable[[], Config]) -> Config:
    """The configuration, once two readings in a row agree. Raises ConfigError."""
    for _ in range(TRIES):
        found = read()
        time.sleep(SETTLED)
        if read() == found:
            return found
    raise ConfigError("the configuration is still being written; send SIGHUP again when it is whole")


def renewed(config: Config, before: Config, models: Mapping[str, LogitSource]) -> Purifier:
    """The Purifier of a configuration; a model whose settings are those of `before` is not loaded again.

    Raises PurifyError.
    """
    same = config.plugins == before.plugins
    kept = {
        side: model for side, model in models.items() if same and vars(config)[side] == vars(before)[side]
    }
    return load_pair(prepared(config), kept).replace(configuration=config_digest(config))


def told(config: Config, before: Config) -> str:
    """What a reload has changed, in a line."""
    changed = [each.name for each in fields(config) if vars(config)[each.name] != vars(before)[each.name]]
    loaded = [side for side in ("llm", "slm") if side in changed or "plugins" in changed]
    return (
        f"reloaded: configuration {config_digest(config)}; changed: {', '.join(changed)}; "
        f"models loaded: {', '.join(loaded) or 'none'}; {FIXED}"
    )


def reading(read: Callable[[], Config], before: Config) -> Config | None:
    """The configuration after SIGHUP; None, with a line on standard error, if it is bad or the same."""
    try:
        found = settled(read)
    except (Exception, SystemExit) as error:  # a plugin's too: the service goes on
        refused(error)
        return None
    if found == before:
        note(f"reload: nothing has changed, configuration {config_digest(found)} goes on")
        return None
    return found


def refused(error: BaseException | str) -> None:
    """Say that a configuration is refused."""
    why = str(error) if isinstance(error, PurifyError | str) else f"{type(error).__name__}: {error}"
    note(f"reload refused: {' '.join(why.split())}; {GOES_ON}")


class Attempts:
    """The configuration a gateway runs by, and what makes it run by another."""

    def __init__(self, config: Config, gateway: Any) -> None:
        self.config, self.gateway = config, gateway

    def attempt(self, config: Config) -> Callable[[], None]:
        """Load what a configuration describes; the result takes it over. Raises PurifyError."""
        purifier = renewed(config, self.config, self.gateway.models)
        succeed = self.gateway.successor(purifier, tenants_of(config, purifier.plugins))

        def take() -> None:
            succeed()
            self.config = config

        return take


class Reloads:
    """Takes over the configuration of one process after every SIGHUP, on a thread of its own."""

    def __init__(self, read: Callable[[], Config], config: Config, gateway: Any) -> None:
        self.read, self.attempts = read, Attempts(config, gateway)

    def start(self, hangup: Hangups) -> None:
        threading.Thread(target=self._run, args=(hangup,), daemon=True, name="purify-reload").start()

    def _run(self, hangup: Hangups) -> None:
        while True:
            hangup.wait()  # signals during a reload cause one more
            if (config := reading(self.read, self.attempts.config)) is not None:
                self._take(config)

    def _take(self, config: Config) -> None:
        before = self.attempts.config
        try:
            self.attempts.attempt(config)()
        except (Exception, SystemExit) as error:  # of a model or a plugin: the service goes on
            refused(error)
        else:
            note(told(config, before))
