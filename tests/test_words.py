"""Docstrings and comments use the field's words: no personification, no "law" for a distribution."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "purify_plugins": ROOT / "purify_plugins",
    "purify_hooks": ROOT / "hooks" / "purify_hooks",
    "purify_adapters": ROOT / "adapters" / "purify_adapters",
}
BANNED = re.compile(
    r"\b(nobody|somebody|whoever|who wants|(?:is|are|was|were|be) told|heard?s?|theirs|laws?|"
    r"speaks?|spoken|believe[sd]?|hurry|dawdle\w*|stranger'?s?)\b",
    re.IGNORECASE,
)
"""Words that a reader who knows transformers and nano-vllm would have to translate."""
CEILING = {"purify_plugins": 0, "purify_hooks": 0, "purify_adapters": 0}
"""How many of them each package still has; only ever lowered."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a file, with their first lines."""
    text = path.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def found(room: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in sorted(ROOMS[room].rglob("*.py"))
        for line, text in prose(path)
        for match in BANNED.finditer(text)
    ]


def test_banned_words_are_found_in_docstrings_and_comments_and_not_in_code(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text('"""Nobody reads this."""\nlaw = "nobody"  # the law of large numbers\n', "utf-8")
    assert [m[0] for _, text in prose(path) for m in BANNED.finditer(text)] == ["Nobody", "law"]


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_use_the_field_s_words(room: str) -> None:
    words = found(room)
    assert len(words) <= CEILING[room], "\n".join(words)
