"""A signed certificate, its envelope and its chain, each edited once: every edit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from purify_plugins.canonical_json import canonical
from purify_plugins.certificates import Pins
from purify_plugins.certificates.coverage import cover
from purify_plugins.errors import (
    AlteredError,
    CertificateError,
    ChainError,
    ForgedError,
    MismatchError,
    NoCertificateError,
    SignatureError,
    UncheckableError,
    UnreadableError,
)
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.envelope import Envelope, Signature, pae, read_envelope
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.signing.statement import PAYLOAD_TYPE, statement
from purify_plugins.verifying import opening
from purify_plugins.verifying.examine import Known, examined
from tests.signing.edits import forged, hundred, inside, letter, outside
from tests.signing.issuing import answer, published, purify, several, sign

KEY, OTHER = HeldKey.new(), HeldKey.new()
PLUGINS = load_plugins([])


@cache
def signed() -> bytes:
    return sign(answer(length=3).certificate, KEY)


def check(data: bytes, *keys: HeldKey, **known: Any) -> None:
    examined(data, Known(keys=tuple(key.public for key in keys), **known), PLUGINS)


def test_what_was_signed_holds() -> None:
    check(signed(), KEY)


@pytest.mark.parametrize("way", [inside, outside, letter])
def test_a_hundred_edits_of_a_signed_certificate_are_refused(way: Callable[[bytes, Random], bytes]) -> None:
    for edited in hundred(way, signed()):
        with pytest.raises(CertificateError):
            check(edited, KEY)


def test_a_hundred_edits_of_an_unsigned_one_are_refused_or_listed() -> None:
    """What is accepted is a field that the docs say takes a pin, a model or a signature."""
    text = answer(length=3).certificate.text
    accepted = []
    for edited, path in hundred(forged, text):
        try:
            check(edited.encode())
        except CertificateError:
            continue
        accepted.append(cover(".".join(map(str, path))).way)
    assert accepted
    assert "alone" not in accepted


def test_a_signature_that_is_stripped_leaves_nothing_that_holds() -> None:
    with pytest.raises(SignatureError, match="not signed, and you gave a key"):
        check(answer(length=3).certificate.text.encode(), KEY)


def test_without_a_key_it_is_not_known_whether_it_holds() -> None:
    found = examined(signed(), Known(), PLUGINS)
    assert (found.code, "no key was given" in found.verdict) == (2, True)


def test_another_s_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="no signature is of it"):
        check(signed(), OTHER)
    with pytest.raises(SignatureError):
        check(signed(), KEY, OTHER)


# Several signatures


def test_every_key_that_is_given_must_have_signed() -> None:
    both = sign(answer(length=3).certificate, KEY, OTHER)
    check(both, KEY, OTHER)
    found = examined(both, Known(keys=(KEY.public,)), PLUGINS)
    assert (found.code, found.opened.others) == (0, (OTHER.public.id,))
    assert any("were not checked" in line for line in found.findings)


def test_one_bad_signature_of_two_is_refused() -> None:
    envelope = read_envelope(sign(answer(length=3).certificate, KEY, OTHER))
    [good, bad] = envelope.signatures
    spoiled = Envelope(envelope.payload, envelope.payload_type, (good, Signature(bad.keyid, good.sig)))
    with pytest.raises(SignatureError, match="a signature that names it is not of these bytes"):
        check(spoiled.text.encode(), KEY, OTHER)
    with pytest.raises(AlteredError):
        check(spoiled.text.encode(), KEY)


@pytest.mark.parametrize(
    "ids",
    [
        lambda: (OTHER.public.id,),
        lambda: ("",),
        lambda: (KEY.public.id, KEY.public.id),
        lambda: (KEY.public.id, "x"),
    ],
)
def test_a_key_s_id_decides_nothing_and_must_be_right(ids: Callable[[], tuple[str, ...]]) -> None:
    """Ids that collide, are left out or are another's: none makes a signature good, and none is let stand."""
    envelope = read_envelope(signed())
    sig = envelope.signatures[0].sig
    renamed = Envelope(envelope.payload, PAYLOAD_TYPE, tuple(Signature(each, sig) for each in ids()))
    with pytest.raises(AlteredError):
        check(renamed.text.encode(), KEY)
    with pytest.raises(CertificateError):
        check(renamed.text.encode(), OTHER)


# What is signed must be what it is taken for (CVE-2022-35929)


