"""The certificate of an answer that stages made: what it states, and every edit that is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import Completion, Purifier, PurifyError, RefusedError
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import (
    AnswerRecord,
    CheckRecord,
    DraftRecord,
    Pins,
    SegmentRecord,
    StageRecord,
    certify_stages,
    read,
    recompute,
    recompute_both,
    recomputed,
    schema,
    totals,
    verify,
)
from purify_plugins.certificates.coverage import STAGED_COVERED, cover
from purify_plugins.certificates.staged_claims import Calls, settle
from purify_plugins.errors import CertificateError, ForgedError, MismatchError, OtherModelError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Follower
from purify_plugins.stages.stage import counted
from purify_plugins.types import Certificate, Vocabulary
from tests.toys import AB, few, toys

PLUGINS = load_plugins()
TOTAL = 3.0
LENGTH = 6
Body = dict[str, Any]
Edit = Callable[[Body], object]
STAGED_SCHEMA = ("Stage", "Draft", "Operator", "Check", "Ledger", "Claim")


@cache
def purifier(policy: str = "path") -> Purifier:
    chosen = (
        PLUGINS.policy("capped", {"cap": 1.0, "total": TOTAL})
        if policy == "path"
        else PLUGINS.policy("windowed")
    )
    return toys(chosen, AB)


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


SAID = SegmentRecord("operator", "I can't help with that.", "default")


def operated(drawn: str = "", **more: Any) -> AnswerRecord:
    """An answer that ends in the operator's words, after so much of a draft."""
    parts = (*([SegmentRecord("drawn", drawn)] if drawn else []), SAID)
    return record(draft(), segments=parts, finish_reason="refused", **more)


def test_the_operators_words_are_no_models_and_what_was_refused_is_in_no_certificate() -> None:
    certificate = certify_stages(operated())
    verify(read(certificate.text), PLUGINS)
    assert (certificate.guarantee, certificate.log_ratio) == ("none", 0.0)
    assert certificate.decoded["method"]["policy"] == "none"
    assert (certificate.body["drafts"], certificate.body["ledger"]["calls"]) == ([], 1)


@pytest.mark.parametrize("kept", range(1, LENGTH))
def test_a_draft_that_was_cut_is_recorded_up_to_what_was_released(kept: int) -> None:
    whole = answer()
    certificate = certify_stages(operated(whole.text[:kept]))
    verify(read(certificate.text), PLUGINS)
    assert [row[0] for row in certificate.decoded["steps"]] == list(whole.tokens[:kept])
    assert certificate.log_ratio == pytest.approx(sum(each.ratio for each in whole.steps[:kept]), abs=1e-6)


def test_a_text_that_its_draft_does_not_spell_gets_no_certificate() -> None:
    with pytest.raises(PurifyError, match="not what its draft spells"):
        certify_stages(record(draft(), segments=(SegmentRecord("drawn", "other"),)))
    with pytest.raises(PurifyError, match="not what its draft spells"):
        certify_stages(record(draft(), segments=(SegmentRecord("drawn", answer().text[:2]),)))


def test_a_restored_value_is_in_no_certificate() -> None:
    text = answer().text
    parts = (SegmentRecord("restored", text[:2], "NAME_1"), SegmentRecord("drawn", text[2:]))
    certificate = certify_stages(record(draft(), segments=parts))
    verify(read(certificate.text), PLUGINS)
    assert certificate.body["answer"]["sha256"] == answer().certificate.body["answer"]["sha256"]
    assert certificate.body["segments"][0]["name"] == "NAME_1"


# The models asked again


@dataclass(frozen=True)
class Without:
    """Rules a letter out."""

    letter: str

    def follower(self, vocabulary: Vocabulary) -> Follower:
        return Letters(torch.tensor([self.letter.encode() not in each for each in vocabulary.tokens]))

    def public(self) -> dict[str, Any]:
        return {"kind": "without", **counted([self.letter])}


@dataclass(frozen=True)
class Letters:
    every: Tensor

    def allowed(self, answer: Sequence[int]) -> Tensor:
        return self.every


def asked(seed: int = 0, prompt: str = "ab", **more: Any) -> Completion:
    """An answer of the SLM alone, or under constraints."""
    decoder = purifier().for_request(**more)
    [found] = decoder.generate(prompt, few(LENGTH, seed=seed))
    return found


