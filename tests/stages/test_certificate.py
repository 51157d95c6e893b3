"""The certificate of an answer that stages made: what it states, and every edit that is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from purify_plugins import Completion, Purifier, RefusedError
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import (
    AnswerRecord,
    CheckRecord,
    DraftRecord,
    SegmentRecord,
    StageRecord,
    certify_stages,
    read,
    verify,
)
from purify_plugins.errors import CertificateError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.types import Certificate
from tests.toys import AB, few, toys

PLUGINS = load_plugins()
TOTAL = 3.0
PATH = {"name": "capped", "cap": 1.0, "total": TOTAL}
LENGTH = 6
Body = dict[str, Any]


@cache
def purifier(policy: str = "path") -> Purifier:
    options = {"path": PATH, "window": {"name": "windowed"}}
    return toys(PLUGINS.policy(options[policy].pop("name"), options[policy]), AB)


@cache
def answer(prompt: str = "ab", seed: int = 0, policy: str = "path") -> Completion:
    [found] = purifier(policy).generate(prompt, few(LENGTH, seed=seed))
    return found


def draft(
    prompt: str = "ab", seed: int = 0, after: int = 0, policy: str = "path", **more: Any
) -> DraftRecord:
    return DraftRecord(answer(prompt, seed, policy), purifier(policy).policy, after, **more)


def stage(choices: int | None = 1) -> StageRecord:
    return StageRecord("tried", {"tries": choices}, "purify-hooks", "1.0", choices)


def record(*drafts: DraftRecord, released: int | None = 0, **more: Any) -> AnswerRecord:
    """An answer that is one of these drafts, whole."""
    text = "" if released is None else drafts[released].completion.text
    made: dict[str, Any] = {
        "stages": (stage(),),
        "segments": (SegmentRecord("drawn", text),),
        "finish_reason": "length",
        "most_calls": 8,
    }
    return AnswerRecord(drafts=drafts, released=released, **{**made, **more})


def best_of_two() -> AnswerRecord:
    return record(draft(seed=0), draft(seed=1), released=1, stages=(stage(2),))


def ledger(made: AnswerRecord) -> dict[str, Any]:
    certificate = certify_stages(made)
    verify(read(certificate.text), PLUGINS)
    return certificate.body["ledger"]  # type: ignore[no-any-return]


def test_a_best_of_two_costs_the_log_of_two() -> None:
    certificate = certify_stages(best_of_two())
    verify(read(certificate.text), PLUGINS)
    found = certificate.body["ledger"]
    assert float(found["bound"]) == pytest.approx(TOTAL + math.log(2), abs=1e-8)
    assert certificate.guarantee == "path"
    assert certificate.log_ratio == pytest.approx(answer(seed=1).certificate.log_ratio, abs=1e-8)
    assert certificate.decoded == answer(seed=1).certificate.body


def test_a_plain_answer_through_a_stage_costs_what_it_costs() -> None:
    found = ledger(record(draft()))
    assert (found["bound"], found["added"]) == (f"{TOTAL:.9f}", "0.000000000")


def test_what_the_configuration_allows_counts_and_not_what_happened() -> None:
    found = ledger(record(draft(), stages=(stage(3), stage(2))))
    assert found["choices"] == 6
    assert float(found["bound"]) == pytest.approx(TOTAL + math.log(6), abs=1e-8)


def test_a_stage_that_declares_nothing_counts_as_the_calls_allowed() -> None:
    assert ledger(record(draft(), stages=(stage(None),)))["choices"] == 8


def test_one_redo_adds_the_log_of_the_places_it_may_begin_at() -> None:
    check = CheckRecord("words", 12, redo=1, judged={"windows": 2})
    found = ledger(record(draft(redo=1), checks=(check,)))
    assert float(found["bound"]) == pytest.approx(TOTAL + math.log(LENGTH + 1), abs=1e-8)


def test_a_draft_that_a_later_question_may_hold_adds_its_bound() -> None:
    certificate = certify_stages(record(draft("ab"), draft("ba", after=1), released=1))
    verify(read(certificate.text), PLUGINS)
    found = certificate.body["ledger"]
    assert [each["role"] for each in certificate.body["drafts"]] == ["read", "released"]
    assert (found["read"], found["bound"]) == (f"{TOTAL:.9f}", f"{2 * TOTAL:.9f}")
    spent = answer("ab").certificate.log_ratio + answer("ba").certificate.log_ratio
    assert certificate.log_ratio == pytest.approx(spent, abs=1e-8)


def test_a_question_asked_again_holds_nothing_of_what_was_answered_in_between() -> None:
    certificate = certify_stages(
        record(draft("ab"), draft("ab", seed=1, after=1), released=1, stages=(stage(2),))
    )
    assert [each["role"] for each in certificate.body["drafts"]] == ["discarded", "released"]


def test_more_answers_than_the_stages_declare_are_refused() -> None:
    with pytest.raises(RefusedError, match="picked from 2"):
        certify_stages(replace(best_of_two(), stages=(stage(1),)))
    with pytest.raises(RefusedError, match="picked from 3"):
        certify_stages(replace(best_of_two(), failed=1))


def test_a_window_is_said_to_be_multiplied_and_no_total_is_claimed() -> None:
    certificate = certify_stages(record(draft(policy="window"), stages=(stage(2),)))
    verify(read(certificate.text), PLUGINS)
    assert (certificate.guarantee, certificate.body["ledger"]["bound"]) == ("window", None)
    assert "`ledger.added`" in certificate.body["claim"]["meaning"]


def test_a_draft_read_by_a_later_call_leaves_no_window() -> None:
    made = record(draft("ab", policy="window"), draft("ba", after=1, policy="window"), released=1)
    certificate = certify_stages(made)
    assert certificate.guarantee == "none"
    assert "later call read" in certificate.body["claim"]["reason"]
    assert float(certificate.body["ledger"]["spent"]) == pytest.approx(certificate.log_ratio)


def operated() -> AnswerRecord:
    """An answer in the operator's words alone, after a draft that is not released."""
    said = SegmentRecord("operator", "I can't help with that.", "default")
    return record(draft(), released=None, segments=(said,))


def test_the_operators_words_are_no_models() -> None:
    certificate = certify_stages(operated())
    verify(read(certificate.text), PLUGINS)
    assert (certificate.guarantee, certificate.log_ratio) == ("none", 0.0)
    assert certificate.decoded["method"]["policy"] == "none"


def test_a_restored_value_is_in_no_certificate() -> None:
    text = answer().text
    parts = (SegmentRecord("restored", text[:2], "NAME_1"), SegmentRecord("drawn", text[2:]))
    certificate = certify_stages(record(draft(), segments=parts))
    verify(read(certificate.text), PLUGINS)
    assert certificate.body["answer"]["sha256"] == answer().certificate.body["answer"]["sha256"]
    assert certificate.body["segments"][0]["name"] == "NAME_1"


# What a forger may edit


def forged(certificate: Certificate, edit: Callable[[Body], object]) -> str:
    """The edit, with the digest made again."""
    body = json.loads(certificate.text)
    edit(body)
    return canonical({**body, "digest": digest(body)})


def refused(text: str | bytes) -> bool:
    try:
        verify(read(text), PLUGINS)
    except CertificateError:
        return True
    return False


def test_every_flipped_byte_is_refused() -> None:
    small = certify_stages(record(draft(), released=0)).text.encode()
    assert not refused(small)
    flipped = (small[:at] + bytes([small[at] ^ 1]) + small[at + 1 :] for at in range(len(small)))
    accepted = [at for at, each in enumerate(flipped) if not refused(each)]
    assert accepted == []
