"""Purify an untrusted language model, token by token, with a small benign one."""

from purify_plugins.certificate import Certificate
from purify_plugins.errors import (
    CertificateError,
    ConfigError,
    ModelError,
    NumericError,
    PluginError,
    PromptError,
    PurifyError,
    RefusedError,
    SourceError,
    UnknownNameError,
    VocabularyError,
)
from purify_plugins.hookspecs import hookimpl
from purify_plugins.purifier import Purifier
from purify_plugins.types import (
    Chat,
    Chunk,
    Completion,
    Context,
    FusionPolicy,
    Grammar,
    LogitSource,
    Sampling,
    ScoredPrompt,
    Session,
    Step,
    Token,
    ToolFormat,
    Vocabulary,
)

__all__ = [
    "Certificate",
    "CertificateError",
    "Chat",
    "Chunk",
    "Completion",
    "ConfigError",
    "Context",
    "FusionPolicy",
    "Grammar",
    "LogitSource",
    "ModelError",
    "NumericError",
    "PluginError",
    "PromptError",
    "Purifier",
    "PurifyError",
    "RefusedError",
    "Sampling",
    "ScoredPrompt",
    "Session",
    "SourceError",
    "Step",
    "Token",
    "ToolFormat",
    "UnknownNameError",
    "Vocabulary",
    "VocabularyError",
    "hookimpl",
]
__version__ = "0.1.0"
