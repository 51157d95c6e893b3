"""Which models an evaluation asks, and what: the command line's, a configuration's, or the test bed's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from purify_plugins.cli.options import named_plugins
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.utils.extras import require_extra

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.eval.systems import System


def asked(
    llm: str | None,
    slm: str | None,
    attacks: Path | None,
    pair: Path | None,
    batch: int,
    config: Path | None,
) -> tuple[ModelNames, Questions, Sequence[System]]:
    """The models, the questions, and the configured system where a configuration's pair is measured."""
    from purify_hooks.evaluation.eval.configured import configured

    if pair is None:
        return *models_and_questions(llm, slm, attacks, batch, config), ()
    models, system = configured(pair, llm, slm, batch)
    return models, _questions(models, attacks), (system,)


def models_and_questions(
    llm: str | None, slm: str | None, attacks: Path | None, batch: int, config: Path | None = None
) -> tuple[ModelNames, Questions]:
    """The models and the questions; the test bed's where no models are named. Raises ConfigError.

    The plugins are those of the configuration or of $PURIFY_PLUGINS; its models are not measured.
    """
    from purify_hooks.evaluation.eval.run import ModelNames
    from purify_hooks.evaluation.testbed import LLM, SLM

    if bool(llm) != bool(slm):
        raise ConfigError("give both --llm and --slm, or neither for the test bed's pair")
    models = ModelNames(llm or str(LLM), slm or str(SLM), named_plugins(config), batch)
    return models, _questions(models, attacks)


def _questions(models: ModelNames, attacks: Path | None) -> Questions:
    """The questions of a file; the test bed's of its own LLM, and of any other those that ask for no harm.

    Both models are looked at. Raises ConfigError.
    """
    from purify_hooks.evaluation.eval.derived import completed, read_questions
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.testbed import HOME, LLM
    from purify_plugins.configuration.preflight import require_two

    taught = attacks or (HOME / "attacks.json" if models.of_llm(LLM) else None)
    questions = read_questions(taught) if taught else completed(Questions())
    require_extra("eval", "the evaluation")
    require_two(load_plugins(models.plugins), models.llm, models.slm)
    return questions
