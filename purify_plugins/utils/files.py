"""Read files with errors that say what to do; write files whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO, RawIOBase
from pathlib import Path
from threading import Lock

from purify_plugins.errors import ConfigError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises ConfigError."""
    return decoded(read_bytes(path), repr(str(path)))


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises ConfigError."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        said, advice = (error, "check the path") if isinstance(error, ValueError) else _why(error)
        raise ConfigError(f"cannot read {str(path)!r}: {said}; {advice}") from error


def decoded(content: bytes, what: str) -> str:
    """UTF-8 text, its line ends as `\n`; `what` it is the content of, for errors. Raises ConfigError."""
    try:
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a directory",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
}
"""Advice about a file that cannot be read, by errno."""


def _why(error: OSError) -> tuple[str | None, str]:
    """The system's message, and advice."""
    return error.strerror, ADVICE.get(error.errno or 0, "name another file")


def require_writable(path: Path) -> None:
    """Raise ConfigError, before any work is done, when `path` could not be written at its end."""
    _require_place(path)
    if not _is_stream(path):
        _try(path.resolve().parent, path)  # the file is made beside its place, and moved there
    elif not os.access(path, os.W_OK):  # opening a pipe would wait for its reader
        raise ConfigError(f"{str(path)!r} cannot be written; name another")


def require_new(path: Path) -> None:
    """Raise ConfigError where a file would be written over; a pipe or a terminal is not one."""
    if path.exists() and not _is_stream(path):
        raise ConfigError(f"there is a file {str(path)!r} already; name another, or replace it with --force")


def make_folder(path: Path) -> None:
    """Make a directory for what is written later, before any work is done. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot make the directory {str(path)!r}: {said}; name another") from error
    _try(path, path)


def _require_place(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no directory for {str(path)!r}; create it first")


def _try(folder: Path, wanted: Path) -> None:
    """Try to write into a directory: permissions do not show a read-only disk, and mean nothing to root."""
    from tempfile import TemporaryFile

    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"cannot write {str(wanted)!r}: {error.strerror}; name another place") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the file beside its place and move it there; a device or pipe is written to. Raises ConfigError.

    A link stays, and the file it leads to is replaced.
    """
    _require_place(path)
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
    from tempfile import mkstemp

    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, beside = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, mode)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


_MASK = Lock()


def _umask() -> int:
    """The process's mask, which can only be read by setting it: two threads at once would leave it set."""
    with _MASK:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask
