"""The schema of `purify.toml`; an unknown key is an error with the nearest known name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from purify_plugins.configuration.find import Table, find_config, read_table
from purify_plugins.decode.strategies import Walk
from purify_plugins.errors import ConfigError, PurifyError, UnknownNameError
from purify_plugins.sampling import Sampling
from purify_plugins.types import Alignment, Fallback, Fidelity


class Named(dict[str, Any]):
    """A table of a file; `where` is the file and the table's name, for errors: "purify.toml: [llm]".

    `folder` is the file's directory.
    """

    where = ""
    folder = Path()

    @classmethod
    def at(cls, where: str, table: Mapping[str, Any], folder: Path = folder) -> Named:
        named = cls(table)
        named.where, named.folder = where, folder
        return named


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Options of `purify run` and `activate`; names are a model's directory or hub id, or a server's URL."""

    untrusted: list[str] = field(default_factory=lambda: ["*"])
    """Models that are purified; `"*"`, the default, is every model that is not trusted."""
    trusted: list[str] = field(default_factory=list)
    """Models that are not purified."""
    tokenizer: str | None = None
    """The tokenizer's directory, for models in memory that name none."""
    status: str | None = None
    """A directory where every process writes what it has purified."""


@dataclass(frozen=True, kw_only=True)
class WatermarkConfig:
    """Keys of `[watermark]`: the key's place, one of two, and how much of the text keys a draw."""

    key_env: str | None = None
    """The environment variable that holds the key: 32 characters or more that cannot be guessed."""
    key_file: str | None = None
    """The file that holds the key, instead."""
    context: int = 4
    """How many tokens before a draw it is keyed by. Fewer survive more editing; more repeat less often."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The keys of `purify.toml`. Those of `[llm]`, `[slm]` and `[policy]` belong to the source or policy."""

    plugins: list[str] = field(default_factory=list)
    """Third-party plugins to load, by entry point or distribution; default none."""
    llm: Table
    """The untrusted model: `source` (default `local`) and that source's own keys."""
    slm: Table
    """The benign model, which must be trusted; the same keys as `[llm]`."""
    policy: Table = field(default_factory=lambda: {"name": "balanced"})
    """`name`, and the policy's own fields; see [policies](policies.md)."""
    calibration: Table = field(default_factory=dict)
    """What the policy's options were set by, as `purify calibrate` writes it; certificates record it."""
    sampling: Table = field(default_factory=dict)
    """Defaults for every answer; the keys are listed below."""
    on_llm_failure: Fallback = "refuse"
    """When the LLM fails: "refuse" ends with an error, "slm" goes on with the SLM alone."""
    walk: Walk = "auto"
    """The decoding strategy, all with one distribution: `lockstep` token by token, `speculative` with the
    SLM's drafts, `readahead` with a server's; `auto` is the fastest that the LLM allows."""
    batch_size: int = 32
    """Prompts of one call decoded together."""
    alignment: Alignment = "auto"
    """The symbols that two tokenizers are fused in; see [tokenizers](tokenizers.md)."""
    fidelity: Fidelity = "default"
    """How closely a model is followed in symbols smaller than its tokens."""
    stage: list[Table] = field(default_factory=list)
    """Request stages, the outermost first: each a `name`, and the stage's own fields; see
    [stages](stages.md)."""
    tenant: list[Table] = field(default_factory=list)
    """Who may ask `purify serve`, each a `name`, a key and what holds for its answers; see
    [the gateway](gateway.md#tenants)."""
    request: Table = field(default_factory=dict)
    """How much the stages of a request may ask for, and what its reader gets on a refusal."""
    watermark: WatermarkConfig = field(default_factory=WatermarkConfig)
    """Marks answers, at no cost in distribution; see [watermarks](watermarks.md)."""
    certificate: Table = field(default_factory=dict)
    """How certificates are signed, chained and recorded; default: not at all."""
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    """Options of `purify run` and `activate`; the keys are listed below."""


