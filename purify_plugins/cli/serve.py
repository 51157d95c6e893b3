"""`purify serve`: the gateway, as an adapter offers it."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.metrics_folder import metrics_folder
from purify_plugins.cli.options import ModelOptions, configured, load_pair, prepared, spread
from purify_plugins.cli.reload import Attempts, Hangups, Reloads, hangups, reading, refused, told
from purify_plugins.cli.serve_summary import Address, named, summary
from purify_plugins.cli.worker_reload import note
from purify_plugins.configuration.digest import config_digest
from purify_plugins.configuration.tenants import tenants_of, with_keys
from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.utils.extras import require_extra

if TYPE_CHECKING:
    from purify_plugins.cli.workers import WorkerReport
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.configuration.config import Config
    from purify_plugins.purifier import Purifier


@dataclass(frozen=True)
class Upstream:
    """The untrusted model on a server of its own."""

    upstream: Annotated[str | None, typer.Option(help="The URL of the server with the untrusted model.")] = (
        None
    )
    upstream_kind: Annotated[
        str | None,
        typer.Option(help="`tgi`, `vllm`, `llama_cpp` or `llama_cpp_python`; `auto` asks it. [auto]"),
    ] = None
    tokenizer: Annotated[
        str | None, typer.Option(help="That model's tokenizer: a directory or hub id. [the SLM's]")
    ] = None
    upstream_key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the upstream server's own key.")
    ] = None
    on_upstream_failure: Annotated[
        str | None,
        typer.Option(help="`refuse`, or `slm`: go on with the benign model alone, flagged. [refuse]"),
    ] = None

    def given_for_server(self) -> list[str]:
        """The given options that need --upstream."""
        given = {
            "--upstream-kind": self.upstream_kind,
            "--tokenizer": self.tokenizer,
            "--upstream-key-env": self.upstream_key_env,
        }
        return [option for option, value in given.items() if value is not None]


@dataclass(frozen=True)
class Limits:
    """The gateway's own settings; None: its default."""

    api_key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the key that clients must send.")
    ] = None
    model_id: Annotated[str | None, typer.Option(help="What clients see as the model's name.")] = None
    max_concurrent: Annotated[int | None, typer.Option(help="Answers written at once. [128]")] = None
    queue: Annotated[int | None, typer.Option(help="Requests that may wait; one more gets 429. [256]")] = None
    deadline: Annotated[float | None, typer.Option(help="Seconds an answer may take. [300]")] = None
    drain: Annotated[float | None, typer.Option(help="Seconds answers have left after SIGTERM. [20]")] = None
    patience: Annotated[
        float | None,
        typer.Option(help="Seconds a client may take to send a request, or be silent after an answer. [15]"),
    ] = None
    certificates: Annotated[
        int | None, typer.Option(help="Keep so many certificates at /certificates/DIGEST. [0]")
    ] = None
    require_guarantee: Annotated[
        bool,
        typer.Option("--require-guarantee", help="Refuse requests whose answer could claim no guarantee."),
    ] = False

    def given(self) -> dict[str, Any]:
        """The given settings, with the key read from its environment variable."""
        typed = {name: value for name, value in vars(self).items() if value is not None}
        if (variable := typed.pop("api_key_env", None)) is not None:  # "" is a mistake too, and no open door
            if not os.environ.get(variable):
                raise ConfigError(f"--api-key-env names {variable!r}, which is not set in the environment")
            typed["api_key"] = os.environ[variable]
        return typed


