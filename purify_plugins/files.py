"""Files are read with one sentence of advice, and written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from io import FileIO, RawIOBase
from pathlib import Path

from purify_plugins.errors import ConfigError


def read_text(path: Path) -> str:
    """What stands in a UTF-8 file. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error.reason}") from error


def require_folder(path: Path) -> None:
    """Raise ConfigError, before any work is done, when `path` could not be written at its end."""
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no directory for {str(path)!r}; create it first")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the file beside its place and move it there; a device or pipe is written to. Raises ConfigError.

    A link stays, and the file it leads to is replaced.
    """
    require_folder(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        if _is_stream(path):
            with path.open("ab", buffering=0) as stream:
                _write(stream, data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe or this process's own output, in whose place no file must come."""
    if not path.exists():
        return False
    within = path.absolute()
    return not stat.S_ISREG(path.stat().st_mode) or any(
        within.is_relative_to(each) for each in ("/dev", "/proc")
    )


def _write(stream: RawIOBase | FileIO, data: bytes) -> None:
    """All of the bytes; a pipe may take them in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def _replace(path: Path, data: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, mode)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
