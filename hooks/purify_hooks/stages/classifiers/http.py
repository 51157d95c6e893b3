"""A classifier behind HTTP: it is sent texts, and answers with a score for each."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from purify_plugins.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    import httpx

logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes whole urls at INFO, and these hold secrets
LARGEST = 1 << 20
"""The most bytes of an answer."""


class HttpClassifier:
    """POSTs `{"texts": [...]}` to a URL, whose answer is `{"scores": [...]}`, a number from 0 to 1 a text.

    Any other answer, and none within `deadline` seconds, is a refusal. Redirects are not followed, and the
    environment's proxies are not used.
    """

    def __init__(self, url: str, deadline: float) -> None:
        self.url, self.deadline = url, deadline
        self._made: tuple[int, httpx.Client] | None = None

    @property
    def _client(self) -> httpx.Client:
        """This process's own: a forked one could read the score of its parent's text on its connection."""
        import httpx

        if self._made is None or self._made[0] != os.getpid():
            made = httpx.Client(timeout=self.deadline, follow_redirects=False, trust_env=False)
            self._made = os.getpid(), made
        return self._made[1]

    def scores(self, texts: Sequence[str]) -> list[float]:
        try:
            found = json.loads(self._answer({"texts": list(texts)}))
        except ValueError:
            raise RefusedError("the guardian's server did not answer with JSON") from None
        scores = found.get("scores") if isinstance(found, dict) else None
        if not isinstance(scores, list):
            raise RefusedError('the guardian\'s server did not answer with {"scores": [...]}')
        return scores

    def _answer(self, body: Any) -> bytes:
        import httpx

        try:
            with self._client.stream("POST", self.url, json=body) as response:
                if response.status_code != 200:
                    raise RefusedError(f"the guardian's server answered {response.status_code}")
                found = bytearray()
                for part in response.iter_bytes():
                    found += part
                    if len(found) > LARGEST:
                        raise RefusedError(f"the guardian's server answered more than {LARGEST} bytes")
        except httpx.HTTPError as error:
            what = type(error).__name__
            raise RefusedError(f"the guardian's server did not answer ({what})") from None
        return bytes(found)


def host_of(url: str) -> str:
    """The host and port of a URL, without what may be secret in it. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("stage 'guardian': url must be an http or https address with a host")
    return parts.hostname + (f":{parts.port}" if parts.port else "")
