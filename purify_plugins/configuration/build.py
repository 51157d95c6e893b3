"""`purify.toml` -> Purifier. Unknown keys are errors with the nearest known name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from purify_plugins.configuration.find import find_config, read_table
from purify_plugins.configuration.preflight import Preview, foreseen
from purify_plugins.configuration.secrets import hints_of, secret_keys, secrets
from purify_plugins.decode.strategies import Walk
from purify_plugins.errors import ConfigError, PromptError, PurifyError, UnknownNameError
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.protocols import LogitSource
from purify_plugins.requests.inputs import one
from purify_plugins.sampling import Sampling
from purify_plugins.utils.wording import must_be

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["Config", "build", "check_config", "find_config", "read_config", "read_table", "secrets"]

P = TypeVar("P")
Table = dict[str, Any]


class Named(dict[str, Any]):
    """A table of a file; `where` is the file and the table's name, for errors: "purify.toml: [llm]"."""

    where = ""

    @classmethod
    def at(cls, where: str, table: Mapping[str, Any]) -> Named:
        named = cls(table)
        named.where = where
        return named


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
    walk: Walk = "auto"
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


def check_config(table: Mapping[str, Any], file: Path | str = "the configuration") -> Config:
    """The configuration a table describes; raises ConfigError."""
    read = isinstance(file, Path)
    with placed(f"{file}:"):
        config: Config = _made(Config, "key", table)
        if config.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {config.batch_size}")
    with placed(f"{file}:" if read else ""):
        sampling(config.sampling)
    if not read:
        return config
    return replace(
        config,
        llm=Named.at(f"{file}: [llm]", config.llm),
        slm=Named.at(f"{file}: [slm]", config.slm),
        policy=Named.at(f"{file}: [policy]", config.policy),
    )


@contextmanager
def placed(where: str, what: str = "") -> Iterator[None]:
    """Say in an error where the setting stands that led to it, in place of `what` it says already."""
    try:
        yield
    except PurifyError as error:
        if where:
            error.args = (f"{where} {str(error).removeprefix(what)}", *error.args[1:])
        raise


def _made(kind: Any, what: str, table: Mapping[str, Any], *inside: str) -> Any:
    """The dataclass that a table describes: `what` its keys are, and the keys it is `inside`."""
    hints = _hints(kind)
    _check_keys(what, table, hints)
    for each in fields(kind):
        if each.name not in table and each.default is each.default_factory is MISSING:
            raise ConfigError(f'[{each.name}] is missing; add that table, with model = "DIRECTORY"')
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
    return f"[{key}] is missing" if first["type"] == "missing" else f"{key} {must_be(first)}"


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


@dataclass(frozen=True)
class Prepared:
    """A configuration, with everything checked that can be before a model is read."""

    config: Config
    plugins: Plugins
    policy: Any
    previews: Mapping[str, Preview]

    def refuse(self, prompt: str) -> None:
        """Raise PromptError for a text that one of the models cannot read."""
        one(prompt)
        if re.search("[\ud800-\udfff]", prompt):
            raise PromptError("the prompt is not valid Unicode; replace its lone surrogates")
        for each in self.previews.values():
            each.refuse(prompt)

    def load(self, kind: Callable[..., P]) -> P:
        """The Purifier, or another `kind` of its arguments: both models are read now. Raises PurifyError."""
        models = [source(self.plugins, table) for table in (self.config.llm, self.config.slm)]
        return kind(*models, self.policy, **options_of(self.config), plugins=self.plugins)


def options_of(config: Config) -> dict[str, Any]:
    """The Purifier's options that a configuration sets, beside the models, the policy and the plugins."""
    names = ("on_llm_failure", "batch_size", "walk", "alignment", "fidelity")
    return {"sampling": sampling(config.sampling), **{name: vars(config)[name] for name in names}}


def prepare(config: Config) -> Prepared:
    """Check all of a configuration that can be checked without reading a weight. Raises PurifyError."""
    from purify_plugins.decode.draw_keys import secret

    plugins = plugins_of(config)
    sampling(config.sampling)
    chosen = policy(plugins, config.policy)
    secret()
    tables = {"llm": config.llm, "slm": config.slm}
    previews = {side: preview(plugins, table) for side, table in tables.items()}
    for side, table in tables.items():
        with placed(where(table)):
            previews[side].settle()
    return Prepared(config, plugins, chosen, previews)


def build(config: Config, kind: Callable[..., P]) -> P:
    """The Purifier a configuration describes: its plugins loaded, its models read."""
    return prepare(config).load(kind)


def plugins_of(config: Config) -> Plugins:
    """The plugins a configuration asks for, loaded. Raises PluginError."""
    return load_plugins([*config.plugins, *_environment(config)])


def _environment(config: Config) -> list[str]:
    """$PURIFY_PLUGINS adds nothing to a file that lists its own plugins."""
    names = "" if config.plugins else os.environ.get("PURIFY_PLUGINS", "")
    return [name.strip() for name in names.split(",") if name.strip()]


def source(plugins: Plugins, table: Table) -> LogitSource:
    """The source that a model's table describes, with its secrets read. Raises PurifyError, saying where."""
    name = table.get("source", "local")
    with placed(where(table), f"source {name!r}: "):
        return plugins.source(keys_of(plugins, table))


def preview(plugins: Plugins, table: Table) -> Preview:
    """What is known of a model before it is read. Raises PurifyError, saying where."""
    name = table.get("source", "local")
    with placed(where(table), f"source {name!r}: "):
        return foreseen(plugins, keys_of(plugins, table))


def keys_of(plugins: Plugins, table: Table) -> Table:
    """A model's table, and those inside it, of the types that sources declare, with their secrets read.

    Raises ConfigError.
    """
    table = {key: keys_of(plugins, each) if isinstance(each, dict) else each for key, each in table.items()}
    name = table.get("source", "local")
    if not isinstance(name, str):
        raise ConfigError(f"source must be a name, not {name!r}; see `purify plugins`")
    factory = plugins.offers("purify_sources").get(name)
    return table if factory is None else secrets(_typed(factory, table), secret_keys(factory))


def _typed(factory: Any, table: Table) -> Table:
    """A table whose values have the types of the factory's parameters. Raises ConfigError."""
    hints = hints_of(factory)
    for key, value in table.items():
        if hints.get(key, Any) is not Any and not _fits(value, hints[key]):
            raise ConfigError(
                f"source {table.get('source', 'local')!r}: {key} must be {_words(hints[key])}, not {value!r}"
            )
    return table


def _fits(value: Any, hint: Any) -> bool:
    if hint is LogitSource:  # a model inside another, named as [llm] is
        return isinstance(value, str | Path | dict | LogitSource)
    return plainly(value, hint) or (isinstance(value, str | Path) and Path in get_args(hint))


def _words(hint: Any) -> str:
    """A type as a sentence says it."""
    if hint is LogitSource:
        return "a model's directory or hub id, or a table with a source"
    said = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
    kinds = [said[each] for each in (get_args(hint) or (hint,)) if each in said]
    return " or ".join(kinds) or str(hint)


def policy(plugins: Plugins, table: Table) -> Any:
    """The policy that a table describes. Raises ConfigError, saying where."""
    with placed(where(table)):
        return plugins.policy(table)


def where(table: Table) -> str:
    """The file and table that a table was read from; "" for one from a command line or from Python."""
    return table.where if isinstance(table, Named) else ""
