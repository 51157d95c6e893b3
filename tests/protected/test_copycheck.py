"""`copycheck`: a model that recites gives no copy away, on any way, and no certificate holds a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.protected.copycheck import Copycheck
from purify_hooks.stages.ensemble import Ensemble
from purify_plugins import Chat, ConfigError, Purifier, RefusedError, Sampling
from purify_plugins.certificates import recompute, verify
from purify_plugins.grammar import Grammar
from purify_plugins.stages import RequestOptions, Stage
from purify_plugins.testing import ScriptedSource, StageConformance
from tests.protected.works import HERON, TIDE, index_of, longest_run
from tests.toys import BYTES


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("works")
    index_of(folder)
    return str(folder / "index.prints")


ANSWER = Sampling(max_tokens=112, temperature=0)
RECITING = ScriptedSource(BYTES, TIDE.encode(), 1e-4)
PLAIN = ScriptedSource(
    BYTES, b"A fox went up the hill to see what he could see, and the hill was bare. " * 6, 0.5
)


def purifier(*stages: Stage, llm: Any = RECITING, **options: Any) -> Purifier:
    """An LLM that recites a work, hardly hindered by its SLM."""
    found = Purifier.load(llm, PLAIN, "linear", weight=0.95, stages=stages)
    return found.replace(sampling=ANSWER, **options)


def text(made: Purifier, prompt: Any = "Go on.") -> str:
    [answer] = made.generate([prompt], errors="raise")
    return answer.text


def test_without_it_the_work_is_recited() -> None:
    assert longest_run(text(purifier())) > 20


@pytest.mark.parametrize(
    ("temperature", "prompt"),
    [(0, "Go on."), (1, TIDE[:30]), (0, Chat(({"role": "user", "content": TIDE[:60]},)))],
)
def test_with_its_mask_no_run_is_long(index: str, temperature: float, prompt: Any) -> None:
    made = purifier(Copycheck(index, share=0)).replace(sampling=Sampling(80, temperature=temperature, seed=1))
    assert longest_run(text(made, prompt)) < 10


def test_with_its_check_a_copy_is_refused(index: str) -> None:
    made = purifier(Copycheck(index, longest=0, redo=0))
    with pytest.raises(RefusedError) as refused:
        made.generate(["Go on."], errors="raise")
    assert refused.value.key == "copied"
    assert "ledger" not in str(refused.value)


def test_after_a_block_the_slm_writes_the_span_again(index: str) -> None:
    said = RequestOptions(
        on_refusal="text", refusals={"default": "No.", "copied": "That would be a quotation."}
    )
    [answer] = purifier(Copycheck(index, longest=0), request=said).generate(["Go on."], errors="raise")
    assert longest_run(answer.text) < 20
    assert any(each.slm_only for each in answer.steps) or answer.text.endswith("That would be a quotation.")
    assert float(answer.certificate.body["ledger"]["added"]) > 0


def test_a_stream_shows_nothing_of_a_copy(index: str) -> None:
    shown = list[str]()
    stream = purifier(Copycheck(index, longest=0, redo=0)).stream("Go on.")
    with pytest.raises(RefusedError):
        shown.extend(chunk.text for chunk in stream)
    assert longest_run("".join(shown)) < 4


def test_a_work_that_may_be_quoted_is_named_in_the_certificate(index: str) -> None:
    [answer] = purifier(Copycheck(index, quotable=("work-0.txt",))).generate(["Go on."], errors="raise")
    assert longest_run(answer.text) > 20
    [judged] = answer.certificate.body["checks"]
    assert "work-0.txt" in json.dumps(judged)
    other = purifier(Copycheck(index, quotable=("work-1.txt",), share=0))
    assert longest_run(text(other.replace(sampling=Sampling(64, temperature=0)))) < 10


def test_the_certificate_has_a_digest_and_counts(index: str) -> None:
    made = purifier(Copycheck(index, quotable=("work-1.txt",), share=0)).replace(
        sampling=Sampling(40, temperature=0)
    )
    [answer] = made.generate([TIDE[:80]], errors="raise")
    written = answer.certificate.text
    assert not [
        word for word in ("Marrowby", "ledger,", "work-1", "work-0", "index.prints") if word in written
    ]
    [entry] = answer.certificate.body["stages"]
    assert entry["parameters"]["index"]["prints"] > 100
    verify(answer.certificate, made.plugins)
    stage = Copycheck(index, quotable=("work-1.txt",), share=0)
    assert recompute(answer.certificate, PLAIN, constraints=stage.masks(TIDE[:80])) < 1e-4


@pytest.mark.parametrize("others", [(), (Ensemble(n=2),)])
def test_beside_a_grammar_and_other_stages(index: str, others: tuple[Stage, ...]) -> None:
    capitals = Grammar("regex", "[A-Z ,.]*")
    llm = ScriptedSource(BYTES, TIDE.upper().encode(), 1e-4)
    made = purifier(Copycheck(index, share=0), *others, llm=llm).replace(
        sampling=Sampling(64, temperature=0, grammar=capitals)
    )
    written = text(made)
    assert written.upper() == written
    assert longest_run(written) < 10


def test_rows_of_a_batch_share_one_mask(index: str) -> None:
    from tests.stages.program import request

    stage = Copycheck(index)
    assert stage.answer(request()).never[0] is stage.answer(request("y")).never[0]
    assert stage.answer(request(TIDE)).never[0] is not stage.answer(request("y")).never[0]


def test_token_ids_are_read_too(index: str) -> None:
    made = purifier(Copycheck(index, share=0))
    [answer] = made.generate([tuple(TIDE[:100].encode())], errors="raise")
    assert longest_run(TIDE[:100] + answer.text) < 22
    assert longest_run(answer.text) < 10


def test_each_key_has_an_effect(index: str, tmp_path: Path) -> None:
    assert 10 <= longest_run(text(purifier(Copycheck(index, longest=15, share=0)))) < 15
    assert Copycheck(index, words=100).holds_back > Copycheck(index).holds_back > 0
    assert Copycheck(index, share=0).holds_back == 0
    strict = purifier(Copycheck(index, longest=0, share=0.05, redo=0))
    with pytest.raises(RefusedError):
        strict.generate([HERON], errors="raise")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"index": ""}, "a file that `purify protect build` made"),
        ({"index": "gone.prints"}, "cannot read 'gone.prints'"),
        ({"longest": 3}, "at least 5, or 0"),
        ({"longest": 0, "share": 0}, "nothing to check"),
        ({"share": 1.5}, "from 0 to 1"),
        ({"words": 5}, "from 10 to 1000"),
        ({"redo": -1}, "0 or more"),
        ({"code": True}, "is an index of text; write code = false"),
        ({"code": "yes"}, "true or false"),
        ({"quotable": ["nobody's"]}, "no work of"),
        ({"quotable": "work-1.txt"}, "a list of works' names"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(index: str, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Copycheck(**{"index": index, **keys})


class TestCopycheck(StageConformance):
    @pytest.fixture(autouse=True)
    def made(self, index: str) -> None:
        self.index = index

    def stage(self) -> Stage:
        return Copycheck(self.index)
