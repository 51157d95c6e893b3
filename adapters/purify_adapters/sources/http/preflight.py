"""Check a server and its tokenizer before any model is loaded."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from purify_adapters.sources.http.client import HttpClient, log
from purify_adapters.sources.http.detect import check_kind, detected
from purify_adapters.sources.http.event_loop import wait
from purify_plugins.errors import ModelError, SourceError
from purify_plugins.plugin.preview import Preview
from purify_plugins.tokenizers.loading import find_tokenizer, require_tokenizer
from purify_plugins.utils.logs import errors_only

SECONDS = 2.0
"""The time-out of the trial connection."""
PORTS = {"http": 80, "https": 443}


def looked_at(
    url: str | None = None,
    *,
    tokenizer: str | Path,
    kind: str | None = None,
    api_key: str | None = None,
    connect: float = SECONDS,
    **options: Any,
) -> Preview:
    """The preview of a model behind a server: its URL, its tokenizer's files, and that the port is open.

    `kind` "auto" detects the kind of server when settled; None: the kind is known.
    Raises ConfigError, ModelError, SourceError, as loading it would.
    """
    check_kind(kind or "auto")
    if url is None:  # the source names the missing key
        return Preview()
    http = HttpClient(url, api_key)
    try:
        require_tokenizer(find_tokenizer(tokenizer))
    except ModelError as error:
        raise ModelError(
            f"the tokenizer {str(tokenizer)!r} does not load ({error}); give a directory or a hub id"
        ) from error
    reach(http, min(connect, SECONDS))
    return Preview(settle=lambda: _recognise(url, api_key)) if kind == "auto" else Preview()


def _recognise(url: str, api_key: str | None) -> None:
    """Raise ConfigError for a server of no known kind; routes it lacks are not logged."""
    with errors_only(log):
        wait(detected(HttpClient(url, api_key, retries=0)))


def reach(http: HttpClient, seconds: float) -> None:
    """Raise SourceError unless the server accepts a connection."""
    parts = urlsplit(http.url)
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), seconds).close()
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise SourceError(
            f"there is no server at {http.address} ({reason}); start it, or correct its url"
        ) from error
