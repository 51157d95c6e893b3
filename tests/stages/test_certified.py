"""Answers of purifiers with stages: every certificate verifies, is recomputed, and states what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.decompose import Decompose
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.rewrite import Rewrite
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import read, recomputed, recomputed_both, verify
from purify_plugins.decode.deny_list import DenyList
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages import Blocked, Check, Request, RequestOptions, Stage
from purify_plugins.testing import ToySource
from purify_plugins.types import Certificate, Completion
from tests.toys import BYTES

PLUGINS = load_plugins()
FEW = Sampling(max_tokens=8, seed=3)
TOTAL = 4.0


class Program(Stage):
    """A stage that runs a generator function."""

    def __init__(self, program: Callable[[Request], Any], choices: int = 1) -> None:
        self.program, self.most = program, choices

    def answer(self, request: Request) -> Any:
        return self.program(request)

    @property
    def choices(self) -> int:
        return self.most

    def public(self) -> Mapping[str, Any]:
        return {"choices": self.most}


class Letter(Check):
    """Blocks a letter."""

    name, window = "letter", 0

    def __init__(self, letters: str, redo: int = 0) -> None:
        self.letters, self.redo = letters, redo

    def clear(self, text: str, last: bool) -> int:
        for at, each in enumerate(text):
            if each in self.letters:
                raise Blocked(at)
        return len(text)


def purifier(*stages: Stage, policy: str = "path", **request: Any) -> Purifier:
    chosen = (
        PLUGINS.policy("capped", {"cap": 1.0, "total": TOTAL}) if policy == "path" else PLUGINS.policy(policy)
    )
    both = ToySource(BYTES, 1), ToySource(BYTES, 2)
    return Purifier(*both, chosen, stages=stages, request=RequestOptions(**request), plugins=PLUGINS)


def checked(found: Purifier, answer: Completion) -> Certificate:
    """The certificate of an answer, verified and recomputed."""
    certificate = read(answer.certificate.text)
    verify(certificate, PLUGINS)
    assert recomputed(certificate, found.slm).off < 1e-4
    assert recomputed_both(certificate, found.llm, found.slm, PLUGINS).off < 1e-4
    return certificate


CHAINS: dict[str, tuple[Stage, ...]] = {
    "pass": (Program(lambda request: request),),
    "cascade": (Cascade(0.99),),
    "cascade, sure": (Cascade(1e-9),),
    "ensemble": (Ensemble(3),),
    "ensemble, aggregated": (Ensemble(3, select="aggregate"),),
    "rewrite": (Rewrite(),),
    "decompose": (Decompose(),),
    "cascade around an ensemble": (Cascade(0.99), Ensemble(2)),
    "redo": (Program(lambda request: request.checked(Letter("aeiou", redo=3))),),
    "refused in the middle": (Program(lambda request: request.checked(Letter("aeiou"))),),
    "never": (Program(lambda request: request.forbidding(DenyList(("the", "xy")))),),
    "shown": (Program(lambda request: request.showing("another prompt")),),
    "weaker": (Program(lambda request: request.weaker(0.5)),),
}


@pytest.mark.parametrize("policy", ["path", "balanced"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_s_certificate_is_sound(chain: str, policy: str) -> None:
    found = purifier(*CHAINS[chain], policy=policy, on_refusal="text", refusals={"default": "No."}, calls=16)
    for answer in found.generate(["The miller had three", "x"], FEW):
        certificate = checked(found, answer)
        assert certificate.body["stages"]


def rewritten() -> Purifier:
    """A purifier whose answers are mostly written again, by the SLM, up to three times."""
    check = Letter("".join(map(chr, range(0x20, 0x78))), redo=3)
    return purifier(
        Program(lambda request: request.checked(check)), on_refusal="text", refusals={"default": "No."}
    )


def test_an_answer_that_the_slm_wrote_again_in_part_was_asked_of_the_llm() -> None:
    found = rewritten()
    answers = found.generate([f"{at}" for at in range(40)], FEW)
    drafts = [each for answer in answers for each in checked(found, answer).body["drafts"]]
    assert any(each["redone"] == 3 for each in drafts)
    assert any(each["certificate"]["steps"][-1][6] for each in drafts), "the SLM's last token is its own"
    assert not any("llm_asked" in each["certificate"]["method"] for each in drafts)


@pytest.mark.parametrize("prompt", [f"{at}" for at in range(12)])
def test_a_refused_answer_s_certificate_spells_what_was_released_and_no_more(prompt: str) -> None:
    found = purifier(
        Program(lambda request: request.checked(Letter("abcdefgh"))),
        on_refusal="text",
        refusals={"default": "No."},
    )
    [answer] = found.generate(prompt, Sampling(max_tokens=40, seed=1))
    certificate = checked(found, answer)
    ids = [row[0] for each in certificate.body["drafts"] for row in each["certificate"]["steps"]]
    assert not set(b"abcdefgh") & set(ids)
    assert BYTES.spell(ids).decode(errors="replace") == answer.text.removesuffix("No.")


@pytest.mark.parametrize("chain", ["ensemble", "rewrite"])  # the latter in the operator's words alone
def test_frameworks_find_what_they_read_of_a_certificate(chain: str) -> None:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed")
    from purify_adapters.langchain.response_metadata import metadata, usage

    found = purifier(*CHAINS[chain], on_refusal="text", refusals={"default": "No."})
    [answer] = found.generate("x", FEW)
    told = metadata(answer, "toys", certificate=True)["purification"]
    assert told["policy"] == ("none" if chain == "rewrite" else "capped")
    assert told["guarantee"] == answer.certificate.guarantee
    assert told["log_ratio"] == answer.certificate.log_ratio
    assert usage(answer)["input_tokens"] == (0 if chain == "rewrite" else 1)
