"""What commands share: options, reading the configuration and the plugins in use, loading both models."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from purify_plugins.errors import ConfigError, UnreadableError
from purify_plugins.plugin.manager import Plugins
from purify_plugins.utils.files import read_text
from purify_plugins.verifying.wanted import key_value

if TYPE_CHECKING:
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.configuration.config import Config
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration; default purify.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, nothing else.")]


@dataclass(frozen=True)
class ModelOptions:
    """The models and the policy; options that are not given come from the configuration."""

    llm: Annotated[str | None, typer.Option(help="The untrusted model: a directory or a hub id.")] = None
    slm: Annotated[str | None, typer.Option(help="The benign model: a directory or a hub id.")] = None
    policy: Annotated[str | None, typer.Option(help="The fusion policy; see `purify policies`.")] = None
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the policy; repeatable."),
    ] = None
    config: ConfigFile = None


@dataclass(frozen=True)
class SamplingOptions:
    """Every field of Sampling; options that are not given come from the configuration."""

    max_tokens: Annotated[int | None, typer.Option(help="Tokens at most. [256]")] = None
    temperature: Annotated[float | None, typer.Option(help="0 takes the arg-max. [1]")] = None
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest; 0: off. [0]")] = None
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest with this mass. [1]")] = None
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens this likely, as a share of the best. [0]")
    ] = None
    typical_p: Annotated[
        float | None, typer.Option(help="Only the most typical tokens with this mass. [1]")
    ] = None
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 avoids what was said. [1]")] = None
    frequency_penalty: Annotated[float | None, typer.Option(help="Nats off for each earlier use. [0]")] = None
    seed: Annotated[
        int | None, typer.Option(help="Draw the same answer again, under the same $PURIFY_SECRET.")
    ] = None
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; repeatable.")] = None
    ignore_eos: Annotated[
        bool | None, typer.Option("--ignore-eos", help="Never end before max_tokens.", show_default=False)
    ] = None
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer with JSON that this schema describes.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        typed = {name: value for name, value in asdict(self).items() if value not in (None, [])}
        if schema := typed.pop("json_schema", None):
            typed["grammar"] = {"kind": "json_schema", "text": read_text(schema)}
        return typed


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command's dataclass parameters into one option a field."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    def spreading(**given: Any) -> None:
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})  # type: ignore[operator]  # dataclass types, seen above
            for name, group in groups.items()
        }
        command(**built, **given)

    parameters = [
        taken
        for parameter in inspect.signature(command).parameters.values()
        for taken in _taken(parameter.replace(annotation=hints[parameter.name]))
    ]
    spreading.__name__, spreading.__doc__ = command.__name__, command.__doc__
    spreading.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    spreading.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads
    return spreading


def _taken(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameter, or one for each of its fields."""
    group = parameter.annotation
    if not is_dataclass(group):
        return [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def configured(models: ModelOptions, draws: SamplingOptions | None = None) -> Config:
    """The configuration, overridden by the command line's options.

    With both models given and no --config, no file is read.
    """
    from purify_plugins.configuration.config import Config

    alone = models.llm and models.slm and not models.config
    base = Config(llm={}, slm={}) if alone else _base(models)
    typed: dict[str, Any] = {
        side: {"model": model} for side, model in (("llm", models.llm), ("slm", models.slm)) if model
    }
    said = _policy(models.policy, base)
    typed["policy"] = {**said, **dict(map(key_value, models.set))} if models.set else said
    typed["calibration"] = base.calibration if typed["policy"] == base.policy else {}
    typed["sampling"] = {**base.sampling, **(draws.given() if draws else {})}
    return replace(base, **typed)


def _base(models: ModelOptions) -> Config:
    """The configuration a command line builds on. Raises ConfigError for one model without the other."""
    from purify_plugins.configuration.config import read_config

    if (models.llm or models.slm) and not configuration_exists(models.config):
        missing = "--slm" if models.llm else "--llm"
        raise ConfigError(
            f"{missing} is missing, and there is no purify.toml here to name that model; purifying takes "
            "two, an untrusted LLM and a benign SLM"
        )
    return read_config(models.config)


def _policy(name: str | None, base: Config) -> dict[str, Any]:
    """The configured policy's fields belong to it alone: another name starts afresh."""
    return base.policy if name in (None, base.policy.get("name")) else {"name": name}


def prepared(config: Config) -> Prepared:
    """A configuration, checked before any model is read. Raises PurifyError."""
    from purify_plugins.configuration.preflight import refuse_one

    ready = checked(config)
    refuse_one(ready.previews["llm"], ready.previews["slm"])
    return ready


def checked(config: Config) -> Prepared:
    """A checked configuration; warns where the two models may be swapped. Raises PurifyError."""
    from purify_plugins.configuration.build import prepare

    ready = prepare(config)
    llm, slm = (ready.previews[side].numbers for side in ("llm", "slm"))
    if llm and slm and slm > llm:
        typer.echo(
            f"warning: the SLM, which is trusted, has {slm:,} weights and the LLM {llm:,}; if they are "
            "swapped, nothing is protected",
            err=True,
        )
    disable_progress_bars()
    return ready


def load_pair(ready: Prepared, kept: Mapping[str, LogitSource] | None = None) -> Purifier:
    """The loaded Purifier, with the models `kept`; a server's errors are raised, and not logged as well."""
    import logging

    from purify_plugins.purifier import Purifier
    from purify_plugins.utils.logs import errors_only

    with errors_only(logging.getLogger("purify.remote")):
        return ready.load(Purifier, kept or {})


def contents(file: str) -> bytes:
    """A file's bytes; `-` is standard input. Raises UnreadableError."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableError(
            f"cannot read {file!r}: {said}; give the path of a file, or - for standard input"
        ) from error


@contextmanager
def on_interrupt(what: str) -> Iterator[None]:
    """On Ctrl-C print `what` is kept, and exit with 130. Raises Exit."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {what}", err=True)
        raise typer.Exit(130) from None


def disable_progress_bars() -> None:
    """Keep transformers' progress bars out of the terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def in_use(config: Path | None) -> Plugins:
    """The plugins the configuration names, or $PURIFY_PLUGINS; the bundled ones where neither does."""
    from purify_plugins.plugin.manager import load_plugins

    return load_plugins(named_plugins(config))


def named_plugins(config: Path | None) -> tuple[str, ...] | None:
    """The third-party plugins the configuration names; None: it names none, so $PURIFY_PLUGINS does."""
    from purify_plugins.configuration.config import read_config

    return tuple(read_config(config).plugins) or None if configuration_exists(config) else None


def configuration_exists(named: Path | None) -> bool:
    """Whether there is a configuration to read: one named, or the working directory's."""
    from purify_plugins.configuration.find import found_here

    return bool(named or os.environ.get("PURIFY_CONFIG") or found_here())
