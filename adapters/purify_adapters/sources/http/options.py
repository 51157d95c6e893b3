"""The keys of a server source, from its table in `purify.toml`, with their defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from purify_adapters.sources.http.rows import TOLERANCE
from purify_plugins.configuration.secrets import Secret
from purify_plugins.errors import ConfigError
from purify_plugins.threat import Engine

AHEAD = 32
"""How many tokens a stream drafts before it is opened anew."""
SENDABLE = re.compile(r"[\x21-\x7e]*")


def check_url(url: str) -> None:
    """Raise ConfigError unless `url` is a server's; what it says instead is not shown."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or not SENDABLE.fullmatch(url):
        raise ConfigError("url must be a server's, such as http://127.0.0.1:8080, without spaces")


def check_key(api_key: str | None) -> None:
    """Raise ConfigError for a key that cannot be sent in a header; the key is not shown."""
    if api_key is not None and not SENDABLE.fullmatch(api_key):
        raise ConfigError("api_key holds what no header may (spaces, line ends, other alphabets); correct it")


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, for the next token, to send a request, for a free connection."""

    connect: float = 5.0
    read: float = 30.0
    write: float = 10.0
    pool: float = 10.0

    def __post_init__(self) -> None:
        for name, seconds in vars(self).items():
            if not 0 < seconds < float("inf"):
                raise ConfigError(f"{name} must be a number of seconds above 0, not {seconds!r}")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """`tokenizer` is the LLM's, a directory or hub id. `api_key` is a bearer token; `api_key_env` names the
    variable with it. Seconds: `connect`, `read` (for each token), `write`, `pool`. `retries` are made before
    an answer's first token only. `connections` may be open at once. `tolerance` is how far above 1 a row's
    probabilities may add up. `engine` "trusted" vouches for the server as much as for this process.
    Raises ConfigError, ModelError, VocabularyError, SourceError.
    """

    # A source with other keys, or other defaults, has a subclass, whose docstring says what these do.

    url: str
    tokenizer: str | Path
    top_n: int | None = 100
    ahead: int = field(default=0, init=False)
    api_key: str | Secret | None = field(default=None, repr=False)
    connect: float = 5.0
    read: float = 30.0
    write: float = 10.0
    pool: float = 10.0
    retries: int = 2
    connections: int = 100
    tolerance: float = TOLERANCE
    engine: Engine = "untrusted"

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(self.connect, self.read, self.write, self.pool)
