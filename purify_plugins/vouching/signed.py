"""Whether a model's files are as they were signed, when they are checked and still once they are loaded."""

from __future__ import annotations

import ast
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from purify_plugins.errors import ModelError
from purify_plugins.vouching.bundle import ALONE, ASK, Bundle, SignatureKey

State = tuple[int, int, int, int]
"""Inode, size, and the times of the last change of content and of anything, in nanoseconds.

The last one cannot be set back by who may write the file.
"""


def signed_place(place: Path, bundle: Bundle) -> Path:
    """What was signed: the model's directory, or its only file."""
    return place.resolve() if place.is_dir() or bundle.of_a_file else place.resolve().parent


def states(place: Path) -> dict[str, State]:
    """The state of a file, or of a directory and all that is in it, links followed once."""
    return {str(each): _state(each) for each in _within(place)}


def _within(place: Path) -> Iterator[Path]:
    yield place
    for folder, folders, files in os.walk(place):
        yield from (Path(folder) / name for name in sorted((*folders, *files)))


def _state(place: Path) -> State:
    try:
        found = place.stat()
    except OSError:  # a link to nothing, or removed since: then another state than before
        return (0, 0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def require_signed(place: Path, bundle: Bundle, key: SignatureKey) -> None:
    """Raise ModelError unless the files at `place` are those that `key` signed: all, and no others."""
    from model_signing.hashing import Config as Hashing
    from model_signing.verifying import Config

    # The library reads paths; these hold what was read once, whatever happens to the files meanwhile.
    with tempfile.TemporaryDirectory(prefix="purify-") as made:
        signature, trusted = Path(made) / "signature", Path(made) / "key"
        signature.write_bytes(bundle.content)
        trusted.write_bytes(key.content)
        try:
            config = Config().set_hashing_config(
                Hashing().set_ignored_paths(paths=_own(place, bundle)).set_allow_symlinks(bundle.links)
            )
            if key.hint is None:
                config.use_certificate_verifier(certificate_chain=[trusted])
            else:
                config.use_elliptic_key_verifier(public_key=trusted)
            config.verify(place, signature)
        except Exception as error:  # the library raises many kinds; each means that it is not as signed
            raise ModelError(_refusal(place, bundle, key, error)) from error


def _own(place: Path, bundle: Bundle) -> list[Path]:
    """The signature's own file, where it lies in the directory that it is of."""
    own = Path(bundle.file).expanduser().resolve()
    return [own.relative_to(place)] if own.is_relative_to(place) else []


def _refusal(place: Path, bundle: Bundle, key: SignatureKey, error: Exception) -> str:
    found = str(error)
    if differences := found.removeprefix("Signature mismatch: ").strip() if "mismatch: [" in found else "":
        return f"{place} is not as it was signed: {_in_words(differences)}; {ASK}"
    if "symlink" in found:
        return f"{place} holds a symbolic link, and it was signed without any; put the file there, or {ASK}"
    if type(error).__name__ == "InvalidSignature" or "ertificate" in type(error).__name__ + found:
        who = "key" if key.hint else "authority"
        return f"{bundle.file!r} is no signature by the {who} that is expected ({key.id}); {ASK}"
    return f"{bundle.file!r} cannot be checked ({type(error).__name__}: {found[:200]}); {ASK}"


def _in_words(differences: str) -> str:
    """The library's list of differences, without digests."""
    try:
        listed = ast.literal_eval(differences)
    except (ValueError, SyntaxError):
        return differences[:500]
    said = []
    for each in map(str, listed):
        if changed := re.match("Hash mismatch for '(.*)': Expected", each):
            said.append(f"{changed[1] if changed[1] != ALONE else 'it'} differs")
        elif other := re.match("(Extra|Missing) files found in model '.*?': (.*)", each, re.DOTALL):
            said.append(f"{other[2]} {'was added' if other[1] == 'Extra' else 'is missing'}")
        elif missing := re.match("Missing files in model '.*?': (.*)", each, re.DOTALL):
            said.append(f"{missing[1]} is missing")
        else:
            said.append(each[:200])
    return ", ".join(said)


def require_loaded(files: Mapping[str, str], place: Path, bundle: Bundle) -> None:
    """Raise ModelError unless each file that was loaded, with its SHA-256, is one that was signed."""
    if not files:
        raise ModelError(f"the files of {place} changed while it was loaded; load it again")
    for name, digest in files.items():
        if bundle.files.get(ALONE if bundle.of_a_file else name) != digest:
            raise ModelError(
                f"{name} in {place} was loaded, and it is none of the signed files; sign all of the "
                "directory, or get it again"
            )
