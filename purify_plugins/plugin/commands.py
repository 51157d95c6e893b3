"""What commands of every kind share, so that none need import the command line that it is a part of."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration; default purify.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, nothing else.")]


def key_value(text: str) -> tuple[str, Any]:
    """`key=value`, the value as TOML reads it, else as it stands."""
    key, equals, value = text.partition("=")
    if key.strip() == "name":
        raise ConfigError("--set gives a field of the policy; name the policy itself with --policy")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, such as --set alpha=0.3, not {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


@contextmanager
def kept(what: str) -> Iterator[None]:
    """Say, when Ctrl-C ends long work, what is left of it. Raises Exit."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {what}", err=True)
        raise typer.Exit(130) from None


def hush() -> None:
    """Keep transformers' progress bars out of the terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def in_use(config: Path | None) -> Plugins:
    """The plugins the configuration names, or $PURIFY_PLUGINS; the bundled ones where neither does."""
    from purify_plugins.plugin.manager import load_plugins

    return load_plugins(named_plugins(config))


def named_plugins(config: Path | None) -> tuple[str, ...] | None:
    """The third-party plugins the configuration names; None: it names none, so $PURIFY_PLUGINS does."""
    from purify_plugins.configuration.build import read_config

    return tuple(read_config(config).plugins) or None if configuration_exists(config) else None


def configuration_exists(named: Path | None) -> bool:
    """Whether there is a configuration to read: one named, or the working directory's."""
    return bool(named or os.environ.get("PURIFY_CONFIG") or Path("purify.toml").is_file())
