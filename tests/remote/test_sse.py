"""Events arrive whole, however their bytes were cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_adapters.sources.http.sse import Events
from purify_plugins import SourceError

FIELDS = [
    "data: one",
    "data:two",
    "data",
    "data:",
    ":",
    ": keep-alive",
    "event: x",
    "id: 7",
    "retry: 1",
    "odd",
    "",
]
TEXTS = ["data: \u2028 \x85 \x1c here", "data:  spaces ", 'data: {"a": "é\u2029"}', "data: 北京"]
stream = st.lists(
    st.tuples(st.sampled_from([*FIELDS, *TEXTS]), st.sampled_from(["\n", "\r", "\r\n"])), max_size=12
).map(lambda lines: "".join(line + end for line, end in lines).encode())


def reference(stream: bytes) -> list[bytes]:
    """The standard's own words, over the whole text at once."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found, data = [], []
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        if not line:
            found += ["\n".join(data)] if data else []
            data = []
        elif name == "data":
            data.append(value.removeprefix(" "))
    return [each.encode() for each in found]


def read(chunks, parser: Events | None = None) -> list[bytes]:
    parser = parser or Events()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(stream, st.booleans(), st.lists(st.integers(0, 400), max_size=8))
def test_every_way_of_cutting_gives_the_same_events(text: bytes, mark: bool, cuts: list[int]) -> None:
    text = b"\xef\xbb\xbf" + text if mark else text
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert read(pieces) == reference(text)
    assert read([bytes([byte]) for byte in text]) == reference(text)


def test_a_token_may_hold_what_python_calls_a_line_end() -> None:
    token = "\u2028\x85\x0c"
    line = b"data: " + json.dumps({"text": token}, ensure_ascii=False).encode() + b"\n\n"
    assert json.loads(read([line])[0])["text"] == token


def test_half_an_event_is_none() -> None:
    assert read([b"data: whole\n\n", b"data: half\n"]) == [b"whole"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 1000, b":" * 1000, b"x" * 1000])
def test_a_line_without_end_is_cut_off(chunk: bytes) -> None:
    with pytest.raises(SourceError, match="without end"):
        read([chunk] * 10, Events(line=5000))


def test_an_event_without_end_is_cut_off_and_comments_are_not_kept() -> None:
    parser = Events(line=5000, event=5000)
    for _ in range(10_000):
        assert parser.feed(b": keep-alive\n") == []
    with pytest.raises(SourceError, match="without end"):
        read([b"data: " + b"x" * 1000 + b"\n"] * 10, parser)
