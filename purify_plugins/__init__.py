"""Purify an untrusted language model, token by token, with a small benign one."""

import importlib
import typing

from purify_plugins._version import __version__ as __version__
from purify_plugins.errors import (
    AlteredError,
    BudgetError,
    CertificateError,
    ChainError,
    ConfigError,
    ForgedError,
    MismatchError,
    ModelError,
    NoCertificateError,
    NumericError,
    OtherModelError,
    PluginError,
    PromptError,
    PurifyError,
    RefusedError,
    SignatureError,
    SourceError,
    StoreAlteredError,
    StoreError,
    TooLongError,
    UncheckableError,
    UnknownNameError,
    UnreadableError,
    VocabularyError,
)
from purify_plugins.grammar import Grammar
from purify_plugins.plugin.hookspecs import hookimpl
from purify_plugins.policy import Context, FusionPolicy
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sampling import Sampling
from purify_plugins.types import (
    Certificate,
    Chat,
    Chunk,
    Completion,
    Failed,
    Outcome,
    Refused,
    Remarks,
    ScoredPrompt,
    Step,
    Token,
    ToolFormat,
    Vocabulary,
)

if typing.TYPE_CHECKING:
    from purify_plugins.purifier import Purifier
    from purify_plugins.running.activate import activate, assert_active, deactivate, status

__all__ = [
    "AlteredError",
    "BudgetError",
    "Certificate",
    "CertificateError",
    "ChainError",
    "Chat",
    "Chunk",
    "Completion",
    "ConfigError",
    "Context",
    "Failed",
    "ForgedError",
    "FusionPolicy",
    "Grammar",
    "LogitSource",
    "MismatchError",
    "ModelError",
    "NoCertificateError",
    "NumericError",
    "OtherModelError",
    "Outcome",
    "PluginError",
    "PromptError",
    "Purifier",
    "PurifyError",
    "Refused",
    "RefusedError",
    "Remarks",
    "Sampling",
    "ScoredPrompt",
    "Session",
    "SignatureError",
    "SourceError",
    "Step",
    "StoreAlteredError",
    "StoreError",
    "Token",
    "TooLongError",
    "ToolFormat",
    "UncheckableError",
    "UnknownNameError",
    "UnreadableError",
    "Vocabulary",
    "VocabularyError",
    "activate",
    "assert_active",
    "deactivate",
    "hookimpl",
    "status",
]

_LAZY = {
    "Purifier": "purifier",
    **dict.fromkeys(("activate", "assert_active", "deactivate", "status"), "running.activate"),
}
"""Public name -> its module: `purify run` starts before the application, and has no time for these."""


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