def read_config(path: str | Path | None = None) -> Config:
    """The configuration at `path`, else $PURIFY_CONFIG, else `purify.toml` or `[tool.purify]` here.

    Raises ConfigError with one sentence of advice.
    """
    file = find_config(path)
    return check_config(read_table(file), file)


def check_config(table: Mapping[str, Any], file: Path | str = "the configuration") -> Config:
    """The configuration a table describes; raises ConfigError."""
    read = isinstance(file, Path)
    folder = file.parent if isinstance(file, Path) else Path()
    with placed(f"{file}:"):
        config: Config = _made(Config, "key", table)
        if config.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {config.batch_size}")
    with placed(f"{file}:" if read else ""):
        Sampling(**config.sampling)
    if not read:
        return config
    return replace(
        config,
        llm=Named.at(f"{file}: [llm]", config.llm),
        slm=Named.at(f"{file}: [slm]", config.slm),
        policy=Named.at(f"{file}: [policy]", config.policy),
        calibration=Named.at(f"{file}: [calibration]", config.calibration),
        stage=[
            Named.at(f"{file}: [[stage]] {at}:", table, folder) for at, table in enumerate(config.stage, 1)
        ],
        tenant=[
            Named.at(f"{file}: [[tenant]] {at}:", table, folder) for at, table in enumerate(config.tenant, 1)
        ],
        request=Named.at(f"{file}: [request]", config.request),
        certificate=Named.at(f"{file}: [certificate]", config.certificate, folder),
    )


def where(table: Table) -> str:
    """The file and table that a table was read from; "" for one from a command line or from Python."""
    return table.where if isinstance(table, Named) else ""


@contextmanager
def placed(where: str, what: str = "") -> Iterator[None]:
    """Prefix errors in this block with where the setting stands, in place of their own prefix `what`."""
    try:
        yield
    except PurifyError as error:
        if where:
            error.args = (f"{where} {str(error).removeprefix(what)}", *error.args[1:])
        raise


def _made(kind: Any, what: str, table: Mapping[str, Any], *inside: str) -> Any:
    """The dataclass that a table describes: `what` its keys are, and the keys it is `inside`."""
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise UnknownNameError(what, key, hints)
    for each in fields(kind):
        if each.name not in table and each.default is each.default_factory is MISSING:
            raise ConfigError(f'[{each.name}] is missing; add that table, with model = "DIRECTORY"')
    return kind(**{key: _value(hints[key], value, *inside, key) for key, value in table.items()})


def _value(hint: Any, value: Any, *where: str) -> Any:
    """A key's value, of the type it must have. Raises ConfigError."""
    if is_dataclass(hint):
        return _made(hint, f"{where[-1]} option", _value(Table, value, *where), *where)
    if not has_type(value, hint):
        raise ConfigError(f"{'.'.join(where)} must be {type_in_words(hint)}, not {value!r}")
    return value


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value of a TOML file is of a type, exactly: a whole number is no float, nor True a number.

    By hand: pydantic takes longer to import than everything else that `purify run` does.
    """
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return type(value) is str and value in inner
    if kind is UnionType:
        return any(has_type(value, each) for each in inner)
    if kind is list:
        return type(value) is list and all(has_type(each, inner[0]) for each in value)
    if kind is dict:
        return type(value) is dict and all(type(key) is str for key in value)
    return not inner and type(value) is kind


WORDS: Mapping[Any, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: 'a list, such as ["one", "two"]',
}


def type_in_words(hint: Any) -> str:
    """A type as an error names it."""
    if get_origin(hint) is Literal:
        *most, last = map(repr, get_args(hint))
        return f"{', '.join(most)} or {last}"
    kinds = get_args(hint) if get_origin(hint) is UnionType else (get_origin(hint) or hint,)
    return " or ".join(WORDS[each] for each in kinds if each in WORDS) or str(hint)
