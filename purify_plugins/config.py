"""`purify.toml` -> Purifier. Unknown keys are errors with the nearest known name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugins import Plugins, load_plugins
from purify_plugins.types import Sampling

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from purify_plugins.purifier import Purifier

    P = TypeVar("P", bound=Purifier)

Table = dict[str, Any]
MODELS = ("model", "tokenizer", "expert", "anti")
"""Keys of a source that may name a directory."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What `purify run` and `activate` go by; names are a model's directory or hub id, or a server's URL."""

    untrusted: list[str] = field(default_factory=lambda: ["*"])
    """What is purified; `"*"`, the default, is everything not trusted."""
    trusted: list[str] = field(default_factory=list)
    """What writes as it likes, without purification."""
    tokenizer: str | None = None
    """The tokenizer's directory, for models in memory that name none."""
    status: str | None = None
    """A directory in which every process says what it has purified."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything `purify.toml` may say. `[llm]`, `[slm]` and `[policy]` keys belong to what they name."""

    plugins: list[str] = field(default_factory=list)
    """Third-party plugins to load, by entry point or distribution; default none."""
    llm: Table
    """The untrusted model: `source` (default `local`) and that source's own keys."""
    slm: Table
    """The benign model, which must be trusted; the same keys as `[llm]`."""
    policy: Table = field(default_factory=lambda: {"name": "balanced"})
    """`name`, and the policy's own fields; see [policies](policies.md)."""
    sampling: Table = field(default_factory=dict)
    """Defaults for every answer; the keys are listed below."""
    on_llm_failure: Literal["refuse", "slm"] = "refuse"
    """When the LLM fails: "refuse" ends with an error, "slm" goes on with the SLM alone."""
    walk: Literal["auto", "speculative", "readahead", "lockstep"] = "auto"
    """How answers are written, all by one law: `lockstep` token by token, `speculative` from the SLM's
    drafts, `readahead` from a server's; `auto` takes what the LLM can do."""
    batch_size: int = 32
    """Prompts of one call decoded together."""
    alignment: Literal["auto", "bytes", "common_tokens", "top_k_union"] = "auto"
    """The alphabet two tokenizers meet in; see [tokenizers](tokenizers.md)."""
    fidelity: Literal["exact", "default", "fast"] = "default"
    """How closely a model is followed in symbols smaller than its tokens."""
    activation: Activation = field(default_factory=Activation)
    """What `purify run` and `activate` go by; the keys are listed below."""


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
    named = {key: folder / value[key] for key in MODELS if isinstance(value.get(key), str)}
    inside = {key: _model(each, folder) for key, each in value.items()}
    return {**inside, **{key: str(beside) for key, beside in named.items() if beside.is_dir()}}


def check_config(table: Mapping[str, Any], file: Path | str = "the configuration") -> Config:
    """The configuration a table describes; raises ConfigError."""
    try:
        config: Config = _made(Config, "key", table)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if config.batch_size < 1:
        raise ConfigError(f"{file}: batch_size must be at least 1, not {config.batch_size}")
    sampling(config.sampling)
    return config


def _made(kind: Any, what: str, table: Mapping[str, Any], *inside: str) -> Any:
    """The dataclass that a table describes: `what` its keys are, and the keys it is `inside`."""
    hints = _hints(kind)
    _check_keys(what, table, hints)
    for each in fields(kind):
        if each.name not in table and each.default is each.default_factory is MISSING:
            raise ConfigError(f"[{each.name}] is missing")
    return kind(**{key: _value(hints[key], value, *inside, key) for key, value in table.items()})


def _check_keys(what: str, table: Iterable[str], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise UnknownNameError(what, key, known)


def _value(hint: Any, value: Any, *where: str) -> Any:
    """A key's value, of the type it must have. Raises ConfigError."""
    if is_dataclass(hint):
        return _made(hint, f"{where[-1]} option", _value(Table, value, *where), *where)
    if plainly(value, hint):
        return value
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        raise ConfigError(_advice(error, *where)) from error


def plainly(value: Any, hint: Any) -> bool:
    """Whether a value has a type beyond doubt; in doubt, pydantic judges.

    pydantic takes longer to import than all else `purify run` does.
    """
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return type(value) is str and value in inner
    if kind is UnionType:
        return any(plainly(value, each) for each in inner)
    if kind is list:
        return type(value) is list and all(plainly(each, inner[0]) for each in value)
    if kind is dict:
        return type(value) is dict and all(type(key) is str for key in value)
    return not inner and type(value) is kind


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """A dataclass's fields and their types."""
    return get_type_hints(kind)


def _advice(error: ValidationError, *where: str) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, (*where, *first["loc"])))
    return f"[{key}] is missing" if first["type"] == "missing" else f"{key}: {first['msg']}"


def sampling(table: Mapping[str, Any]) -> Sampling:
    """The Sampling a table describes; raises ConfigError for an unknown key or a wrong type."""
    hints = _hints(Sampling)
    _check_keys("sampling option", table, hints)
    if all(plainly(value, hints[key]) for key, value in table.items()):
        return Sampling(**table)
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(dict(table))
    except ValidationError as error:
        raise ConfigError(f"sampling: {_advice(error)}") from error


@cache
def _adapter() -> TypeAdapter[Sampling]:
    """Built once: pydantic takes longer over it than over any answer's options."""
    from pydantic import TypeAdapter

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
    return dict(
        _secret(key, value) if key.endswith("_env") else (key, _within(value)) for key, value in table.items()
    )


def _within(value: Any) -> Any:
    """A value of a source's, which may be another source's table."""
    return secrets(value) if isinstance(value, dict) else value


def _secret(key: str, variable: Any) -> tuple[str, str]:
    if not isinstance(variable, str) or variable not in os.environ:
        raise ConfigError(f"{key} names the environment variable {variable!r}, which is not set")
    return key.removesuffix("_env"), os.environ[variable]
