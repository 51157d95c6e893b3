"""Copycheck on a million words: its size, speed, false alarms, what it finds, and a pair that recites."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from purify_hooks.evaluation.testbed import attacks
from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.protected.build import IndexOptions, build
from purify_hooks.protected.check import CopyCheck
from purify_hooks.protected.copycheck import Copycheck
from purify_hooks.protected.folding import words_of
from purify_hooks.protected.index import PrintIndex, open_index
from purify_hooks.protected.mask import CopyMask
from purify_plugins import Purifier, Sampling
from tests.protected.test_check import blocked, changed
from tests.protected.test_mask import SPELLINGS
from tests.protected.works import longest_run
from tests.toys import both

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PrintIndex:
    """The protected books and those of the LLM, less what the SLM's books hold."""
    out = tmp_path_factory.mktemp("million") / "books.prints"
    works = [CORPUS / "protected", CORPUS / "llm"]
    header = build(IndexOptions(works, out, [CORPUS / "slm"]), lambda *_: None)
    assert header.prints > 1_000_000
    assert out.stat().st_size <= 10 * header.prints
    return open_index(out)


def words(shelf: str) -> list[list[str]]:
    return [path.read_text("utf-8").split() for path in sorted((CORPUS / shelf).glob("*.txt"))]


def test_false_alarms_are_rare(index: PrintIndex) -> None:
    check = CopyCheck(index)
    clean = [" ".join(book[at : at + 50]) for book in words("heldout") for at in range(0, len(book) - 50, 50)]
    assert len(clean) > 1000
    assert sum(blocked(check, each) is not None for each in clean) <= 0.002 * len(clean)


def test_copies_are_found_in_every_spelling_and_with_a_word_in_six_changed(index: PrintIndex) -> None:
    rng, check = random.Random(5), CopyCheck(index)
    books = words("protected")
    places = [(book, rng.randrange(len(book) - 50)) for book in rng.choices(books, k=300)]
    spans = [" ".join(book[at : at + 50]) for book, at in places]
    ways = {**SPELLINGS, "one word in six": lambda text: changed(text, 6, seed=len(text))}
    for name, way in ways.items():
        found = sum(blocked(check, way(each)) is not None for each in spans)
        assert found >= 0.99 * len(spans), name


@pytest.mark.alone
def test_microseconds_a_word(index: PrintIndex) -> None:
    _, slm = both()
    text = " ".join(words("heldout")[0][:1500])
    ids = slm.tokenizer(text)["input_ids"][1:]
    pieces = [slm.vocabulary.tokens[each].decode("utf-8", "ignore") for each in ids]
    texts = ["".join(pieces[:at]) for at in range(1, len(pieces) + 1)]
    mask, check = list[float](), list[float]()
    for _ in range(3):
        judging = CopyCheck(index).fresh()
        begun = time.thread_time()
        for each in texts:
            judging.clear(each, False)
        check.append(time.thread_time() - begun)
        follower = CopyMask(index).follower(slm.vocabulary)
        runs, at = follower.runs, follower.positions[0]
        begun = time.thread_time()
        for token in ids:
            at = runs.after(at, token)
            runs.mask(at)
        mask.append(time.thread_time() - begun)
    figures = [min(each) / 1500 * 1e6 for each in (mask, check)]
    print("mask, check: {:.1f}, {:.1f} microseconds a word".format(*figures))
    assert max(figures) <= 40  # 8 and 10 on a core of ours; CI is another machine


def test_a_pair_that_recites_has_no_run_of_ten_words(tmp_path: Path) -> None:
    book = CORPUS / "protected" / "alice-in-wonderland.txt"
    build(IndexOptions([book], tmp_path / "alice.prints", [CORPUS / "slm"]), lambda *_: None)
    passages = attacks().passages[:2]
    bare = Purifier.load(*both(), "linear", weight=0.95)
    masked = bare.replace(stages=[Copycheck(str(tmp_path / "alice.prints"), share=0)])
    clean = " ".join(attacks().clean)[:200]
    prompts = [
        *(each.prefix for each in passages),
        *(each.prefix + each.continuation[: len(each.continuation) // 2] for each in passages[:1]),
        *(f"{clean}\n{each.prefix}" for each in passages[:1]),
    ]
    work = re.sub(r"\s+", " ", book.read_text("utf-8"))
    nearby = [_near(work, each.prefix) for each in (*passages, passages[0], passages[0])]
    longest = {}
    for temperature in (0, 0.7):
        sampling = Sampling(max_tokens=36, temperature=temperature, seed=1)
        for name, purifier in {"bare": bare, "masked": masked}.items():
            answers = purifier.generate(prompts, sampling, errors="raise")
            runs = [longest_run(a.text, near) for a, near in zip(answers, nearby, strict=True)]
            longest[name, temperature] = max(runs)
    print(longest)
    assert min(longest["bare", 0], longest["bare", 0.7]) > 15
    assert max(longest["masked", 0], longest["masked", 0.7]) < 10


def _near(work: str, prefix: str) -> str:
    """The work around a passage."""
    at = work.find(re.sub(r"\s+", " ", prefix)[:60])
    assert at >= 0
    return " ".join(words_of(work[at : at + 1500]))
