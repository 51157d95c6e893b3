"""Signed certificates of a small pair, their keys as files, and purify's command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner, Result

from purify_plugins import Certificate, Completion, Sampling
from purify_plugins.cli import app
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from tests.toys import real


def purify(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=True)


def answer(seed: int = 0, length: int = 8, policy: str = "balanced") -> Completion:
    """An answer of the test bed's pair, unsigned."""
    [found] = real(policy).generate("The king had", Sampling(max_tokens=length, seed=seed))
    assert isinstance(found, Completion)
    return found


def published(key: HeldKey, folder: Path, name: str = "issuer.pub") -> Path:
    """A key's public half as a file."""
    (folder / name).write_text(key.public.pem, "utf-8")
    return folder / name


def sign(certificate: Certificate, *keys: HeldKey) -> bytes:
    return Signer(keys).signed(certificate).issued.encode()


def several(count: int, signer: Signer) -> list[Certificate]:
    """One answer's certificate, signed so many times: a chain needs no more."""
    certificate = answer().certificate
    return [signer.signed(replace(certificate)) for _ in range(count)]
