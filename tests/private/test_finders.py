"""Private data is found in texts as people write them, by kind, in linear time, and little else is."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.private.finders import GROUPS, KINDS, checksums, finder
from purify_hooks.private.finders.births import BORN
from purify_hooks.private.finders.context import WORDS, ReadText, _pattern
from purify_hooks.private.finders.keys import BEGINNINGS, TOKENS
from purify_hooks.private.finders.keys import PATTERNS as KEY_PATTERNS
from purify_hooks.private.finders.lettered import base58check, bech32
from purify_hooks.private.finders.plain import Plain, plain
from purify_hooks.private.finders.secrets import BEARER, GIVEN, PASSPHRASE, PHRASE
from purify_hooks.private.finders.vat import vat
from purify_hooks.private.samples import VALUES, samples
from purify_plugins.errors import ConfigError, UnknownNameError

ALL = finder()
PUBLISHED = [
    (checksums.luhn, "4111111111111111"),
    (checksums.luhn, "046454286"),
    (checksums.iban, "GB82WEST12345698765432"),
    (checksums.iban, "DE89370400440532013000"),
    (checksums.nhs, "9434765919"),
    (checksums.nir, "255081416802538"),
    (checksums.dni, "12345678Z"),
    (checksums.dni, "X1234567L"),
    (checksums.bsn, "111222333"),
    (checksums.cpf, "52998224725"),
    (checksums.pesel, "44051401359"),
    (checksums.steuer_id, "36574261809"),
    (checksums.aadhaar, "234123412346"),
    (checksums.ahv, "7569217076985"),
    (checksums.personnummer, "8112289874"),
    (checksums.fodselsnummer, "15108695088"),
    (checksums.rijksregister, "85073003328"),
    (checksums.resident_id, "11010519491231002X"),
    (checksums.tfn, "123456782"),
    (checksums.tckn, "10000000146"),
    (checksums.codice_fiscale, "RCCMNL83S18D969H"),
    (checksums.hetu, "131052-308T"),
    (checksums.routing, "111000025"),
    (vat, "DE136695976"),
    (vat, "NL004495445B01"),
    (vat, "FR40303265045"),
    (vat, "GB980780684"),
    (vat, "PL8567346215"),
    (vat, "BE0428759497"),
    (vat, "ATU13585627"),
    (vat, "IT00743110157"),
    (vat, "PT501964843"),
    (vat, "DK13585628"),
    (vat, "FI20774740"),
    (vat, "SE123456789701"),
    (vat, "LU15027442"),
    (vat, "HU12892312"),
    (vat, "SI50223054"),
    (vat, "EL094259216"),
    (vat, "HR33392005961"),
    (vat, "EE100931558"),
    (vat, "ESA28015865"),
    (vat, "CHE100155212"),
    (base58check, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    (bech32, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    (bech32, "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
]
"""Examples from the issuers' own documents, standards and tests of other libraries."""


