"""Private data is found in texts as people write them."""

from __future__ import annotations

from purify_hooks.private.finders import finder


def test_words_patterns_and_an_email_are_found_in_place() -> None:
    found = finder(patterns={"ticket": r"T-\d{6}"}, words=["Ada Quill"])
    text = "ADA  QUILL's ticket T-123456: a\u200bda%40example.org"
    assert [(text[a:b], kind) for a, b, kind in found.find(text)] == [
        ("ADA  QUILL", "word"),
        ("T-123456", "ticket"),
        ("a\u200bda%40example.org", "email"),
    ]
