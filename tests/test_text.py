"""Text from bytes: the same, and as early, wherever the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_plugins.decode.detokenizer import Writer


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Every way of cutting `data` into pieces."""
    for count in range(len(data)):
        for cuts in combinations(range(1, len(data)), count):
            yield [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


def write(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[str, bool]:
    writer = Writer(stop)
    text = "".join(map(writer.write, pieces)) + writer.close()
    return text, writer.stopped


def expected(data: bytes, stop: Sequence[str]) -> tuple[str, bool]:
    """Reading letter by letter: the first stop string to be whole ends the text where it began."""
    text = data.decode(errors="replace")
    for end in range(len(text) + 1):
        starts = [end - len(each) for each in stop if text[:end].endswith(each)]
        if starts:
            return text[: min(starts)], True
    return text, False


CASES = [
    ("héllo", ()),
    ("日本語", ()),
    ("a🐤b", ()),
    ("ab END c", ("END",)),
    ("a🐤b🐤", ("🐤b",)),
    ("abcd", ("bc", "abcd")),
    ("abcd", ("abcd", "bc")),
    ("xaab", ("aab", "ab")),
    ("aaab", ("aab",)),
    ("ababac", ("abac",)),
    ("\n\nUser:", ("\n\n", "User:")),
    ("abc", ("c",)),
    ("abc", ("a",)),
    ("ab", ("abc", "bcd")),
    ("über", ("ber", "übers")),
    ("ab", ("a very long stop string",)),
]


@pytest.mark.parametrize(("text", "stop"), CASES)
def test_text_is_the_same_however_its_bytes_are_cut(text: str, stop: tuple[str, ...]) -> None:
    for pieces in splits(text.encode()):
        assert write(pieces, stop) == expected(text.encode(), stop), pieces


@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xe6\x97", b"\xe6a\xe6\x97\xa5", b"\xf0\x9f\x90", b"\xc3(", b"\x80\x80a"]
)
def test_invalid_bytes_become_replacement_characters_however_cut(data: bytes) -> None:
    for pieces in splits(data):
        assert write(pieces) == (data.decode(errors="replace"), False)


def test_the_first_stop_string_to_be_whole_wins_even_inside_a_longer_one() -> None:
    """`abcd` in one piece used to be cut at its longer stop string, in several at the shorter."""
    assert write([b"abcd"], ("abcd", "bc")) == write([b"abc", b"d"], ("abcd", "bc")) == ("a", True)


stops = st.lists(st.text("abé🐤", min_size=1, max_size=4), max_size=3)


@given(st.text("abé🐤", max_size=30), stops, st.lists(st.integers(0, 60), max_size=8))
def test_any_text_cut_anywhere_is_the_same(text: str, stop: list[str], cuts: list[int]) -> None:
    data = text.encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert write([data[a:b] for a, b in pairwise(places)], stop) == expected(data, stop)


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_any_bytes_cut_anywhere_are_the_same(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert write([data[a:b] for a, b in pairwise(places)]) == (data.decode(errors="replace"), False)


@given(st.text("abé🐤", max_size=20), stops)
def test_only_what_may_begin_a_stop_string_is_held(text: str, stop: list[str]) -> None:
    writer, released = Writer(stop), ""
    for at, letter in enumerate(text):
        released += writer.write(letter.encode())
        if writer.stopped:
            break
        held = text[len(released) : at + 1]
        assert text[: at + 1] == released + held
        assert not held or any(each.startswith(held) and each != held for each in stop)


def test_a_character_is_held_until_its_last_byte() -> None:
    writer = Writer()
    assert [writer.write(bytes([byte])) for byte in "é🐤".encode()] == ["", "é", "", "", "", "🐤"]


def test_nothing_follows_a_stop_string() -> None:
    writer = Writer(("stop",))
    assert writer.write(b"a stop b") == "a "
    assert writer.write(b"c") == writer.close() == ""
    assert writer.stopped


def test_a_stop_string_longer_than_the_text_changes_nothing() -> None:
    assert write([b"st"], ("stop and more",)) == ("st", False)


def test_half_a_character_at_the_end_can_complete_a_stop_string() -> None:
    assert write([b"a", b"\xe6"], ("�",)) == ("a", True)
