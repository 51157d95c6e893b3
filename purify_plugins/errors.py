"""Every error raised on purpose.

PurifyError
├── ConfigError            an option, a prompt or purify.toml is wrong; nothing has run
│   ├── UnknownNameError   a name nobody offers, with the nearest one that somebody does
│   └── PromptError        the prompt is empty, or longer than a model can read
├── PluginError            a plugin is missing, broken, duplicated or offers a taken name
├── ModelError             a model directory is missing, unsafe or not a causal LM
│   └── VocabularyError    the two models cannot be brought into one alphabet
├── SourceError            a model failed while an answer was being written
│   └── NumericError       a model or a policy returned NaN, +inf or nothing at all
├── RefusedError           a plugin, or the operator's policy, refused this request
└── CertificateError       a certificate is damaged, or does not follow from its models
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PurifyError(Exception):
    """Anything this package refuses on purpose; the message is one sentence of advice."""


class ConfigError(PurifyError):
    """An option, a prompt or `purify.toml` is wrong; nothing has run yet."""


class UnknownNameError(ConfigError):
    """A name nobody offers. The message quotes the nearest known name.

    `what` names the kind in words ("policy"); `known` are the names there are.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names))}"
        super().__init__(f"unknown {what} {name!r}; {advice}" if names else f"unknown {what} {name!r}")


class PromptError(ConfigError):
    """The prompt is empty, or longer than one of the models can read."""


class PluginError(PurifyError):
    """A plugin is missing, broken, duplicated, or offers a name already taken."""


class ModelError(PurifyError):
    """A model directory is missing, unsafe, or does not hold a causal language model."""


class VocabularyError(ModelError):
    """The two models cannot be brought into one alphabet, or what is asked of them needs one tokenizer."""


class SourceError(PurifyError):
    """A model failed while an answer was being written."""


class NumericError(SourceError):
    """A model or a policy returned NaN, +inf, or a row without a single possible token."""


class RefusedError(PurifyError):
    """A plugin, or the operator's policy, refused this request."""


class CertificateError(PurifyError):
    """A certificate is damaged, or does not follow from the models it names."""
