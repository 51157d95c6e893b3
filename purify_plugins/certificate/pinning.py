"""What the reader of a certificate knows by other means, and it must agree with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.certificate.spelling import canonical, options
from purify_plugins.errors import MismatchError

if TYPE_CHECKING:
    from purify_plugins.certificate.spelling import Certificate
    from purify_plugins.plugins import Plugins
    from purify_plugins.types import FusionPolicy

Digests = str | Path | Mapping[str, str]
"""A model's SHA-256 (`model_digest`, or its one file of weights'), its directory, or each file's by name."""


def model_digest(files: Mapping[str, str]) -> str:
    """One SHA-256 for a model: of the canonical JSON of its files' SHA-256, by name."""
    return hashlib.sha256(canonical(files).encode()).hexdigest()


@dataclass(frozen=True)
class Pins:
    """What the reader knows: the answer's text, the policy with its options, the models' digests, any field.

    `fields` are paths into the certificate (`method.sampling.seed`) and the values that must stand there.
    """

    answer: bytes | None = None
    policy: FusionPolicy | None = None
    slm: Digests | None = None
    llm: Digests | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def check(self, certificate: Certificate, plugins: Plugins) -> None:
        """Raise MismatchError for the first thing that is not as the reader knows it."""
        body = certificate.body
        if self.answer is not None:
            _check_answer(body["answer"], self.answer)
        if self.policy is not None:
            _check_policy(body, self.policy, plugins)
        for side, known in (("slm", self.slm), ("llm", self.llm)):
            if known is not None:
                _check_model(side, body["models"][side], known)
        for path, value in self.fields.items():
            _check_field(body, path, value)


NOTHING = Pins()


def _check_answer(told: Mapping[str, Any], text: bytes) -> None:
    """A file's last line break is its editor's; the answer may have been written with or without."""
    for each in (text, text.removesuffix(b"\n"), text.removesuffix(b"\r\n")):
        if (len(each), hashlib.sha256(each).hexdigest()) == (told["bytes"], told["sha256"]):
            return
    raise MismatchError(
        f"the certificate is not for this answer: that has {len(text)} bytes and the certificate's "
        f"{told['bytes']}, or another SHA-256; give the text exactly as it was answered"
    )


def _check_policy(body: Mapping[str, Any], policy: FusionPolicy, plugins: Plugins) -> None:
    per_token = body["models"]["slm"].get("alphabet", {}).get("per_token", 1.0)
    policy = policy.in_symbols(per_token) if per_token > 1 else policy
    known = (plugins.name_of(policy), options(policy, plugins))
    told = (body["method"]["policy"], body["method"]["parameters"])
    if told != known:
        raise MismatchError(
            f"the answer was written under {told[0]!r} with {canonical(told[1])}, "
            f"not {known[0]!r} with {canonical(known[1])}; name every option that is not at its default"
        )


def _check_model(side: str, told: Mapping[str, Any], known: Digests) -> None:
    files = told.get("files") or {}
    who = f"the {side.upper()}, {told.get('name')!r}"
    if not files:
        raise MismatchError(f"the certificate names no files of {who}; only a signature can say who that was")
    if isinstance(known, str):
        weights = [digest for name, digest in files.items() if name.endswith(".safetensors")]
        fine = known in (model_digest(files), *(weights if len(weights) == 1 else ()))
    else:
        fine = dict(hashed(known, files) if isinstance(known, Path) else known) == dict(files)
    if not fine:
        raise MismatchError(f"{who}, has the digest {model_digest(files)}, which is not the one given")


def hashed(folder: Path, names: Iterable[str], weights: bool = True) -> dict[str, str]:
    """The SHA-256 of a directory's files that are named, and of all its `weights`; a path names none."""
    every = {file.name for file in folder.glob("*.safetensors")} if weights else set()
    found = {}
    for name in sorted(every | {name for name in names if Path(name).name == name}):
        if (folder / name).is_file():
            with (folder / name).open("rb") as content:
                found[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def _check_field(body: Any, path: str, value: Any) -> None:
    found = body
    for key in path.split("."):
        try:
            found = found[int(key) if isinstance(found, list) else key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise MismatchError(
                f"a certificate has no field {path!r}; docs/certificates.md lists them"
            ) from error
    if canonical({"": found}) != canonical({"": value}):
        raise MismatchError(f"{path} is {canonical({path: found})[len(path) + 4 : -1]}, not the value given")
