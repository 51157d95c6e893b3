"""`purify keys`: make a pair of keys that sign certificates, and show the id of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from purify_plugins.cli.options import contents
from purify_plugins.errors import ConfigError
from purify_plugins.signing.keys import HeldKey, PublicKey
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.files import write_whole

keys = typer.Typer(add_completion=False, no_args_is_help=True, help="Keys that sign certificates.")


@keys.command()
def new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the private key comes; FILE.pub: the public one.")
    ],
) -> None:
    """Make a pair of keys: one that signs, for you alone, and one to publish."""
    require_extra("sign", "making a key")
    if not file.name:
        raise ConfigError(f"the key {str(file)!r} is a directory; name a file")
    made, public = HeldKey.new(), file.with_name(f"{file.name}.pub")
    if public.exists():
        raise ConfigError(
            f"there is a file {str(public)!r} already; a key is never written over, so name another"
        )
    _write_private(file, made.pem)
    write_whole(public, made.public.pem)
    typer.echo(f"{file}: signs; keep it from everybody else, and name it as `key` under [certificate]")
    typer.echo(f"{public}: publish it where your readers find it by themselves, with its id {made.public.id}")


def _write_private(file: Path, pem: bytes) -> None:
    """Write a file that is new and that its owner alone can read."""
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as written:
            written.write(pem)
    except FileExistsError as error:
        raise ConfigError(
            f"there is a file {str(file)!r} already; a key is never written over, so name another"
        ) from error
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot write the key {str(file)!r}: {said}; name another file") from error


@keys.command("id")
def show(file: Annotated[str, typer.Argument(metavar="FILE", help="A public key.")]) -> None:
    """Print the id of a public key, to compare with one that its owner published."""
    typer.echo(PublicKey.read(contents(file), repr(file)).id)
