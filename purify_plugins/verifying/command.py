"""`purify-verify`: the checks of `purify verify` that need no model, without a library for commands."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from purify_plugins._version import __version__
from purify_plugins.certificates.explain_stages import explained
from purify_plugins.certificates.offered import Policies
from purify_plugins.errors import CertificateError, ConfigError, PurifyError, UnreadableError
from purify_plugins.utils.printable import shown as printable
from purify_plugins.verifying.examine import (
    UNKNOWN,
    VERDICTS,
    Examined,
    examined,
    in_order,
    refused,
)
from purify_plugins.verifying.wanted import field, known

OPTIONS: Mapping[str, tuple[str, str]] = {
    "--answer": ("FILE", "the text it must be for"),
    "--policy": ("NAME", "the policy it must be under, with its options at their defaults"),
    "--slm-digest": ("SHA256|DIR|FILE", "the SLM it must name"),
    "--llm-digest": ("SHA256|DIR|FILE", "the LLM it must name"),
    "--slm-card": ("FILE", "the provenance card of the SLM it must name"),
    "--llm-card": ("FILE", "the provenance card of the LLM it must name"),
    "--require": ("GUARANTEE", "what must hold for this very answer, such as passage"),
    "--issued-after": ("DATE", "when it must have been issued, or later, such as 2026-11-29"),
    "--chain": ("DIR|FILE", "its issuer's chain, which it must stand in, and which must be whole"),
    "--tsa": ("FILE", "certificates (PEM) of an authority that must have dated its day"),
}
SEVERAL: Mapping[str, tuple[str, str]] = {
    "--key": ("FILE", "a public key that must have signed it; repeatable: all must"),
    "--set": ("KEY=VALUE", "an option of --policy's; repeatable"),
    "--expect": ("FIELD=VALUE", "any field, such as method.sampling.seed=null; repeatable"),
}
ENDS = "Ends with 0: all holds; 1: something does not; 2: that is not known; 3: it cannot be read."


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong command line: one sentence."""
        raise ConfigError(f"{message}; see purify-verify --help")


def parser() -> ArgumentParser:
    """The options of `purify-verify`."""
    found = _Parser("purify-verify", description="Check a certificate, without a model.", epilog=ENDS)
    found.add_argument("certificate", metavar="CERT", help="the certificate's file; -: standard input")
    for name, (shown, about) in OPTIONS.items():
        found.add_argument(name, metavar=shown, help=about)
    for name, (shown, about) in SEVERAL.items():
        found.add_argument(name, metavar=shown, help=about, action="append", default=[])
    found.add_argument("--json", action="store_true", help="one JSON value on standard output")
    found.add_argument("--version", action="version", version=f"purify-verify {__version__}")
    return found


def main(policies: Policies, arguments: Sequence[str] | None = None) -> int:
    """Run the command; what it ends with."""
    as_json = False
    try:
        given = parser().parse_args(arguments)
        as_json = given.json
        data = _contents(given.certificate).removesuffix(b"\n")
        found = examined(data, known(given, policies, _contents), policies)
    except CertificateError as error:
        _print(json.dumps(refused(error)) if as_json else f"Verdict: {_verdict(error)}. {_sentence(error)}")
        return error.exit_code
    except PurifyError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return UNKNOWN
    lines = in_order(found, explained(found.certificate, None, _names(given)))
    _print(json.dumps(_told(found)) if as_json else "\n".join(lines))
    return found.code


def _verdict(error: CertificateError) -> str:
    return VERDICTS[error.exit_code].upper()


def _sentence(error: PurifyError) -> str:
    return printable(" ".join(str(error).split()))


def _print(text: str) -> None:
    sys.stdout.buffer.write(f"{text}\n".encode(errors="replace"))
    sys.stdout.flush()


def _names(given: Namespace) -> list[str]:
    """The names of the given options; for --expect the fields it names."""
    others = ("certificate", "json", "expect")
    names = [name for name, value in vars(given).items() if value and name not in others]
    return [*names, *(path for path, _ in map(field, given.expect))]


def _contents(file: str) -> bytes:
    """A file's bytes; `-` is standard input. Raises UnreadableError."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableError(f"cannot read {file!r}: {said}; give the path of a file") from error


def _told(found: Examined) -> dict[str, Any]:
    """What was found, as JSON."""
    body, claim = found.certificate.body, found.certificate.claim
    facts = {key: claim[key] for key in ("guarantee", "adversary", "reason", "meaning")}
    return {**found.told(), "valid": True, **facts, "answer": body["answer"], "digest": body["digest"]}
