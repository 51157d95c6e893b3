"""`CopyMask`: no answer holds so many words in a row of a protected work, in whatever tokens and spelling."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.protected.folding import letters_of, words_of
from purify_hooks.protected.index import PrintIndex
from purify_hooks.protected.mask import CopyMask
from purify_plugins.types import Vocabulary
from tests.protected.works import HERON, TIDE, index_of, longest_run
from tests.toys import BYTES

WORDS = sorted({f" {word}" for word in TIDE.split()} | set(TIDE.split()) | {"THE ", " of the", "м", "ед"})
VOCABULARY = Vocabulary(
    (
        *(bytes([byte]) for byte in range(256)),
        b"",
        *(each.encode() for each in WORDS),
        b"o\xd0",
        b"\xbe ",
        b"\xb0",
    ),
    frozenset({256}),
    {256: "<end>"},
)


BEGINNING = {
    first: [at for at, each in enumerate(VOCABULARY.tokens) if each[:1] == first]
    for first in VOCABULARY.tokens[:256]
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PrintIndex:
    return index_of(tmp_path_factory.mktemp("works"))


def spelled(answer: list[int]) -> str:
    return VOCABULARY.spell(answer).decode("utf-8", "ignore")


def tokens_of(text: str, rng: random.Random) -> list[int]:
    """The text in tokens, cut at random."""
    data, found = text.encode(), list[int]()
    while data:
        found.append(rng.choice([at for at in BEGINNING[data[:1]] if data.startswith(VOCABULARY.tokens[at])]))
        data = data[len(VOCABULARY.tokens[found[-1]]) :]
    return found


SPELLINGS = {
    "as it is": lambda text: text,
    "capitals": str.upper,
    "no spaces": lambda text: text.replace(" ", ""),
    "other spaces": lambda text: " ".join(letters_of(text)[at : at + 3] for at in range(0, len(text), 3)),
    "look-alikes": lambda text: text.replace("o", "о").replace("a", "а"),
    "zero width": lambda text: "\u200b".join(text),
    "punctuation": lambda text: text.replace("e", "e."),
    "hyphens": lambda text: text.replace("nd", "n-\nd"),
    "accents": lambda text: text.replace("e", "é"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=list(SPELLINGS))
@pytest.mark.parametrize("start", [0, 31])
def test_a_run_is_cut_before_it_is_too_long_in_any_spelling_and_tokens(
    index: PrintIndex, spelling: object, start: int
) -> None:
    assert callable(spelling)
    text = spelling(" ".join(["Nothing like it is:", *TIDE.split()[start:]]))
    rng = random.Random(start)
    follower, answer = CopyMask(index, 10).follower(VOCABULARY), list[int]()
    for token in tokens_of(text, rng):
        if not follower.allowed(answer)[token]:
            break
        answer.append(token)
    written = longest_run(spelled(answer))
    assert 7 <= written <= 9, spelled(answer)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(5, 12))
def test_an_answer_that_always_wants_to_copy_never_has_a_long_run(
    index: PrintIndex, rng: random.Random, longest: int
) -> None:
    follower, answer, at = CopyMask(index, longest).follower(VOCABULARY), list[int](), rng.randrange(200)
    for _ in range(60):
        allowed = follower.allowed(answer)
        rest = TIDE[at:].encode()
        wanted = [
            each
            for each in BEGINNING.get(rest[:1], [])
            if rest.startswith(VOCABULARY.tokens[each]) and allowed[each]
        ]
        if wanted and rng.random() < 0.95:
            answer.append(rng.choice(wanted))
            at += len(VOCABULARY.tokens[answer[-1]])
        else:  # another word, and on from there, or from another place
            other = rng.choice([b" zebra", b" ", b"x", b"-"])
            token = next(t for t, each in enumerate(VOCABULARY.tokens) if other.startswith(each) and each)
            answer.append(token)
            at = rng.choice([at, TIDE.find(" ", at) % len(TIDE), rng.randrange(len(TIDE))])
        if rng.random() < 0.1:
            del answer[rng.randrange(len(answer)) :]
    assert longest_run(spelled(answer)) < longest


def test_other_text_is_not_masked(index: PrintIndex) -> None:
    follower, answer = CopyMask(index, 10).follower(BYTES), list[int]()
    for token in HERON[40:].swapcase()[::-1].encode():
        assert follower.allowed(answer).all()
        answer.append(token)


def test_as_many_words_as_are_allowed_may_be_written(index: PrintIndex) -> None:
    short = " ".join(TIDE.split()[:8])
    follower, answer = CopyMask(index, 10).follower(BYTES), list[int]()
    for token in (short + " thing or another").encode():
        assert follower.allowed(answer)[token], BYTES.spell(answer)
        answer.append(token)


def test_a_run_that_the_prompt_began_goes_on_in_the_answer(index: PrintIndex) -> None:
    words = TIDE.split()
    mask = CopyMask(index, 10)
    assert mask.after("Tell me of the sea.") is mask
    later = mask.after("Go on: " + " ".join(words[:7]))
    assert 6 <= later.public()["before"] <= 8
    follower, answer = later.follower(BYTES), list[int]()
    for token in (" " + " ".join(words[7:])).encode():
        if not follower.allowed(answer)[token]:
            break
        answer.append(token)
    assert 1 <= len(words_of(BYTES.spell(answer).decode())) <= 3


@pytest.mark.parametrize("end", range(0, 40, 3))
@pytest.mark.parametrize("start", [60, 201])
def test_no_run_is_long_over_a_prompt_that_ends_with_a_few_letters_of_it(
    index: PrintIndex, start: int, end: int
) -> None:
    """However few letters, and wherever a word is cut, the words of both are counted together."""
    prompt = TIDE[start : start + end]
    follower, answer = CopyMask(index, 10).after("And then, quoth he, " + prompt).follower(BYTES), list[int]()
    for token in TIDE[start + end :].encode():
        if not follower.allowed(answer)[token]:
            break
        answer.append(token)
    written = longest_run(prompt + BYTES.spell(answer).decode())
    assert 5 <= written <= 9 or end > 35


def test_a_work_that_may_be_quoted_is_not_masked(index: PrintIndex) -> None:
    follower, answer = CopyMask(index, 10, frozenset({"work-0.txt"})).follower(BYTES), list[int]()
    for token in TIDE[:120].encode():
        assert follower.allowed(answer)[token]
        answer.append(token)
    follower, answer = CopyMask(index, 10, frozenset({"work-1.txt"})).follower(BYTES), list[int]()
    assert not all(bool(follower.allowed(list(TIDE[:at].encode()))[ord(TIDE[at])]) for at in range(80))


def test_the_certificate_says_which_index_and_no_text(index: PrintIndex, tmp_path: Path) -> None:
    said = CopyMask(index, 10).after(TIDE[:60]).public()
    assert said["index"] == index.digest
    assert "tide" not in str(said).lower()