def resigned(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """Any bytes, with a right signature."""
    return Envelope(payload, kind, (Signature(KEY.public.id, KEY.sign(pae(kind, payload))),)).text.encode()


def restated(change: Callable[[dict[str, Any]], Any]) -> bytes:
    stated = json.loads(read_envelope(signed()).payload)
    change(stated)
    return resigned(canonical(stated).encode())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda body: body.update(_type="https://in-toto.io/Statement/v0.1"), "no statement of the type"),
        (lambda body: body.update(predicateType="https://slsa.dev/provenance/v1"), "holds something else"),
        (lambda body: body.update(predicateType="urn:purify-plugins:certificate:3"), "holds something else"),
        (lambda body: body.update(predicateType="urn:purify-plugins:day:1"), "holds something else"),
        (lambda body: body["subject"].append(body["subject"][0]), "not about one answer"),
        (lambda body: body["subject"][0]["digest"].update(sha256="0" * 64), "about another answer"),
        (lambda body: body["subject"][0]["digest"].update(sha1="0" * 40), "about another answer"),
        (lambda body: body["subject"][0]["annotations"].update(sequence=True), "no place in a chain"),
        (lambda body: body["subject"][0]["annotations"].update(issued="2026"), "no place in a chain"),
        (lambda body: body.update(more=1), "no statement of the type"),
        (lambda body: body["predicate"].update(digest="0" * 64), "digest does not match"),
    ],
)
def test_a_right_signature_over_something_else_is_refused(change: Callable[[Any], Any], why: str) -> None:
    with pytest.raises((NoCertificateError, ForgedError, AlteredError), match=why):
        check(restated(change), KEY)


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.purify-plugins.link+json", ""])
def test_a_right_signature_of_another_type_is_refused(kind: str) -> None:
    with pytest.raises(NoCertificateError, match="not an in-toto statement"):
        check(resigned(read_envelope(signed()).payload, kind), KEY)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('{"_type"', '{"_type":"x","_type"', 1),
        lambda text: text.replace('"sequence":0', '"sequence":0.0', 1),
        lambda text: text.replace('"sequence":0', f'"sequence":{"9" * 5000}', 1),
        lambda text: text.replace('"temperature":1.0', '"temperature":1e999', 1),
        lambda text: text.replace('"temperature":1.0', '"temperature":NaN', 1),
        lambda text: text.replace('"temperature":1.0', '"temperature":1.00', 1),
        lambda text: f"{text} ",
        lambda text: f"\ufeff{text}",
        lambda text: "[" * 200_000,
        lambda text: json.dumps(json.loads(text)),
    ],
)
def test_a_right_signature_over_another_spelling_is_refused(spoil: Callable[[str], str]) -> None:
    """Keys that occur twice, numbers that are none: two readers could take them for two things."""
    text = read_envelope(signed()).payload.decode()
    assert spoil(text) != text
    with pytest.raises(CertificateError):
        check(resigned(spoil(text).encode()), KEY)


def test_the_signer_states_what_the_verifier_reads() -> None:
    certificate = answer(length=3).certificate
    made = Signer([KEY]).signed(certificate)
    stated = opening.opened(made.issued.encode(), [KEY.public]).statement
    assert stated is not None
    assert statement(certificate.text, stated.link) == read_envelope(made.issued.encode()).payload


# The answer's file


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(" ", "\u00a0", 1),
        lambda text: f"\ufeff{text}",
        lambda text: f"{text} ",
        lambda text: f"{text}\n\n",
        lambda text: text.upper(),
        lambda text: text + "\u200b",
        lambda text: "",
    ],
)
def test_another_spelling_of_the_answer_is_another_answer(spoil: Callable[[str], str]) -> None:
    found = answer(length=8)
    check(found.certificate.text.encode(), pins=Pins(answer=found.text.encode()))
    check(found.certificate.text.encode(), pins=Pins(answer=f"{found.text}\r\n".encode()))
    with pytest.raises(MismatchError, match="not for this answer"):
        check(found.certificate.text.encode(), pins=Pins(answer=spoil(found.text).encode()))


def test_a_file_beyond_any_certificate_s_size_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST", len(signed()) - 1)
    with pytest.raises(UnreadableError, match="no certificate has more than"):
        check(signed(), KEY)


