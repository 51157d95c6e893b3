"""What is wrong with a server and its tokenizer, found before any model is read."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from purify_adapters.remote.detect import check_kind
from purify_adapters.remote.wire import Wire
from purify_plugins.errors import ModelError, SourceError
from purify_plugins.preflight import Preview
from purify_plugins.tokenizing import find_tokenizer, require_tokenizer

SECONDS = 2.0
"""What a connection may take here; the source itself, when it is asked for rows, is more patient."""
PORTS = {"http": 80, "https": 443}


def looked_at(
    url: str | None = None,
    *,
    tokenizer: str | Path,
    kind: str = "auto",
    api_key: str | None = None,
    connect: float = SECONDS,
    **options: Any,
) -> Preview:
    """The preview of a model behind a server: its URL, its tokenizer's files, and that somebody answers.

    Raises ConfigError, ModelError, SourceError, as loading it would.
    """
    check_kind(kind)
    if url is None:  # the source itself says what it needs
        return Preview()
    wire = Wire(url, api_key)
    try:
        require_tokenizer(find_tokenizer(tokenizer))
    except ModelError as error:
        raise ModelError(
            f"the tokenizer {str(tokenizer)!r} does not load ({error}); give a directory or a hub id"
        ) from error
    reach(wire, min(connect, SECONDS))
    return Preview()


def reach(wire: Wire, seconds: float) -> None:
    """Raise SourceError where nothing takes a connection."""
    parts = urlsplit(wire.url)
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), seconds).close()
    except OSError as error:
        said = error.strerror or "no answer in time"
        raise SourceError(
            f"there is no server at {wire.address} ({said}); start it, or correct its url"
        ) from error