def cheapened(body: Body) -> None:
    """A draft that was not released becomes likelier under the SLM; sums and digests are made again."""
    told = body["drafts"][0]["certificate"]
    told["steps"][0][1] = f"{float(told['steps'][0][1]) / 2:.9f}"
    told["totals"] = totals(told["steps"])
    told["digest"] = digest(told)


def test_every_draft_is_recomputed() -> None:
    made = certify_stages(best_of_two())
    llm, slm = purifier().llm, purifier().slm
    assert recompute(made, slm, prompt="ab") < 1e-4
    assert recompute_both(made, llm, slm, PLUGINS) < 1e-4
    with pytest.raises(MismatchError, match="not for this prompt"):
        recompute(made, slm, prompt="ba")
    with pytest.raises(OtherModelError):
        recompute(made, llm)
    with pytest.raises(ForgedError, match="other probabilities"):
        recompute(read(forged(made, cheapened)), slm)


def test_a_draft_of_the_slm_alone_costs_nothing() -> None:
    own = DraftRecord(asked(alone=True), purifier().policy, 0, slm_only=True)
    found = certify_stages(record(own))
    verify(read(found.text), PLUGINS)
    assert (found.guarantee, found.log_ratio) == ("none", 0.0)
    assert "no part in what was released" in found.body["claim"]["reason"]
    after = certify_stages(record(own, draft(after=1), released=1))
    verify(read(after.text), PLUGINS)
    assert [each["role"] for each in after.body["drafts"]] == ["discarded", "released"]
    assert after.body["ledger"]["bound"] == f"{TOTAL:.9f}"
    assert recompute_both(after, purifier().llm, purifier().slm, PLUGINS) < 1e-4


def test_the_slm_s_rewriting_of_a_draft_costs_that_draft() -> None:
    own = DraftRecord(asked(prompt="ba", alone=True), purifier().policy, 1, slm_only=True)
    found = certify_stages(record(draft("ab"), own, released=1))
    verify(read(found.text), PLUGINS)
    assert [each["role"] for each in found.body["drafts"]] == ["read", "released"]
    assert (found.guarantee, found.body["ledger"]["bound"]) == ("path", f"{TOTAL:.9f}")


def test_an_slm_s_draft_that_is_taken_in_a_fused_one_s_place_is_a_choice() -> None:
    own = DraftRecord(asked(alone=True), purifier().policy, 1, slm_only=True)
    with pytest.raises(RefusedError, match="picked from 2"):
        certify_stages(record(draft(), own, released=1))
    assert ledger(record(draft(), own, released=1, stages=(stage(2),)))["choices"] == 2


def test_figures_under_a_mask_that_is_not_given_cannot_be_told() -> None:
    masked = DraftRecord(asked(constraints=(Without("a"),)), purifier().policy, 0)
    made = certify_stages(record(masked, draft(after=1), released=1))
    verify(read(made.text), PLUGINS)
    slm = purifier().slm
    found = recomputed(made, slm)
    assert found.off < 1e-4
    assert [each[:35] for each in found.untold] == ["draft 0 was drawn under 'without', "]
    with pytest.raises(CertificateError, match="not every figure"):
        recompute(made, slm)
    assert recompute_both(made, purifier().llm, slm, PLUGINS, constraints=(Without("a"),)) < 1e-4
    assert "Without" not in made.text


def test_the_answer_given_shows_the_operator_s_text() -> None:
    found = read(certify_stages(operated(answer().text[:2])).text)
    verify(found, PLUGINS, Pins(answer=f"{answer().text[:2]}{SAID.text}".encode()))
    other = forged(found, lambda body: body["segments"][-1].update(sha256="b" * 64))
    with pytest.raises(MismatchError, match="operator's text"):
        verify(read(other), PLUGINS, Pins(answer=f"{answer().text[:2]}{SAID.text}".encode()))


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
    small = certify_stages(best_of_two()).text.encode()
    assert not refused(small)
    flipped = (small[:at] + bytes([small[at] ^ 1]) + small[at + 1 :] for at in range(len(small)))
    accepted = [at for at, each in enumerate(flipped) if not refused(each)]
    assert accepted == []


def swapped(body: Body) -> None:
    body["drafts"].reverse()


