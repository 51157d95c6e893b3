"""The pair and the policy of a `purify.toml`, as `purify calibrate` leaves it, to be evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from purify_plugins.configuration.build import calibration, keys_of, plugins_of
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.eval.systems import System


def configured(file: Path, llm: str | None, slm: str | None, batch: int) -> tuple[ModelNames, System]:
    """The models of a configuration, and its policy as a system of its own name.

    Raises ConfigError for models on the command line too, and for a policy that is not as it was calibrated.
    """
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.eval.systems import System

    if llm or slm:
        raise ConfigError("--pair takes both models from its file; leave --llm and --slm out")
    config = read_config(file)
    plugins = plugins_of(config)
    calibrated = "calibrated" if calibration(config) else "as in the file"
    options = dict(config.policy)
    name = options.pop("name")
    system = System("configured", f"{name}, {calibrated}", name, options, named=True)
    untrusted, benign = (keys_of(plugins, table) for table in (config.llm, config.slm))
    return ModelNames(untrusted, benign, tuple(config.plugins), batch), system
