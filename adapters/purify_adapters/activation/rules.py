"""The lists of trusted and untrusted models and servers; a name in neither is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from purify_plugins.errors import ConfigError, RefusedError

EVERYTHING = "*"
PORTS = {"http": 80, "https": 443}


class Rules:
    """The lists `trusted` and `untrusted` of a configuration; directories are relative to `folder`.

    A URL stands for everything below it. Raises ConfigError for a name in both lists.
    """

    def __init__(self, trusted: Iterable[str], untrusted: Iterable[str], folder: Path) -> None:
        self.folder = folder
        self.trusted = {self._known(name) for name in trusted}
        self.untrusted = {self._known(name) for name in untrusted}
        self._verdicts: dict[str, bool] = {}
        if EVERYTHING in self.trusted:
            raise ConfigError("activation: trusted must not be '*'; leave activation out to purify nothing")
        if both := self.trusted & self.untrusted:
            raise ConfigError(f"activation: {min(both)!r} is both trusted and untrusted; name it once")

    def trusts(self, name: str) -> bool:
        """Whether generations of `name` pass as they are. Raises RefusedError for one in neither list.

        Once untrusted, a name stays so. One that is trusted is looked up each time: after a change of
        directory a relative path is another model's.
        """
        if self._verdicts.get(name, True):
            self._verdicts[name] = self._verdict(name)
        return self._verdicts[name]

    def lists(self, name: str) -> bool:
        """Whether `name` itself is listed as trusted."""
        return self._listed(name, self.trusted)

    def _verdict(self, name: str) -> bool:
        if self.lists(name):
            return True
        if EVERYTHING in self.untrusted or self._listed(name, self.untrusted):
            return False
        raise RefusedError(
            f"{name!r} is neither trusted nor untrusted; name it in one of the lists of [activation]"
        )

    def _known(self, entry: str) -> str:
        """An entry of a list; a directory is resolved relative to `folder`."""
        if is_url(entry):
            return plain(entry)
        beside = self.folder / Path(entry).expanduser()
        return str(beside.resolve()) if beside.is_dir() else entry

    def _listed(self, name: str, entries: set[str]) -> bool:
        if is_url(name):
            return any(_below(plain(name), entry) for entry in entries if is_url(entry))
        return _canonical(name) in entries


def _canonical(name: str) -> str:
    """A directory's resolved path; any other name unchanged."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name and folder.is_dir() else name


def is_url(name: str) -> bool:
    """Whether a name is a server's URL."""
    return name.lower().startswith(("http://", "https://"))


def plain(url: str) -> str:
    """`scheme://host:port/path`, normalised; "" for an invalid URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):  # an invalid port, or another scheme than http and https
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"


def _below(url: str, base: str) -> bool:
    return bool(base) and (url == base or url.startswith(base + "/"))