@spread
def serve(
    models: ModelOptions,
    upstream: Upstream,
    limits: Limits,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.")] = 8080,
    store: Annotated[
        str | None,
        typer.Option(metavar="sqlite:FILE|DIR", help="Record every certificate there. [[certificate] store]"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that serve the port, each with both models in memory.")
    ] = 1,
) -> None:
    """Serve purified text over TGI's and OpenAI's HTTP interfaces."""
    require_extra("tgi", "purify serve")
    settings = limits.given()
    config = (read := partial(_configured, models, upstream, store))()
    if workers < 1:
        raise ConfigError(f"--workers must be 1 or more, not {workers}")
    with listening(host, port) as listener, hangups() as hangup:  # a wrong address fails before all else
        ready = prepared(config)
        loading = f"loading {named(config.llm)} and {named(config.slm)} …"
        address = Address(host, listener.getsockname()[1], limits.api_key_env)
        if workers > 1:
            _check(ready, settings, workers)
            typer.echo(loading, err=True)
            raise typer.Exit(_several(read, config, settings, listener, address, workers, hangup))
        gateway = _gateway(ready, settings, lambda: typer.echo(loading, err=True))
        typer.echo(summary(gateway.purifier, config.llm, address), err=True)
        Reloads(read, config, gateway).start(hangup)
        gateway.serve(listener)


def _gateway(ready: Prepared, settings: dict[str, Any], loading: Callable[[], None]) -> Any:
    """The gateway; the pair is loaded after the settings have been checked."""

    def loaded() -> Purifier:
        loading()
        return load_pair(ready).replace(configuration=config_digest(ready.config))

    tenants = tenants_of(ready.config, ready.plugins)
    offered = {"purifier": loaded, "tenants": tenants, **settings}
    return ready.plugins.make("purify_adapters", "gateway", offered)


class _Checked(Exception):
    """The settings are right."""


def _check(ready: Prepared, settings: dict[str, Any], workers: int) -> None:
    """Raise ConfigError for settings that no worker could serve by; nothing is read."""

    def right() -> None:
        raise _Checked

    with suppress(_Checked):
        _gateway(ready, {**settings, "workers": workers}, right)


def _several(
    read: Callable[[], Config],
    config: Config,
    settings: dict[str, Any],
    listener: socket.socket,
    address: Address,
    workers: int,
    hangup: Hangups,
) -> int:
    """Serve by several processes until all have ended; returns the exit code."""
    from purify_plugins.cli.workers import Workers, WorkerStarted

    def said(first: WorkerStarted) -> None:
        typer.echo(first.summary, err=True)

    def renew(running: Workers) -> None:
        before, *rest = running.arguments
        if (found := reading(read, before)) is None:
            return
        if why := running.offer(found, (found, *rest)):
            refused(why)
        else:
            note(told(found, before))

    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with metrics_folder():
        where = listener.family, listener.getsockname()
        arguments = (config, {**settings, "workers": workers}, where, address)
        drain = settings.get("drain", 20.0)
        return Workers(_serve, arguments, workers, drain, hangup.taken, renew).run(said)


def _serve(
    report: WorkerReport, config: Config, settings: dict[str, Any], where: tuple[int, Any], at: Address
) -> None:
    """One worker: a listener of its own on the port, among which the kernel spreads connections."""
    from purify_plugins.cli.workers import WorkerFailed, WorkerStarted

    warnings.simplefilter("ignore")
    family, address = where
    try:
        gateway = _gateway(prepared(config), settings, lambda: None)
    except PurifyError as error:
        said = " ".join(str(error).split())
        report.tell(WorkerFailed(said, error.exit_code))
        raise SystemExit(error.exit_code) from None
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        report.attempt = Attempts(config, gateway).attempt
        report.tell(WorkerStarted(summary(gateway.purifier, config.llm, at, settings["workers"])))
        gateway.serve(listener)


BACKLOG = 2048
"""Connections that may wait to be accepted, as uvicorn has it."""


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises ConfigError for an address that cannot be bound."""
    if not 0 <= port < 65536:
        raise ConfigError(f"--port must be between 0 (any that is free) and 65535, not {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} names no address; use 127.0.0.1, or 0.0.0.0 for all") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        advice = UNBOUND.get(error.errno or 0, "choose another --host or --port")
        raise ConfigError(f"cannot listen at {host}:{port} ({error.strerror}); {advice}") from error
    return found


UNBOUND = {
    errno.EADDRINUSE: "something listens there already: choose another --port",
    errno.EACCES: "ports below 1024 need privileges: choose another --port",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another --host",
}
"""Advice by errno, for an address that cannot be bound."""


def _configured(models: ModelOptions, upstream: Upstream, store: str | None = None) -> Config:
    """The configuration, overridden by the command line's options."""
    from purify_plugins.configuration.config import Named
    from purify_plugins.store.places import absolute

    if upstream.upstream is None and (lost := upstream.given_for_server()):
        raise ConfigError(f"{lost[0]} is about the server that --upstream names; give --upstream URL too")
    if upstream.upstream is not None and models.llm:
        raise ConfigError("give --upstream or --llm, not both: there is one untrusted model")
    if upstream.on_upstream_failure not in (None, "refuse", "slm"):
        raise ConfigError(f"--on-upstream-failure is 'refuse' or 'slm', not {upstream.on_upstream_failure!r}")
    config = configured(models if upstream.upstream is None else replace(models, llm="a server"))
    typed: dict[str, Any] = {}
    if upstream.upstream is not None:
        typed["llm"] = Named.at("--upstream:", _server(upstream, config.slm))
    if upstream.on_upstream_failure:
        typed["on_llm_failure"] = upstream.on_upstream_failure
    if store is not None:
        kept = config.certificate
        folder = kept.folder if isinstance(kept, Named) else Path()
        typed["certificate"] = Named.at("--store:", {**kept, "store": absolute(store)}, folder)
    return with_keys(replace(config, **typed))


def _server(upstream: Upstream, slm: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model on a server."""
    table = {"source": "server", "url": upstream.upstream, "kind": upstream.upstream_kind or "auto"}
    table["tokenizer"] = upstream.tokenizer or slm.get("model")
    key = upstream.upstream_key_env
    return {**table, **({} if key is None else {"api_key_env": key})}
