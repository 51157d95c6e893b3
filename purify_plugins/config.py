"""`purify.toml` -> Purifier. Unknown keys are errors with the nearest known name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugins import Plugins, load_plugins
from purify_plugins.types import Sampling

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

    P = TypeVar("P", bound=Purifier)

Table = dict[str, Any]


class Activation(BaseModel):
    """What `purify run` and `activate` go by; names are a model's directory or hub id, or a server's URL."""

    model_config = ConfigDict(extra="forbid", strict=True)

    untrusted: Annotated[
        list[str], Field(description='What is purified; `"*"`, the default, is everything not trusted.')
    ] = ["*"]
    trusted: Annotated[list[str], Field(description="What writes as it likes, without purification.")] = []
    tokenizer: Annotated[
        str | None, Field(description="The tokenizer's directory, for models in memory that name none.")
    ] = None
    status: Annotated[
        str | None, Field(description="A directory in which every process says what it has purified.")
    ] = None


class Config(BaseModel):
    """Everything `purify.toml` may say. `[llm]`, `[slm]` and `[policy]` keys belong to what they name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    plugins: Annotated[
        list[str],
        Field(description="Third-party plugins to load, by entry point or distribution; default none."),
    ] = []
    llm: Annotated[
        Table,
        Field(description="The untrusted model: `source` (default `local`) and that source's own keys."),
    ]
    slm: Annotated[
        Table, Field(description="The benign model, which must be trusted; the same keys as `[llm]`.")
    ]
    policy: Annotated[
        Table, Field(description="`name`, and the policy's own fields; see [policies](policies.md).")
    ] = {"name": "balanced"}
    sampling: Annotated[
        Table, Field(description="Defaults for every answer; the keys are listed below.")
    ] = {}
    on_llm_failure: Annotated[
        Literal["refuse", "slm"],
        Field(
            description='When the LLM fails: "refuse" ends with an error, "slm" goes on with the SLM alone.'
        ),
    ] = "refuse"
    walk: Annotated[
        Literal["auto", "speculative", "readahead", "lockstep"],
        Field(
            description="How answers are written, all by one law: `lockstep` token by token, `speculative` "
            "from the SLM's drafts, `readahead` from a server's; `auto` takes what the LLM can do."
        ),
    ] = "auto"
    batch_size: Annotated[int, Field(ge=1, description="Prompts of one call decoded together.")] = 32
    alignment: Annotated[
        Literal["auto", "bytes", "common_tokens"],
        Field(description="The alphabet two tokenizers meet in; see [tokenizers](tokenizers.md)."),
    ] = "auto"
    fidelity: Annotated[
        Literal["exact", "default", "fast"],
        Field(description="How closely a model is followed in symbols smaller than its tokens."),
    ] = "default"
    activation: Annotated[
        Activation, Field(description="What `purify run` and `activate` go by; the keys are listed below.")
    ] = Activation()


def read_config(path: str | Path | None = None) -> Config:
    """The configuration at `path`, else $PURIFY_CONFIG, else `purify.toml` or `[tool.purify]` here.

    Raises ConfigError with one sentence of advice.
    """
    file = find_config(path)
    return check_config(read_table(file), file)


def read_table(file: Path) -> Table:
    """What a configuration file says, its models' directories found. Raises ConfigError."""
    table = _parse(file)
    if file.name == "pyproject.toml":
        table = table.get("tool", {}).get("purify", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: [tool.purify] must be a table")
    return _rooted(table, file.parent)


def find_config(path: str | Path | None = None) -> Path:
    """Where the configuration is; raises ConfigError when there is none."""
    named = path or os.environ.get("PURIFY_CONFIG")
    if named:
        return Path(named)
    if Path("purify.toml").is_file():
        return Path("purify.toml")
    project = Path("pyproject.toml")
    if project.is_file() and "purify" in _parse(project).get("tool", {}):
        return project
    raise ConfigError("there is no purify.toml here; write one, or name it with --config or PURIFY_CONFIG")


def _parse(file: Path) -> Table:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(file)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML, {error}") from error


def _rooted(table: Table, folder: Path) -> Table:
    """Model directories are relative to the file that names them."""
    return {key: _model(value, folder) if key in ("llm", "slm") else value for key, value in table.items()}


def _model(value: Any, folder: Path) -> Any:
    if not isinstance(value, dict):
        return value
    named = {key: folder / value[key] for key in ("model", "tokenizer") if isinstance(value.get(key), str)}
    return {**value, **{key: str(beside) for key, beside in named.items() if beside.is_dir()}}


def check_config(table: Mapping[str, Any], file: Path | str = "the configuration") -> Config:
    """The configuration a table describes; raises ConfigError."""
    _check_keys("key", table, Config, file)
    _check_keys("activation option", table.get("activation"), Activation, file)
    try:
        config = Config.model_validate(dict(table))
    except ValidationError as error:
        raise ConfigError(f"{file}: {_advice(error)}") from error
    sampling(config.sampling)
    return config


def _check_keys(what: str, table: Any, kind: type[BaseModel], file: Path | str) -> None:
    for key in table if isinstance(table, Mapping) else ():
        if key not in kind.model_fields:
            raise ConfigError(f"{file}: {UnknownNameError(what, key, kind.model_fields)}")


def _advice(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"[{where}] is missing" if first["type"] == "missing" else f"{where}: {first['msg']}"


def sampling(table: Mapping[str, Any]) -> Sampling:
    """The Sampling a table describes; raises ConfigError for an unknown key or a wrong type."""
    if not table:
        return Sampling()  # the adapter below takes longer to build than all else `purify run` does
    known = [field.name for field in fields(Sampling)]
    for key in table:
        if key not in known:
            raise UnknownNameError("sampling option", key, known)
    try:
        return _adapter().validate_python(dict(table))
    except ValidationError as error:
        raise ConfigError(f"sampling: {_advice(error)}") from error


@cache
def _adapter() -> TypeAdapter[Sampling]:
    """Built once: pydantic takes longer over it than over any answer's options."""
    return TypeAdapter(Sampling)


def build(config: Config, kind: type[P]) -> P:
    """The Purifier a configuration describes: its plugins loaded, its models read."""
    plugins = plugins_of(config)
    return kind(
        plugins.source(secrets(config.llm)),
        plugins.source(secrets(config.slm)),
        plugins.policy(config.policy),
        sampling=sampling(config.sampling),
        on_llm_failure=config.on_llm_failure,
        batch_size=config.batch_size,
        walk=config.walk,
        alignment=config.alignment,
        fidelity=config.fidelity,
        plugins=plugins,
    )


def plugins_of(config: Config) -> Plugins:
    """The plugins a configuration asks for, loaded. Raises PluginError."""
    return load_plugins([*config.plugins, *_environment(config)])


def _environment(config: Config) -> list[str]:
    """$PURIFY_PLUGINS adds nothing to a file that lists its own plugins."""
    names = "" if config.plugins else os.environ.get("PURIFY_PLUGINS", "")
    return [name.strip() for name in names.split(",") if name.strip()]


def secrets(table: Table) -> Table:
    """Values of keys that end in `_env`, read from the environment variables they name.

    `token_env = "TGI_TOKEN"` gives the source `token`; the secret itself is never in the file.
    """
    return dict(_secret(key, value) if key.endswith("_env") else (key, value) for key, value in table.items())


def _secret(key: str, variable: Any) -> tuple[str, str]:
    if not isinstance(variable, str) or variable not in os.environ:
        raise ConfigError(f"{key} names the environment variable {variable!r}, which is not set")
    return key.removesuffix("_env"), os.environ[variable]