def test_two_drafts_that_are_swapped_are_refused_with_a_new_digest_too() -> None:
    made = record(draft("ab"), draft("ba", after=1), released=1)
    for each in (best_of_two(), made):
        assert refused(forged(certify_stages(each), swapped))


def exchanged(body: Body) -> None:
    one, other = body["drafts"]
    one["certificate"], other["certificate"] = other["certificate"], one["certificate"]


def test_two_drafts_contents_that_are_swapped_are_refused() -> None:
    assert refused(forged(certify_stages(best_of_two()), exchanged))


LEDGER: dict[str, list[Any]] = {
    "calls": [0, 1, 3, 9],
    "failed": [1, -1],
    "most_calls": [1, 0],
    "choices": [1, 3, 0],
    "read": ["1.000000000", "-1.000000000"],
    "added": ["0.000000000", "0.693147180"],
    "spent": ["0.000000000"],
    "bound": ["3.000000000", None, "inf"],
    "reason": [""],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in LEDGER.items() for value in values]
)
def test_an_edited_ledger_is_refused_with_a_new_digest_too(key: str, value: Any) -> None:
    assert refused(forged(certify_stages(best_of_two()), lambda body: body["ledger"].update({key: value})))


def test_every_figure_of_the_ledger_is_tried() -> None:
    assert LEDGER.keys() == certify_stages(best_of_two()).body["ledger"].keys()


