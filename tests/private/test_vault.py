"""What a vault puts back is the same over any cutting of the answer."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.private.finders import plain
from purify_hooks.private.gatekeeper import Gatekeeper
from purify_hooks.private.samples import samples
from purify_hooks.private.vault import depth
from purify_plugins.stages.release import Release
from purify_plugins.stages.request import Request
from purify_plugins.stages.vault import Vault, restored
from purify_plugins.types import Piece, Token

SAID = (
    "Ada Quill, Ben O'Hara, ada@corp-mail.com, +49 170 1234567, 4539 1488 0343 6467, DE89370400440532013000"
)
TOKEN = Token(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@cache
def request() -> Request:
    return Gatekeeper(words=("Ada Quill", "Ben O'Hara", 'A "Q" Z')).answer(Request(f'{SAID}, A "Q" Z'))


def vault() -> Vault:
    found = request().vault
    assert found is not None
    return found


def parts() -> list[str]:
    """Surrogates as they are asked, in capitals, without their end, and what may stand around them."""
    whole = str(request().prompt).split(", ")
    names = whole[0].split()
    other = ['{"a": "', '"}', "[", "\\", "'s", " ", "\n", "x", ".", "(", "+", "-", "é", "Ms "]
    return [*whole, *names, *(each.upper() for each in whole), *(each[:-1] for each in whole), *other]


def released(text: str, ends: list[int]) -> str:
    """What is released of a text that comes in these pieces."""
    release, start = Release((), vault()), 0
    for at, end in enumerate([*sorted(min(end, len(text)) for end in ends), len(text)]):
        release.feed([Piece(TOKEN._replace(id=at), text[start:end])])
        start = end
    release.feed((), last=True)
    return release.text


@settings(max_examples=80)
@given(st.lists(st.integers(0, 80), max_size=8).map(tuple), st.lists(st.integers(0, 300), max_size=9))
def test_an_answer_is_restored_alike_however_it_was_cut(chosen: tuple[int, ...], ends: list[int]) -> None:
    known = parts()
    text = "".join(known[at % len(known)] for at in chosen)
    assert released(text, ends) == restored(vault(), text)


def test_what_was_asked_is_restored_over_every_cutting_in_two() -> None:
    text = str(request().prompt)
    for end in range(len(text)):
        assert released(text, [end]) == f'{SAID}, A "Q" Z'


@pytest.mark.parametrize(
    "kind", ["iban", "phone", "private_key", "email", "jwt", "ssn", "birth_date", "secret"]
)
def test_generated_values_come_back_as_they_were_written(kind: str) -> None:
    keeper = Gatekeeper(kinds=(kind,))
    for sample in samples(kind, 12):
        found = keeper.answer(Request(f"{sample.text} and {sample.text}"))
        if found.vault is not None and sample.value.isascii():
            back = restored(found.vault, str(found.prompt))
            assert plain(back) == plain(
                f"{sample.text} and {sample.text}"
            )  # of what is escaped, what it means


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ('"', 0),
        ("{", 0),
        ('{"', 1),
        ('{"a": "b', 1),
        ('{"a": "b"', 0),
        ('{"a": "b"}', 0),
        ('[1, {"a": ["b", "', 1),
        ('see [1] and {this}: {"a": "', 1),
        ('{"a": "{\\"b\\": \\"', 2),
        ('{"a": "{\\"b\\": \\"c\\"', 1),
        ('{"a": "say \\"', 1),
        ('{"a": 1} "', 0),
        ("{'a': \"", 0),
        ('<tool_call>\n{"name": "mail", "arguments": {"to": "', 1),
    ],
)
def test_how_many_strings_are_open(text: str, expected: int) -> None:
    assert depth(text) == expected
