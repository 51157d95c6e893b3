"""`Pins`: what the reader of a certificate already knows, and the certificate must agree with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import canonical, model_digest, options
from purify_plugins.errors import MismatchError
from purify_plugins.foreign import adapted_policy

if TYPE_CHECKING:
    from purify_plugins.certificates.offered import Policies
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.types import Certificate, Guarantee

Digests = str | Path | Mapping[str, str]
"""A model's SHA-256 (`model_digest`, or of its only weights file), its place, or digests by file name."""
WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Pins:
    """Known values: the answer's text, the policy with its options, the models' digests, any field.

    `slm_card` and `llm_card` are the content of the models' provenance cards; `guarantee` is the one that
    this answer must have. `fields` maps paths into the certificate (`method.sampling.seed`) to required
    values.
    """

    answer: bytes | None = None
    policy: FusionPolicy | None = None
    slm: Digests | None = None
    llm: Digests | None = None
    slm_card: bytes | None = None
    llm_card: bytes | None = None
    guarantee: Guarantee | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def check(self, certificate: Certificate, plugins: Policies) -> None:
        """Raise MismatchError for the first value that differs."""
        body = certificate.body
        if self.answer is not None:
            _check_answer(body, self.answer)
            _check_operator(body, self.answer)
        decodes = _decodes(certificate)
        if not decodes and any((self.policy, self.slm, self.llm, self.slm_card, self.llm_card)):
            raise MismatchError(
                "no model wrote any of this answer: it is the operator's text, and names none"
            )
        for decode in decodes:
            if self.policy is not None:
                _check_policy(decode, self.policy, plugins)
            for side, known in (("slm", self.slm), ("llm", self.llm)):
                if known is not None:
                    _check_model(side, decode["models"][side], known)
            for side, card in (("slm", self.slm_card), ("llm", self.llm_card)):
                if card is not None:
                    _check_card(side, decode["models"][side], card)
        if self.guarantee is not None:
            _check_guarantee(certificate.claim, self.guarantee)
        for path, value in self.fields.items():
            _check_field(body, path, value)


NOTHING = Pins()


def _decodes(certificate: Certificate) -> list[Mapping[str, Any]]:
    """The records of the decodes that a pin is about: with stages, of every draft that counts."""
    if not certificate.staged:
        return [certificate.body]
    return [each["certificate"] for each in certificate.body["drafts"] if each["role"] != "discarded"]


def _check_answer(body: Mapping[str, Any], text: bytes) -> None:
    """The text may have one more line break at its end than the answer, as editors add one."""
    recorded = body["answer"]
    if any(map(_is(recorded), as_sent(text))):
        return
    if any(each["kind"] == "restored" for each in body.get("segments", ())):
        raise MismatchError(
            "the certificate is not for this answer: true values were put back in it, and the text that is "
            "certified has surrogates in their places; give that"
        )
    raise MismatchError(
        f"the certificate is not for this answer: {_difference(recorded, text)}; give the text exactly as it "
        "was answered, without its prompt (a stop string that /generate returns is no part of what is "
        "certified)"
    )


def as_sent(text: bytes) -> set[bytes]:
    """A text, and the same without one line break at its end, which a program may have added."""
    return {text, text.removesuffix(b"\n"), text.removesuffix(b"\r\n")}


def _check_operator(body: Mapping[str, Any], text: bytes) -> None:
    """The operator's text at an answer's end, which only the answer itself shows."""
    *_, last = body.get("segments") or [{}]
    if last.get("kind") != "operator":
        return
    said = text[body["answer"]["bytes"] - last["bytes"] : body["answer"]["bytes"]]
    if not _is(last)(said):
        raise MismatchError("the answer does not end in the operator's text that the certificate names")


def _is(recorded: Mapping[str, Any]) -> Callable[[bytes], bool]:
    """A predicate: whether a text has the recorded length and digest."""
    length, digest = recorded["bytes"], recorded["sha256"]
    return lambda text: (len(text), hashlib.sha256(text).hexdigest()) == (length, digest)


def _difference(recorded: Mapping[str, Any], text: bytes) -> str:
    """How a text differs, as far as its length and digest show; without its last line break."""
    unix = text.replace(b"\r\n", b"\n").strip(b"\n")
    if any(map(_is(recorded), (unix, unix + b"\n", unix.replace(b"\n", b"\r\n")))):
        return "it differs only in line ends"
    length = len(text.removesuffix(b"\n"))
    if recorded["bytes"] in (length, len(text)):
        return f"it has the same length, {recorded['bytes']} bytes, and other content"
    return f"it has {length} bytes without its last line break, and the certificate's has {recorded['bytes']}"


def _check_policy(body: Mapping[str, Any], policy: FusionPolicy, plugins: Policies) -> None:
    per_token = body["models"]["slm"].get("alphabet", {}).get("per_token", 1.0)
    policy = adapted_policy(policy)
    policy = policy.in_symbols(per_token) if per_token > 1 else policy
    known = (plugins.name_of(policy), options(policy, plugins.name_of))
    recorded = (body["method"]["policy"], body["method"]["parameters"])
    if recorded != known:
        raise MismatchError(
            f"the answer was written under {recorded[0]!r} with {canonical(recorded[1])}, "
            f"not {known[0]!r} with {canonical(known[1])}; name every option that is not at its default"
        )


def _check_guarantee(method: Mapping[str, Any], needed: Guarantee) -> None:
    if method["guarantee"] != needed:
        raise MismatchError(
            f"the guarantee of this answer is {method['guarantee']!r} ({method['reason']}), and "
            f"{needed!r} is required; do not rely on it, and ask for one that was drawn so"
        )


def _check_model(side: str, recorded: Mapping[str, Any], known: Digests) -> None:
    files = recorded.get("files") or {}
    who = f"the {side.upper()}, {recorded.get('name')!r}"
    if not files:
        raise MismatchError(f"the certificate names no files of {who}; only a signature can say who that was")
    if isinstance(known, str):
        weights = [digest for name, digest in files.items() if name.endswith(WEIGHTS)]
        fine = known in (model_digest(files), *(weights if len(weights) == 1 else ()))
    else:
        fine = dict(hashed(known, files) if isinstance(known, Path) else known) == dict(files)
    if not fine:
        raise MismatchError(f"{who}, has the digest {model_digest(files)}, which is not the one given")


def _check_card(side: str, recorded: Mapping[str, Any], card: bytes) -> None:
    """A card is compared as its file was when the model was loaded, byte for byte."""
    who, given = f"the {side.upper()}, {recorded.get('name')!r}", hashlib.sha256(card).hexdigest()
    if (told := recorded.get("card")) is None:
        raise MismatchError(f"the certificate names no provenance card of {who}; ask its issuer why")
    if told["sha256"] != given:
        raise MismatchError(
            f"the provenance card of {who}, has the SHA-256 {told['sha256']}, and the file you gave {given}; "
            "ask for the card as it was when the answer was written"
        )


def hashed(place: Path, names: Iterable[str], weights: bool = True) -> dict[str, str]:
    """The SHA-256 of the named files of a directory, and of all its `weights`; paths are skipped.

    Of a file that is a whole model its own, if it is named.
    """
    folder = place
    if place.is_file():
        folder, names, weights = place.parent, {place.name} & {*names}, False
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