EDITS: dict[str, Edit] = {
    "a stage is removed": lambda body: body["stages"].clear(),
    "a stage declares less": lambda body: body["stages"][0].update(choices=1),
    "a stage declares more": lambda body: body["stages"][0].update(choices=3),
    "the discarded draft is removed": lambda body: body["drafts"].pop(0),
    "the released draft is removed": lambda body: body["drafts"].pop(),
    "another is released": lambda body: [
        each.update(role=role) for each, role in zip(body["drafts"], ("released", "discarded"), strict=True)
    ],
    "the discarded one is read": lambda body: body["drafts"][0].update(role="read"),
    "the discarded one is the SLM's": lambda body: body["drafts"][0]["certificate"]["method"].update(
        llm_asked=False
    ),
    "it was asked later": lambda body: (
        body["drafts"][1].update(after=1, role="released") or body["drafts"][0].update(after=1)
    ),
    "the SLM's alone": lambda body: body["drafts"][1]["certificate"]["method"].update(llm_asked=False),
    "a draft is allowed less": lambda body: body["drafts"][1].update(allowed="1.000000000"),
    "a redo is forgotten": lambda body: body["checks"].append(
        {"name": "x", "window": 3.0, "redo": 1, "judged": {}}
    ),
    "a redo is made up": lambda body: body["drafts"][1].update(redone=1),
    "the answer is another": lambda body: body["answer"].update(sha256="a" * 64),
    "the answer is longer": lambda body: body["answer"].update(bytes=LENGTH + 1),
    "it ended otherwise": lambda body: body["answer"].update(finish_reason="eos"),
    "a segment is cut": lambda body: body["segments"][0].update(to=LENGTH - 1),
    "a segment begins later": lambda body: body["segments"][0].update({"from": 1}),
    "a segment is another draft's": lambda body: body["segments"][0].update(draft=0),
    "the segments are gone": lambda body: body["segments"].clear(),
    "the claim is stronger": lambda body: body["claim"].update(adversary="engine"),
    "the claim is weaker": lambda body: body["claim"].update(guarantee="window"),
    "the totals are another's": lambda body: body.update(totals=body["drafts"][0]["certificate"]["totals"]),
    "the limits are shorter": lambda body: body["limits"].pop(),
    "an older format": lambda body: body.update(format="purify-certificate/2"),
    "a field is added": lambda body: body.update(note=""),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_refused_with_a_new_digest_too(edit: str) -> None:
    assert refused(forged(certify_stages(best_of_two()), EDITS[edit]))


def relabelled(body: Body) -> None:
    """A draft that a later call read becomes one that was dropped; all that follows is made again."""
    body["drafts"][0]["role"] = "discarded"
    calls = Calls(2, 0, body["ledger"]["most_calls"])
    found = settle(body["stages"], body["drafts"], calls)
    body.update(ledger=found.ledger, claim=found.claim)


def test_a_read_draft_that_is_called_discarded_is_refused() -> None:
    made = record(draft("ab"), draft("ba", after=1), released=1)
    assert refused(forged(certify_stages(made), relabelled))


def redrafted(body: Body) -> None:
    """A step of a draft is edited; its own digest and totals are made again, and all that follows."""
    [told] = [each["certificate"] for each in body["drafts"] if each["role"] == "released"]
    told["steps"][0][2] = "-0.000100000"
    told["totals"] = totals(told["steps"])
    told["digest"] = digest(told)
    found = settle(body["stages"], body["drafts"], Calls(2, 0, body["ledger"]["most_calls"]))
    body.update(ledger=found.ledger, claim=found.claim, totals=told["totals"])


def test_an_edited_step_of_a_draft_is_refused_as_in_a_certificate_of_its_own() -> None:
    assert refused(forged(certify_stages(best_of_two()), redrafted))


def test_pins_are_about_the_drafts_that_count() -> None:
    found = read(certify_stages(best_of_two()).text)
    verify(
        found, PLUGINS, Pins(answer=answer(seed=1).text.encode(), guarantee="path", policy=purifier().policy)
    )
    for wrong in (Pins(answer=b"x"), Pins(guarantee="window"), Pins(policy=purifier("window").policy)):
        with pytest.raises(MismatchError):
            verify(found, PLUGINS, wrong)


# The docs' table


def full() -> AnswerRecord:
    """An answer with all that a certificate may state."""
    drawn = answer(seed=1).text[:4]
    parts = (SegmentRecord("restored", drawn[:2], "NAME_1"), SegmentRecord("drawn", drawn[2:]), SAID)
    check = CheckRecord("words", 12, redo=1, judged={"windows": 2})
    own = DraftRecord(asked(alone=True), purifier().policy, 0, redo=1)
    shown = draft(seed=1, after=1, redo=1, redone=1, shown="another")
    made = record(own, draft(after=1, redo=1), shown, released=2, segments=parts, stages=(stage(3),))
    return replace(made, finish_reason="refused", checks=(check,), scores={"surprise": 0.5})


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything that is not a container; the drafts' own certificates are one leaf each."""
    if isinstance(value, dict | list) and value and path[-1:] != ("certificate",):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def variants(value: Any) -> list[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1, value + 100]
    if value is None:
        return ["a" * 64, "1.000000000", 1]
    if re.fullmatch(r"-?[0-9]+\.[0-9]{9}", value):
        return [f"{float(value) + each:.9f}" for each in (1e-9, -1e-9, 1, -1)]
    if re.fullmatch("[0-9a-f]{64}", value):
        return ["b" * 64]
    return [f"{value} x", "", "drawn", "restored", "read", "discarded", "released", "path", "none", "engine"]


def put(path: tuple[Any, ...], value: Any) -> Edit:
    def edit(body: Body) -> None:
        place: Any = body
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return edit


@cache
def edited() -> dict[str, list[tuple[str, bool]]]:
    """For each row of the table, the fields that were edited, and whether `verify` refused it."""
    certificate = certify_stages(full())
    found: dict[str, list[tuple[str, bool]]] = {pattern: [] for pattern in STAGED_COVERED}
    for path in leaves(certificate.body):
        if path[-1] in ("certificate", "digest"):
            continue
        dotted = ".".join(map(str, path))
        chosen = cover(dotted, STAGED_COVERED)
        [pattern] = [each for each, told in STAGED_COVERED.items() if told is chosen]
        told = at(certificate.body, path)
        for value in variants(told):
            if value != told:
                found[pattern].append((f"{dotted} = {value}", refused(forged(certificate, put(path, value)))))
    return found


def at(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


ROWS = [each for each in STAGED_COVERED if each != "digest" and ".certificate." not in each]


@pytest.mark.parametrize("row", ROWS)
def test_an_edit_of_any_single_field_is_refused_as_the_docs_say(row: str) -> None:
    tried = edited()[row]
    assert tried
    accepted = [field for field, refuses in tried if not refuses]
    if STAGED_COVERED[row].way == "alone":
        assert accepted == []
    else:
        assert accepted, "the table says that `verify` accepts an edit of it"


def test_the_full_certificate_is_sound() -> None:
    verify(read(certify_stages(full()).text), PLUGINS)


def test_every_field_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "certificates.md").read_text("utf-8")
    kinds = [each for name, each in vars(schema).items() if name.startswith(STAGED_SCHEMA)]
    names = {name for kind in kinds for name in kind.names()}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
