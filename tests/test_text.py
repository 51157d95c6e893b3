"""Text from tokens: the same, as early, and each character its token's, wherever the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_plugins.decode.detokenizer import Detokenizer, joined
from purify_plugins.types import Piece, Token, Vocabulary


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Every way of cutting `data` into pieces."""
    for count in range(len(data)):
        for cuts in combinations(range(1, len(data)), count):
            yield [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


class Writer:
    """A detokenizer of tokens that spell any bytes; `drawn` and `pieces` are all it has returned."""

    def __init__(self, stop: Sequence[str] = (), control: Sequence[str] = ()) -> None:
        self.tokens, self.control = [b""] * len(control), dict(enumerate(control))
        self.stop = stop
        self.drawn: list[Piece] = []
        self.pieces: list[Piece] = []
        self.detokenizer: Detokenizer | None = None

    @property
    def stopped(self) -> bool:
        return self.detokenizer is not None and self.detokenizer.ended == "stop"

    def write(self, spelled: bytes) -> str:
        self.tokens.append(spelled)
        return self.draw(len(self.tokens) - 1)

    def draw(self, token: int) -> str:
        vocabulary = Vocabulary(tuple(self.tokens), frozenset(), self.control)
        self.detokenizer = self.detokenizer or Detokenizer(vocabulary, self.stop)
        self.detokenizer.vocabulary = vocabulary
        drawn, pieces = self.detokenizer.feed(Token(token, 0.0, 0.0, 0.0, 0.0, 0.0))
        self.drawn.append(drawn)
        return self._text(pieces)

    def close(self) -> str:
        return self._text(self.detokenizer.close() if self.detokenizer else ())

    def _text(self, pieces: Sequence[Piece]) -> str:
        self.pieces += pieces
        return "".join(text for _, text in pieces)


def write(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[str, bool]:
    writer = Writer(stop)
    text = "".join(map(writer.write, pieces)) + writer.close()
    assert "".join(text for _, text in writer.pieces) == text
    assert [piece.token for piece in joined(writer.pieces)] == [piece.token for piece in writer.drawn]
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


def told(writer: Writer) -> list[tuple[int, str]]:
    return [(piece.token.id, piece.text) for piece in joined(writer.pieces)]


def test_each_character_belongs_to_the_token_that_completed_it() -> None:
    writer = Writer()
    assert [writer.write(each) for each in (b"a", b"\xc3", b"\xa9b", b"c")] == ["a", "", "éb", "c"]
    assert [text for _, text in writer.drawn] == ["a", "", "éb", "c"]
    assert told(writer) == [(0, "a"), (1, ""), (2, "éb"), (3, "c")]


def test_an_incomplete_character_at_the_end_belongs_to_the_token_that_began_it() -> None:
    writer = Writer(control=["</s>"])
    for each in (b"a", b"b\xf0", b"\x9f"):
        writer.write(each)
    writer.draw(0)
    assert writer.close() == "\ufffd"
    assert told(writer) == [(1, "a"), (2, "b\ufffd"), (3, ""), (0, "")]


def test_text_that_was_held_belongs_to_the_tokens_that_wrote_it() -> None:
    writer = Writer(("END",), control=["<tool>"])
    assert [writer.write(b"aE"), writer.write(b"N"), writer.draw(0), writer.write(b"X")] == [
        "a",
        "",
        "",
        "ENX",
    ]
    assert [(token.id, text) for token, text in writer.pieces] == [
        (1, "a"),
        (1, "E"),
        (2, "N"),
        (0, ""),
        (3, "X"),
    ]
    assert told(writer) == [(1, "aE"), (2, "N"), (0, ""), (3, "X")]


def test_the_tokens_of_a_stop_string_are_decoded_and_add_nothing() -> None:
    writer = Writer(("END",))
    assert [writer.write(b"aE"), writer.write(b"N"), writer.write(b"D and more"), writer.close()] == [
        "a",
        *[""] * 3,
    ]
    assert [text for _, text in writer.drawn] == ["aE", "N", "D and more"]
    assert told(writer) == [(0, "a"), (1, ""), (2, "")]


@given(st.lists(st.one_of(st.binary(max_size=5), st.sampled_from(["é🐤".encode(), b""])), max_size=9), stops)
def test_every_token_has_its_text_in_order_however_bytes_are_cut(
    spelled: list[bytes], stop: list[str]
) -> None:
    """The pieces join to the answer, one a token; only a stop string or the last character changes a text."""
    writer = Writer(stop)
    text = "".join(map(writer.write, spelled)) + writer.close()
    assert text == expected(b"".join(spelled), stop)[0]
    whole = joined(writer.pieces)
    assert [token.id for token, _ in whole] == list(range(len(spelled)))
    assert "".join(part for _, part in whole) == text
    for (_, shown), (_, decoded) in zip(whole, writer.drawn, strict=True):
        assert decoded.startswith(shown) or shown.startswith(
            decoded
        )  # cut by a stop; the last half character