@pytest.mark.parametrize(("fits", "number"), PUBLISHED, ids=[number for _, number in PUBLISHED])
def test_published_examples_fit_their_checksums_and_no_digit_can_be_another(fits, number: str) -> None:
    assert fits(number)
    places = [place for place, each in enumerate(number) if each.isdigit()]
    at = places[len(places) // 2]
    others = [number[:at] + digit + number[at + 1 :] for digit in "123456789" if digit != number[at]]
    assert not any(map(fits, others))


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_every_kind_is_found_in_generated_prompts(kind: str) -> None:
    drawn = samples(kind, 25, seed=1)
    whole = sum(any(a <= each.start and b >= each.end for a, b, _ in ALL.find(each.text)) for each in drawn)
    assert whole >= 24


def test_there_are_samples_of_every_kind_and_every_group_names_kinds() -> None:
    assert set(VALUES) == set(KINDS)
    assert {kind for group in GROUPS.values() for kind in group} <= set(KINDS)


def test_words_patterns_and_an_email_are_found_in_place() -> None:
    found = finder(patterns={"ticket": r"T-\d{6}"}, words=["Ada Quill"])
    text = "ADA  QUILL's ticket T-123456: a\u200bda%40example.org"
    assert [(text[a:b], kind) for a, b, kind in found.find(text)] == [
        ("ADA  QUILL", "word"),
        ("T-123456", "ticket"),
        ("a\u200bda%40example.org", "email"),
    ]


def test_only_wanted_kinds_are_found_and_an_unknown_one_is_refused() -> None:
    text = "ada@example.org, 4111 1111 1111 1111, 10.1.2.3"
    assert [kind for _, _, kind in finder(kinds=["card", "ip"]).find(text)] == ["card", "ipv4"]
    with pytest.raises(UnknownNameError, match="did you mean 'email'"):
        finder(kinds=["emial"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"patterns": {"a": "("}}, "no regular expression"),
        ({"patterns": {"a": "x*"}}, "empty text"),
        ({"words": ["--"]}, "no letter"),
        ({"words": "/no/such/file"}, "cannot read"),
    ],
)
def test_wrong_options_are_refused(given, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        finder(**given)


@given(st.text(alphabet="a@.-+0123456789 :/%\\n\u200b１é" + "é\n\"'", max_size=200))
def test_spans_are_in_order_apart_and_inside_the_text(text: str) -> None:
    end = 0
    for start, stop, kind in ALL.find(text):
        assert end <= start < stop <= len(text)
        assert kind in KINDS
        end = stop


AROUND = st.text("ab \\u%0041&#x;é\u0301\u200b\n", max_size=30)


@given(AROUND, AROUND)
def test_a_plain_text_maps_back_to_what_it_was_made_of(before: str, after: str) -> None:
    text = f"{before}| 4111\u200b-1111&#45;1111%2D1111 |{after}"
    view = Plain.of(text)
    at = view.text.find("4111-1111-1111-1111")
    assert text[slice(*view.place(at, at + 19))] == "4111\u200b-1111&#45;1111%2D1111"


def test_what_is_written_differently_is_one_plain_text() -> None:
    spellings = [
        "jos\u00e9@example.org",
        "jose\u0301@example.org",
        "jos%C3%A9%40example.org",
        "jos\\u00e9@example\\u002eorg",
    ]
    assert {plain(each) for each in spellings} == {"jos\u00e9@example.org"}


@pytest.mark.parametrize("pattern", [GIVEN, BEARER, PHRASE, PASSPHRASE, BORN], ids="gbprd")
@given(data=st.data())
@settings(max_examples=8)
def test_one_search_finds_where_every_telling_word_may_begin(
    pattern: re.Pattern[str], data: st.DataObject
) -> None:
    read = ReadText(data.draw(st.from_regex(pattern)))
    alone = pattern.finditer(read.low)
    assert [each.span() for each in read.said(pattern)] == [each.span() for each in alone]


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_words_that_tell_of_a_kind_are_where_a_search_for_them_alone_finds_them(kind: str) -> None:
    words = [word.replace("_", " ") for word in WORDS[kind].split()]
    humps = [f"user{word.title()}" for word in words]
    text = " ".join((*words, *map(str.upper, words), *(f"a{word}" for word in words), *humps))
    text += text.replace("s", "ſ").replace("i", "ı").replace("k", "\u212a")
    found = [match.start() for match in _pattern(kind).finditer(text)]
    assert len(found) >= len(words)
    assert ReadText(text)._places[kind] == found


@pytest.mark.parametrize("kind", sorted(TOKENS))
@given(data=st.data())
@settings(max_examples=5)
def test_one_search_finds_where_every_key_may_begin(kind: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(KEY_PATTERNS[kind]))
    places = {match.start() for match in BEGINNINGS.finditer(text)}
    assert {match.start() for match in KEY_PATTERNS[kind].finditer(text)} <= places


def test_brands_of_cards_are_the_ranges_that_their_networks_publish() -> None:
    ranges = {
        **dict.fromkeys((13,), ("4",)),
        16: ("4", *map(str, range(51, 56)), *map(str, range(2221, 2721)), *map(str, range(2200, 2205))),
        15: ("34", "37"),
    }
    longer = ("50", *map(str, range(56, 70)), *map(str, range(3528, 3590)))
    diners = (*map(str, range(300, 306)), "3095", "36", "38", "39")
    for size in range(12, 21):
        begins = ranges.get(size, ())
        begins += longer if 16 <= size <= 19 else ()
        begins += diners if size in (14, 16, 19) else ()
        begins += ("4",) if size == 19 else ()
        for head in range(10_000):
            digits = f"{head:04}" + "7" * (size - 4)
            assert checksums.branded(digits) == digits.startswith(begins)


ADVERSARIAL = [
    *(
        "a",
        "1",
        "@",
        "a@",
        "a@b.",
        "1 ",
        "4 ",
        "4111 ",
        "0000 ",
        "-",
        "+",
        "(",
        "://a:",
        "eyJ",
        "eyJa-",
        "sk-",
        "DE12 ",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "password=",
        "born ",
        "1.",
        "::",
        "0a:",
        "%41",
        "\\n",
        "&#64;",
        "bc1q",
        "1A",
        "xoxb-",
    ),
    *(
        "0123456789",
        "9 9 9 ",
        "aa:",
        "ghp_",
        "token: a",
        " at ",
        "A1",
        "P<",
        "dob 1/1/",
        "ya29.",
        "=\n",
        "123456782 ",
        "\\",
        "1234 5678 ",
    ),
]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("prefix", ADVERSARIAL)
def test_a_megabyte_of_any_prefix_takes_seconds(prefix: str) -> None:
    text = (prefix * (2**20 // len(prefix) + 1))[: 2**20]
    begun = time.thread_time()
    ALL.find(text)
    assert time.thread_time() - begun < 6  # 2 on a quiet machine
