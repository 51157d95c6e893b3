"""`purify serve`: the gateway, as an adapter offers it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import Models, configured, hush, spread
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_plugins.config import Config


@dataclass(frozen=True)
class Upstream:
    """The untrusted model on a server of its own."""

    upstream: Annotated[
        str | None, typer.Option(help="The URL of the TGI server with the untrusted model.")
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


@dataclass(frozen=True)
class Limits:
    """The gateway's own settings; what is not given is its default."""

    api_key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the key that clients must send.")
    ] = None
    model_id: Annotated[str | None, typer.Option(help="What clients see as the model's name.")] = None
    max_concurrent: Annotated[int | None, typer.Option(help="Answers written at once. [128]")] = None
    queue: Annotated[int | None, typer.Option(help="Requests that may wait; one more gets 429. [256]")] = None
    deadline: Annotated[float | None, typer.Option(help="Seconds an answer may take. [300]")] = None
    drain: Annotated[float | None, typer.Option(help="Seconds answers have left after SIGTERM. [20]")] = None
    certificates: Annotated[
        int | None, typer.Option(help="Keep so many certificates at /certificates/DIGEST. [0]")
    ] = None

    def given(self) -> dict[str, Any]:
        """The settings somebody typed, the key read from where it is."""
        typed = {name: value for name, value in vars(self).items() if value is not None}
        if variable := typed.pop("api_key_env", None):
            if not os.environ.get(variable):
                raise ConfigError(f"--api-key-env names {variable!r}, which is not set in the environment")
            typed["api_key"] = os.environ[variable]
        return typed


@spread
def serve(
    models: Models,
    upstream: Upstream,
    limits: Limits,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.")] = 8080,
) -> None:
    """Serve purified text over TGI's own HTTP interface."""
    from purify_plugins.config import build
    from purify_plugins.purifier import Purifier

    settings = limits.given()
    config = _configured(models, upstream)
    hush()
    purifier = build(config, Purifier)
    gateway = purifier.plugins.make("purify_adapters", "gateway", {"purifier": purifier, **settings})
    gateway.serve(host, port)


def _configured(models: Models, upstream: Upstream) -> Config:
    """The configuration, with what was typed in place of what it says."""
    if upstream.upstream and models.llm:
        raise ConfigError("give --upstream or --llm, not both: there is one untrusted model")
    config = configured(replace(models, llm=upstream.upstream or models.llm))
    typed: dict[str, Any] = {}
    if upstream.upstream:
        typed["llm"] = _server(upstream, config.slm)
    if upstream.on_upstream_failure:
        typed["on_llm_failure"] = upstream.on_upstream_failure
    return replace(config, **typed)


def _server(upstream: Upstream, slm: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model on a TGI server."""
    table = {"source": "tgi", "url": upstream.upstream, "tokenizer": upstream.tokenizer or slm.get("model")}
    return {**table, **({"api_key_env": upstream.upstream_key_env} if upstream.upstream_key_env else {})}
