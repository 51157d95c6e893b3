"""Surrogates: of their value's type, the same for one key, no one's, and no two alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.private.dice import Dice
from purify_hooks.private.finders import checksums
from purify_hooks.private.forms import folded
from purify_hooks.private.shapes import LONGEST, MAKERS, shaped
from purify_hooks.private.surrogates import AskedTexts, Surrogates
from purify_hooks.private.values import PrivateValue
from purify_plugins import RefusedError

KEY = b"a key of the operator's"
VALUES = {
    "email": "Ada.Quill+mail@corp.example.co.uk",
    "phone": "+1 (415) 555-2671",
    "card": "4539 1488 0343 6467",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ssn": "536-22-8726",
    "ipv4": "10.20.30.40",
    "ipv6": "fe80::1ff:fe23:4567:890a",
    "mac": "3c:22:fb:9a:01:7e",
    "birth_date": "23 April 1987",
    "url_credentials": "ada:hunter2",
    "sk_key": "sk-proj-AbCdEf0123456789abcdefXYZ",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "word": "Ada M. Quill",
    "bsn": "111222333",
    "hetu": "131052-308T",
    "passport": "C01X00T47",
}


def made(kind: str, value: str, key: bytes = KEY, *texts: str) -> str:
    [found] = Surrogates(key, AskedTexts([value, *texts])).pairs([PrivateValue.of(value, kind)])
    return found.surrogate


def luhn(text: str) -> bool:
    digits = [int(each) for each in reversed(text) if each.isdigit()]
    return sum(sum(divmod(each * (1 + at % 2), 10)) for at, each in enumerate(digits)) % 10 == 0


def mod97(text: str) -> bool:
    text = re.sub(r"\s", "", text)
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


CHECKS: dict[str, Callable[[str], object]] = {
    "email": lambda text: re.fullmatch(r"[a-z]+\.[a-z]+@example\.(com|org|net)", text),
    "phone": lambda text: re.fullmatch(r"\+1 \(\d{3}\) 555-01\d\d", text),
    "card": lambda text: luhn(text) and re.fullmatch(r"4242 42\d\d \d{4} \d{4}", text),
    "iban": lambda text: mod97(text) and re.fullmatch(r"DE\d\d 0000 \d{4} \d{4} \d{4} \d\d", text),
    "ssn": lambda text: re.fullmatch(r"9\d\d-[0-4]\d-\d{4}", text),
    "ipv4": lambda text: ip_address(text) in ip_network("198.18.0.0/15"),
    "ipv6": lambda text: ip_address(text) in ip_network("2001:db8::/32"),
    "mac": lambda text: re.fullmatch(r"02(:[0-9a-f]{2}){5}", text),
    "birth_date": lambda text: re.fullmatch(r"\d\d [A-Z][a-z]+ (19|20)\d\d", text),
    "url_credentials": lambda text: re.fullmatch(r"[a-z]{3}:[a-z]{6}\d", text),
    "bsn": lambda text: re.fullmatch(r"\d{9}", text) and not checksums.bsn(text),
    "hetu": lambda text: re.fullmatch(r"\d{6}-\d{3}[A-Z]", text) and not checksums.hetu(text),
    "sk_key": lambda text: re.fullmatch(
        r"sk-proj-[A-Z][a-z][A-Z][a-z][A-Z][a-z]\d{10}[a-z]{6}[A-Z]{3}", text
    ),
    "jwt": lambda text: re.fullmatch(r"eyJ\w+\.eyJ\w+\.[\w-]+", text),
    "word": lambda text: re.fullmatch(r"[A-Z][a-z]+ [A-Z]\. [A-Z][a-z]+", text),
    "passport": lambda text: re.fullmatch(r"[A-Z]\d\d[A-Z]\d\d[A-Z]\d\d", text),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_surrogate_is_of_its_value_s_type_and_another_s(kind: str) -> None:
    for number in range(20):
        found = made(kind, VALUES[kind], b"key %d" % number)
        assert CHECKS[kind](found), found
        assert folded(VALUES[kind]) not in folded(found)


@pytest.mark.parametrize("kind", VALUES)
def test_it_follows_from_the_key_and_the_value_alone(kind: str) -> None:
    assert made(kind, VALUES[kind]) == made(kind, VALUES[kind], KEY, "another text", "Peter Brown")
    assert made(kind, VALUES[kind]) != made(kind, VALUES[kind], b"another key")


@pytest.mark.parametrize("kind", VALUES)
def test_where_a_text_has_it_the_next_one_is_taken(kind: str) -> None:
    first = made(kind, VALUES[kind])
    second = made(kind, VALUES[kind], KEY, f"they say {first} here")
    assert first != second
    assert CHECKS[kind](second)


def test_spellings_of_one_value_have_one_surrogate() -> None:
    for kind, first, second in (
        ("card", "4539 1488 0343 6467", "4539148803436467"),
        ("iban", "DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
        ("email", "ADA@corp.com", "ada@Corp.com"),
        ("word", "Zo\u00eb Quill", "Zoe\u0308 QUILL"),
        ("phone", "+14155552671", "+1 (415) 555-2671"),
        ("phone", "\uff14\uff11\uff15 555 2671", "415 555 2671"),
    ):
        one, other = made(kind, first), made(kind, second)
        assert folded(re.sub(r"[\W_]", "", one)) == folded(re.sub(r"[\W_]", "", other))


def test_parts_follow_the_whole_and_families_share_a_name() -> None:
    values = [PrivateValue.of(each, "word") for each in ("Ada Quill", "Ben Quill", "Ada")]
    ada, ben, alone = Surrogates(KEY, AskedTexts([])).pairs(values)
    assert ada.surrogate.split()[1] == ben.surrogate.split()[1]
    assert ada.surrogate.split()[0] == alone.surrogate != ben.surrogate.split()[0]


def test_titles_and_forms_of_companies_stay() -> None:
    assert re.fullmatch(r"Dr [A-Z][a-z]+ van [A-Z][a-z]+", made("word", "Dr Ada van Quill"))
    assert re.fullmatch(r"[A-Z][a-z]+ GmbH", made("word", "Quill GmbH"))
    assert made("word", "Project") != "Project"  # where nothing else would be left


@given(st.sampled_from(sorted(MAKERS)), st.text(min_size=1, max_size=400), st.binary(min_size=1))
def test_any_text_of_any_kind_has_a_surrogate_of_bounded_length(kind: str, text: str, key: bytes) -> None:
    assert len(MAKERS[kind](Dice(key), text)) <= LONGEST
    assert len(shaped(Dice(key), text)) <= LONGEST


def test_a_hundred_values_of_a_kind_have_a_hundred_surrogates() -> None:
    values = [PrivateValue.of(f"0170 {number:07}", "phone") for number in range(100)]
    values += [
        PrivateValue.of(f"Person{chr(97 + at)}{chr(97 + of)} X", "word")
        for at in range(10)
        for of in range(10)
    ]
    found = Surrogates(KEY, AskedTexts([value.text for value in values])).pairs(values)
    assert len({each.surrogate for each in found}) == 200


def test_where_none_is_left_the_request_is_refused() -> None:
    text = " ".join(f"{number:x}" for number in range(16))
    with pytest.raises(RefusedError, match="no surrogate is left for a private value of the kind 'pin'"):
        made("pin", "7", KEY, text)


def test_a_pem_block_stays_one_and_is_short() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow\n" * 200 + "-----END RSA PRIVATE KEY-----"
    found = made("private_key", block)
    assert found.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert found.endswith("\n-----END RSA PRIVATE KEY-----")
    assert json.loads(json.dumps(found)) == found
    assert len(found) <= LONGEST


def test_no_value_is_in_a_repr() -> None:
    value = PrivateValue.of("Ada Quill", "word")
    surrogates = Surrogates(KEY, AskedTexts(["Ada Quill"]))
    [pair] = surrogates.pairs([value])
    forms = [*pair.veiling(), *pair.restoring()]
    for each in (value, surrogates, pair, surrogates.context, forms):
        assert "Ada" not in repr(each)
