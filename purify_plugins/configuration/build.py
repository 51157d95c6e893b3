"""`purify.toml` -> Purifier: everything checked that can be before a model is read, then both models read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from purify_plugins.configuration.chain import request_options, stage
from purify_plugins.configuration.config import Config, has_type, placed, type_in_words, where
from purify_plugins.configuration.find import Table
from purify_plugins.configuration.preflight import foreseen
from purify_plugins.configuration.secrets import hints_of, key_of, secret_keys, secrets
from purify_plugins.configuration.signing import issuing
from purify_plugins.errors import ConfigError, PromptError
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource
from purify_plugins.requests.inputs import one
from purify_plugins.sampling import Sampling

if TYPE_CHECKING:
    from purify_plugins.certificates.calibration_record import CalibrationRecord
    from purify_plugins.configuration.config import WatermarkConfig
    from purify_plugins.decode.watermark import Watermark

P = TypeVar("P")
NOTHING: Mapping[str, LogitSource] = {}


@dataclass(frozen=True)
class Prepared:
    """A configuration, checked as far as possible before a model is loaded."""

    config: Config
    plugins: Plugins
    policy: Any
    previews: Mapping[str, Preview]
    options: Mapping[str, Any]
    """The Purifier's other options, its Sampling checked."""

    def refuse(self, prompt: str) -> None:
        """Raise PromptError for a text that one of the models cannot read."""
        one(prompt)
        if re.search("[\ud800-\udfff]", prompt):
            raise PromptError("the prompt is not valid Unicode; replace its lone surrogates")
        for each in self.previews.values():
            each.refuse(prompt)

    def load(self, kind: Callable[..., P], kept: Mapping[str, LogitSource] = NOTHING) -> P:
        """The Purifier, or another `kind` of its arguments; loads both models. Raises PurifyError.

        `kept` are models, by "llm" and "slm", that are loaded already.
        """
        tables = {"llm": self.config.llm, "slm": self.config.slm}
        models = [
            kept[side] if side in kept else source(self.plugins, table) for side, table in tables.items()
        ]
        return kind(*models, self.policy, **self.options, plugins=self.plugins)


def options_of(config: Config, plugins: Plugins) -> dict[str, Any]:
    """The Purifier's options that a configuration sets, beside the models, the policy and the plugins."""
    names = ("on_llm_failure", "batch_size", "walk", "alignment", "fidelity")
    named = {name: vars(config)[name] for name in names}
    return {
        "sampling": Sampling(**config.sampling),
        **named,
        "calibration": calibration(config),
        "request": request_options(config.request),
        **issuing(config.certificate),
        "stages": tuple(stage(plugins, table) for table in config.stage),
        "watermark": watermark(config.watermark),
    }


def calibration(config: Config) -> CalibrationRecord | None:
    """What the policy's settings were calibrated on; None where nothing is recorded.

    Raises ConfigError for a record that is not of these settings.
    """
    if not config.calibration:
        return None
    from purify_plugins.certificates.calibration_record import AGAIN, CalibrationRecord, settings_digest

    with placed(where(config.calibration)):
        record = CalibrationRecord.of(config.calibration)
        if config.calibration.get("settings") != settings_digest(config.policy):
            raise ConfigError(f"[policy] is not as it was calibrated; {AGAIN}")
    return record


def watermark(keys: WatermarkConfig) -> Watermark | None:
    """The watermark that a table describes; None where it names no key. Raises ConfigError."""
    from purify_plugins.decode.watermark import Watermark

    key = key_of(keys.key_env, keys.key_file, "[watermark] ", ("key_env", "key_file"))
    return None if key is None else Watermark(key, keys.context)


def prepare(config: Config) -> Prepared:
    """Check all of a configuration that can be checked without reading a weight. Raises PurifyError."""
    from purify_plugins.decode.draw_keys import secret

    plugins = plugins_of(config)
    options = options_of(config, plugins)
    chosen = policy(plugins, config.policy)
    secret()
    tables = {"llm": config.llm, "slm": config.slm}
    previews = {side: preview(plugins, table) for side, table in tables.items()}
    for side, table in tables.items():
        with placed(where(table)):
            previews[side].settle()
    return Prepared(config, plugins, chosen, previews, options)


def build(config: Config, kind: Callable[..., P]) -> P:
    """The Purifier a configuration describes: its plugins loaded, its models read."""
    return prepare(config).load(kind)


def plugins_of(config: Config) -> Plugins:
    """Load the plugins that a configuration names. Raises PluginError."""
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
    """The preview of a model, before it is loaded. Raises PurifyError with the place in the file."""
    name = table.get("source", "local")
    with placed(where(table), f"source {name!r}: "):
        return foreseen(plugins, keys_of(plugins, table))


def keys_of(plugins: Plugins, table: Table) -> Table:
    """A model's table, and those inside it, of the types that sources declare, with their secrets read.

    Raises ConfigError.
    """
    table = {key: _inner_keys(plugins, each) for key, each in table.items()}
    name = table.get("source", "local")
    if not isinstance(name, str):
        raise ConfigError(f"source must be a name, not {name!r}; see `purify plugins`")
    factory = plugins.offers("purify_sources").get(name)
    return table if factory is None else secrets(_typed(factory, table), secret_keys(factory))


def _inner_keys(plugins: Plugins, value: Any) -> Any:
    """A value of a table, the tables in it as `keys_of` returns them."""
    if isinstance(value, list):
        return [_inner_keys(plugins, each) for each in value]
    return keys_of(plugins, value) if isinstance(value, dict) else value


def _typed(factory: Any, table: Table) -> Table:
    """A table whose values have the types of the factory's parameters. Raises ConfigError."""
    hints = hints_of(factory)
    for key, value in table.items():
        if hints.get(key, Any) is not Any and not _fits(value, hints[key]):
            name, words = table.get("source", "local"), type_in_words(hints[key])
            words = MODELS_IN_WORDS.get(str(hints[key]), words)
            raise ConfigError(f"source {name!r}: {key} must be {words}, not {value!r}")
    return table


MODELS_IN_WORDS = {
    str(LogitSource): "a model's directory or hub id, or a table with a source",
    str(list[LogitSource]): "a list of models, each a directory or hub id, or a table with a source",
}
"""The types of models inside a model, by their representation, in words."""


def _fits(value: Any, hint: Any) -> bool:
    if hint == list[LogitSource]:
        return isinstance(value, list) and all(_fits(each, LogitSource) for each in value)
    if hint is LogitSource:  # a model inside another, named as [llm] is
        return isinstance(value, str | Path | dict | LogitSource)
    return has_type(value, hint) or (isinstance(value, str | Path) and Path in get_args(hint))


def policy(plugins: Plugins, table: Table) -> Any:
    """The policy that a table describes. Raises ConfigError, saying where."""
    with placed(where(table)):
        return plugins.policy(table)
