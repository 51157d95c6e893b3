"""A takedown list around an LLM behind a server that shows the top of its rows and writes ahead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from purify_hooks.takedown.anchor import TakedownRule
from purify_plugins import Purifier, Sampling
from purify_plugins.testing import ToySource, letters
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.toy_server import toy_source
from tests.takedown.lists import ToyTakedown, taken

ABC = letters("abcdef")
WORK = [0, 1, 2, 3, 4, 0, 2, 4, 1, 3, 0, 3, 1, 4, 2] * 2
TOLD = "".join("abcdef"[each] for each in WORK[:20])
LOCAL = taken([WORK], seed=7, rule=TakedownRule(sure=2))


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTGI]:
    with fake_tgi(LOCAL.model, top_n=len(ABC), prefill=True) as server:  # type: ignore[arg-type]  # a toy
        yield server


@pytest.mark.parametrize("ahead", [0, 8])
def test_through_a_server_that_shows_all_it_is_the_llm_here(server: FakeTGI, ahead: int) -> None:
    remote = ToyTakedown(toy_source(server.url, ABC, len(ABC), ahead=ahead), "toy", given=LOCAL.given)
    sampling = Sampling(max_tokens=12, temperature=0, ignore_eos=True)
    policy, slm = {"name": "geometric", "alpha": 1}, ToySource(ABC, seed=2)
    purifiers = [Purifier.load(llm, slm, policy) for llm in (LOCAL, remote, LOCAL.model)]
    answers = [[each.tokens for each in one.generate([TOLD, "ab"], sampling)] for one in purifiers]
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[2][0]
    assert answers[0][1] == answers[2][1]
