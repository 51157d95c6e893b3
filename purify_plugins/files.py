"""Files are read with one sentence of advice, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
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


def write_whole(path: Path, text: str) -> None:
    """Write the file beside its place and move it there. Raises ConfigError."""
    require_folder(path)
    try:
        handle, beside = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
