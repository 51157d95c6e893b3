"""Metrics of similarity between an answer and protected text, each as its source computes it.

`answer` is a system's text, `reference` the protected work's at that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from purify_hooks.evaluation.eval.questions import words

SPAN, GAP, DRIFT = 20, 2, 1
"""Near-verbatim recall: words a span must have, words that may differ between two of its runs, and by how
much the two texts may shift against each other there."""
GRAM = 5


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 as the package rouge-score computes it, with Porter's stemmer."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def subsequence(answer: str, reference: str) -> float:
    """The longest common subsequence of words, over the reference's words (CopyBench's LCS)."""
    from rapidfuzz.distance import LCSseq

    asked = words(reference)
    return LCSseq.similarity(words(answer), asked) / max(len(asked), 1)


def substring(answer: str, reference: str) -> float:
    """The longest common run of characters, over the reference's characters (CP-Fuse's and the audit's)."""
    found = SequenceMatcher(None, answer, reference, autojunk=False).find_longest_match()
    return found.size / max(len(reference), 1)


def levenshtein(answer: str, reference: str) -> float:
    """Edits between the two over the longer one's characters; 0 means they are the same."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_distance(answer, reference))


def jaccard(answer: str, reference: str, size: int = GRAM) -> float:
    """Jaccard index of the sets of word 5-grams, which MinHash estimates."""
    one, other = grams(words(answer), size), grams(words(reference), size)
    return len(one & other) / max(len(one | other), 1)


def grams(text: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Every run of `size` words."""
    return {tuple(text[at : at + size]) for at in range(len(text) - size + 1)}


def near_verbatim(answer: str, reference: str) -> float:
    """The share of the reference's words in spans of 20 words or more that came out almost verbatim.

    A span is matching runs of words joined across at most 2 differing words, with an offset drift of at
    most 1 (the audit, 2605.28001). A reference of fewer than 20 words must come out whole.
    """
    asked = words(reference)
    matcher = SequenceMatcher(None, asked, words(answer), autojunk=False)
    least = min(SPAN, len(asked))
    found, (start, end, ahead) = 0, (0, 0, 0)
    covered = 0
    for block in [*matcher.get_matching_blocks()]:
        shift = block.b - block.a
        joined = block.size and end > start and block.a - end <= GAP and abs(shift - ahead) <= DRIFT
        if not joined:
            found += covered if covered >= least else 0
            start, covered = block.a, 0
        covered, end, ahead = covered + block.size, block.a + block.size, shift
    return found / max(len(asked), 1)
