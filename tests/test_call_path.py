"""How far it is from `Purifier.generate` to the fused row and the drawn token, in functions of our own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import purify_adapters
import purify_hooks
import purify_plugins
from purify_plugins import Purifier, Sampling
from purify_plugins.testing import ToySource, byte_vocabulary

PACKAGES = tuple(str(Path(each.__file__).parent) for each in (purify_plugins, purify_hooks, purify_adapters))
SAMPLING = Sampling(max_tokens=6)


def own(code: CodeType) -> bool:
    """Whether a function stands in one of the three packages; comprehensions and lambdas are no functions."""
    return code.co_filename.startswith(PACKAGES) and not code.co_name.startswith("<")


@contextmanager
def entered() -> Iterator[dict[str, list[str]]]:
    """Each own function that is called inside, with the own functions on the stack when it first was.

    A generator that is resumed is one frame of the stack.
    """
    found: dict[str, list[str]] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and own(frame.f_code):
            name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
            if name not in found:
                found[name] = list(stack(frame))

    def stack(frame: FrameType | None) -> Iterator[str]:
        while frame is not None:
            if own(frame.f_code):
                yield frame.f_code.co_qualname
            frame = frame.f_back

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


def calls() -> dict[str, list[str]]:
    """The functions of a 6-token lockstep answer of two toys; a first answer has imported what there is."""
    toys = (ToySource(byte_vocabulary(), seed) for seed in (1, 2))
    purifier = Purifier.load(*toys, "geometric").replace(walk="lockstep")
    purifier.generate("once", SAMPLING)
    for _ in range(20):  # a draw may end it, by a secret that each process has of its own
        with entered() as found:
            [answer] = purifier.generate("once", SAMPLING)
        if len(answer.tokens) == 6:
            return found
    raise AssertionError("no answer of six tokens in twenty")


def test_from_generate_to_the_policy_s_fuse_are_six_functions() -> None:
    path = calls()["pools.Geometric.fuse"]
    assert path[-1] == "Purifier.generate"
    assert len(path) <= 6, path


def test_from_generate_to_the_drawn_token_are_eight() -> None:
    path = calls()["random_streams._search"]
    assert path[-1] == "Purifier.generate"
    assert len(path) <= 8, path


def test_a_six_token_answer_enters_at_most_120_functions() -> None:
    """190 before; the toys' own and the certificate's are among them."""
    found = calls()
    assert len(found) <= 120, sorted(found)
