"""The pair and the policy of a `purify.toml`, as `purify calibrate` leaves it, to be evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from purify_plugins.configuration.build import calibration, keys_of, plugins_of
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ConfigError
from purify_plugins.requests.inputs import require_symbols

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.eval.systems import System


def configured(file: Path, llm: str | None, slm: str | None, batch: int) -> tuple[ModelNames, System]:
    """The models of a configuration, and its policy as a system of its own name.

    Raises ConfigError for models on the command line too, for a policy that is not as it was calibrated, and
    for the alignment "top_k_union".
    """
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.eval.systems import System

    if llm or slm:
        raise ConfigError("--pair takes both models from its file; leave --llm and --slm out")
    config = read_config(file)
    require_symbols(config.alignment, config.fidelity)
    if config.alignment == "top_k_union":
        raise ConfigError(
            f'{file}: under alignment = "top_k_union" the SLM only rates the LLM\'s tokens roughly, and no '
            "text can be measured; leave alignment out to measure the pair in symbols that both share"
        )
    plugins = plugins_of(config)
    calibrated = "calibrated" if calibration(config) else "as in the file"
    options = dict(config.policy)
    name = options.pop("name")
    system = System("configured", f"{name}, {calibrated}", name, options, named=True)
    untrusted, benign = (keys_of(plugins, table) for table in (config.llm, config.slm))
    how = batch, config.alignment, config.fidelity
    return ModelNames(untrusted, benign, tuple(config.plugins), *how), system