# Chains


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A log of five certificates with its root, and the certificates."""
    signer = Signer([KEY], tmp_path / "log")
    made = [each.issued.encode() for each in several(5, signer)]
    signer.close()
    return tmp_path / "log", made


def test_a_chain_is_whole(chain: tuple[Path, list[bytes]]) -> None:
    folder, made = chain
    [log] = folder.glob("*.links.jsonl")
    for place in (folder, log):
        for each in made:
            check(each, KEY, chain=place)


def test_certificates_themselves_are_a_chain(chain: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """Whoever keeps the certificates needs no log."""
    _, made = chain
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.json").write_text("{}")
    for at, each in enumerate(made):
        (kept / f"{4 - at}.json").write_bytes(each)
    check(made[2], KEY, chain=kept)
    (kept / "2.json").unlink()
    with pytest.raises(ChainError, match="one was dropped or moved"):
        check(made[4], KEY, chain=kept)


def lines_of(folder: Path) -> tuple[Path, list[bytes]]:
    [log] = folder.glob("*.links.jsonl")
    return log, log.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("at", range(5))
def test_a_link_that_is_dropped_or_moved_is_noticed(chain: tuple[Path, list[bytes]], at: int) -> None:
    folder, made = chain
    log, lines = lines_of(folder)
    log.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    with pytest.raises(ChainError):
        check(made[0], KEY, chain=folder)
    moved = lines[:at] + lines[at + 1 :] + lines[at : at + 1]
    log.write_bytes(b"".join(moved))
    if moved != lines:
        with pytest.raises(ChainError, match="dropped or moved"):
            check(made[0], KEY, chain=log)
    log.write_bytes(b"".join([*lines[: at + 1], *lines[at:]]))
    with pytest.raises(ChainError, match="dropped or moved"):
        check(made[0], KEY, chain=log)


def line_of(whole: bytes, random: Random) -> bytes:
    lines = whole.splitlines()
    at = random.randrange(len(lines))
    lines[at] = outside(lines[at], random)
    return b"\n".join(lines)


def test_a_hundred_edits_of_a_chain_are_refused(chain: tuple[Path, list[bytes]]) -> None:
    """Of a line of the log or of the root, from inside and by letters."""
    folder, made = chain
    log, _ = lines_of(folder)
    [root] = folder.glob("*.root.json")
    for file in (log, root):
        whole = file.read_bytes().removesuffix(b"\n")
        for edited in (*hundred(letter, whole), *hundred(line_of, whole)):
            file.write_bytes(edited)
            with pytest.raises(CertificateError):
                check(made[4], KEY, chain=folder)
        file.write_bytes(whole)


def test_another_chain_s_certificate_is_not_in_it(chain: tuple[Path, list[bytes]]) -> None:
    folder, _ = chain
    with pytest.raises(ChainError, match="nothing of its chain"):
        check(signed(), KEY, chain=folder)


def test_a_place_or_a_date_takes_a_signature() -> None:
    text = answer(length=3).certificate.text.encode()
    for known in ({"chain": Path()}, {"after": "2026-01-01T00:00:00Z"}):
        with pytest.raises(UncheckableError, match="not signed"):
            check(text, **known)


def test_what_was_issued_before_a_date_is_refused() -> None:
    check(signed(), KEY, after="2026-01-01T00:00:00Z")
    with pytest.raises(MismatchError, match="was issued at"):
        check(signed(), KEY, after="2999-01-01T00:00:00Z")


# The command


def test_the_command_ends_with_a_code_for_each_verdict(tmp_path: Path) -> None:
    file, pub = tmp_path / "answer.json", published(KEY, tmp_path)
    file.write_bytes(signed())
    told = {
        (): 2,
        ("--key", pub): 0,
        ("--key", published(OTHER, tmp_path, "other.pub")): 1,
        ("--key", pub, "--issued-after", "2999-01-01"): 1,
        ("--key", pub, "--issued-after", "soon"): 2,
        ("--key", pub, "--chain", tmp_path / "nowhere"): 3,
        ("--key", tmp_path / "nowhere"): 3,
        ("--key", pub, "--key", pub): 2,
    }
    for options, code in told.items():
        found = purify("verify", file, *options)
        assert found.exit_code == code, (options, found.output)
    first = purify("verify", file, "--key", pub).stdout.splitlines()[0]
    assert first.startswith("Verdict: HOLDS. The key you gave has signed it")
    facts = json.loads(purify("verify", file, "--key", pub, "--json").stdout)
    assert (facts["verdict"], facts["signed_by"]) == ("holds", [KEY.public.id])
