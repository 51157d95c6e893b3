"""Whatever single thing a forger edits, making totals and digest again, is refused, or the docs say by what.

Of 40 such edits `verify` and `recompute` accepted 29: another text's answer, finish reason, model digests, a
looser policy, K set to 0, a greedy answer relabelled as sampled, half the steps cut, the limits replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from typing import Any

import pytest

from purify_plugins import Completion, Sampling
from purify_plugins.canonical_json import canonical, digest, model_digest
from purify_plugins.certificates import read, recompute, totals, verify
from purify_plugins.certificates.calibration_record import CalibrationRecord
from purify_plugins.certificates.coverage import COVERED, cover
from purify_plugins.certificates.pinning import Pins
from purify_plugins.certificates.recomputation import recompute_both
from purify_plugins.decode.watermark import Watermark
from purify_plugins.errors import (
    BudgetError,
    CertificateError,
    ForgedError,
    MismatchError,
    NoCertificateError,
    OtherModelError,
    UncheckableError,
)
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource
from purify_plugins.types import Certificate
from purify_plugins.vouching.vouched import VouchedSource
from tests.toys import BYTES, both, few, pair, real

PLUGINS = load_plugins([])
MARK = Watermark(b"a key that nobody can guess, for tests")
VOUCHED = {"card": {"sha256": "d" * 64}, "signature": {"sha256": "e" * 64, "key": "f" * 64}}
Body = dict[str, Any]
Edit = Callable[[Body], Any]


@cache
def issued(policy: str = "balanced", **options: Any) -> Completion:
    """An answer of the test bed's pair, whose prompt quotes something."""
    from purify_plugins.certificates import citing

    record = CalibrationRecord("made up", "a" * 64, 300, "b" * 64, "c" * 64, 12.5, 17.25, 0.01, "0.1.0")
    own: dict[str, Any] = {"calibration": record, "configuration": "ab" * 32, "watermark": MARK}
    purifier = real(policy, plugins=PLUGINS, **own).over(partial(VouchedSource, told=VOUCHED))
    with citing({"page 7": "Once upon a time"}):
        [answer] = purifier.generate("Once upon a time", few(**{"length": 8, **options}))
    return answer


def forged(certificate: Certificate, edit: Edit) -> str:
    """What a forger would write: the edit, then totals and digest made again."""
    body = json.loads(certificate.text)
    edit(body)
    with suppress(ArithmeticError, TypeError, ValueError, IndexError):  # no sums of this: they are left
        body["totals"] = totals(body["steps"])
    return canonical({**body, "digest": digest(body)})


def refusals(text: str) -> Iterator[tuple[str, CertificateError]]:
    """Which checks refuse a certificate, cheapest first."""
    llm, slm = both()
    checks: dict[str, Callable[[], object]] = {
        "alone": lambda: verify(read(text), PLUGINS),
        "slm": lambda: recompute(read(text), slm),
        "both": lambda: recompute_both(read(text), llm, slm, PLUGINS),
    }
    for way, check in checks.items():
        try:
            check()
        except CertificateError as error:
            yield way, error


def refused_by(text: str) -> str:
    """The first check that refuses it; empty: none does."""
    return next((way for way, _ in refusals(text)), "")


# Every field there is


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a certificate that is not a container with something in it."""
    inside = [*value.items()] if isinstance(value, dict) else []
    inside += [*enumerate(value)] if isinstance(value, list) else []
    if not inside:
        yield path
    for key, item in inside:
        yield from leaves(item, (*path, key))


OTHERS: dict[str, list[Any]] = {
    "format": ["purify-certificate/1", "purify-certificate/3"],
    "answer.finish_reason": ["eos", "stop"],
    "answer.limited_by": ["context", "plugin"],
    "models.llm.engine": ["untrusted", "trusted"],
    "models.slm.engine": ["untrusted", "trusted"],
    "method.policy": ["windowed", "capped", "magic"],
    "method.walk": ["lockstep", "readahead"],
    "method.mode": ["greedy", "slm-only"],
    "method.draws": ["system"],
    "method.claimed": ["path", "none"],
    "method.guarantee": ["path", "none"],
    "method.adversary": ["engine", "none"],
    "method.edits": [["dropped steps"], ["did no harm"]],
    "method.plugins": [[{"name": "gate", "distribution": "", "version": ""}]],
    "method.version": ["9.9.9"],
    "method.sampling.temperature": [0.7, 0.0],
    "method.sampling.top_k": [3],
    "method.sampling.top_p": [0.5],
    "method.sampling.min_p": [0.2],
    "method.sampling.repetition_penalty": [1.5],
    "method.sampling.frequency_penalty": [0.5],
    "method.sampling.stop": [["e"]],
    "method.sampling.ignore_eos": [False],
    "method.sampling.grammar": [{"kind": "regex", "text": "[a-m ]+"}],
    "method.sampling.seed": [7, None],
    "method.calibration.limited": [0.5],
    "method.watermark.key": ["0" * 32],
}


def variants(path: str, value: Any) -> list[Any]:
    """Other values of the same kind: what somebody would write there instead."""
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 3]
    if re.fullmatch(r"-?\d+\.\d{9}", value or ""):
        return [f"{float(value) + by:.9f}" for by in (-0.5, 0.05)]
    if re.fullmatch("[0-9a-f]{64}", value or ""):
        return [hashlib.sha256(value.encode()).hexdigest()]
    return ["another"]


def put(path: tuple[Any, ...], to: Any) -> Edit:
    def edit(body: Any) -> None:
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = to

    return edit


def at(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


ORDER = ("alone", "slm", "both")


def every_field() -> list[tuple[Any, ...]]:
    return [*leaves(issued().certificate.body)]


def dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def edits_of(pattern: str) -> Iterator[tuple[str, Any, str]]:
    """Of every field that a row of the docs' table is about: its path, what it says, and a forgery of it."""
    original = issued().certificate
    for path in every_field():
        if cover(dotted(path)) is not COVERED[pattern]:
            continue
        told = at(original.body, path)
        for value in variants(dotted(path), told):
            text = forged(original, put(path, value))
            if path[0] == "totals":  # not made again, for once
                body = json.loads(original.text)
                put(path, value)(body)
                text = canonical({**body, "digest": digest(body)})
            yield dotted(path), told, text


FIELDS = [pattern for pattern in COVERED if pattern != "digest"]


@pytest.mark.parametrize("pattern", FIELDS)
def test_an_edit_of_any_single_field_is_refused_as_the_docs_say(pattern: str) -> None:
    way, tried = COVERED[pattern].way, 0
    for path, told, text in edits_of(pattern):
        tried += 1
        if way == "pin":
            with pytest.raises((MismatchError, ForgedError, BudgetError, UncheckableError)):
                verify(read(text), PLUGINS, Pins(fields={path: told}))
        else:
            assert refused_by(text) in ORDER[: ORDER.index(way) + 1], (path, text)
    assert tried


def test_there_are_more_than_sixty_of_them() -> None:
    assert len(every_field()) > 120


def test_the_docs_say_of_every_field_what_covers_it() -> None:
    assert all(cover(dotted(path)) for path in every_field())


def test_a_field_left_out_is_refused() -> None:
    """An option that was left out used to stand at its default; a file not named was not missed."""
    accepted = []
    for path in every_field():
        if path[0] in ("digest", "steps", "prompt", "totals"):  # rows of their own, and made again
            continue
        text = forged(issued().certificate, lambda body, path=path: at(body, path[:-1]).pop(path[-1]))  # type: ignore[misc]  # a default holds the loop's value
        if not refused_by(text):
            accepted.append(dotted(path))
    assert accepted == []


# What a forger would do


def another_text(body: Body) -> None:
    text = "Something else altogether."
    body["answer"] |= {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}


def half_cut(body: Body) -> None:
    del body["steps"][len(body["steps"]) // 2 :]


def first_cut(body: Body) -> None:
    del body["steps"][0]


def half_cut_by_a_plugin(body: Body) -> None:
    half_cut(body)
    body["answer"] |= {"limit": len(body["steps"]), "limited_by": "plugin"}


def half_cut_by_its_length(body: Body) -> None:
    half_cut(body)
    body["answer"]["limit"] = body["method"]["sampling"]["max_tokens"] = len(body["steps"])


def nothing_taken(body: Body) -> None:
    for row in body["steps"]:
        row[2:5] = [row[1], "0.000000000", "0.000000000"]


def nothing_taken_but_the_rest(body: Body) -> None:
    for row in body["steps"]:
        row[2] = row[1]


def the_slm_alone(body: Body) -> None:
    nothing_taken(body)
    for row in body["steps"]:
        row[6] = True
    body["method"] |= {
        "mode": "slm-only",
        "guarantee": "none",
        "adversary": "none",
        "reason": "every token is the benign model's own; the untrusted one had no part in it",
        "meaning": "no bound is claimed; the figures are what this answer spent",
    }


def swapped(body: Body) -> None:
    body["steps"][1], body["steps"][2] = body["steps"][2], body["steps"][1]


def repeated(body: Body) -> None:
    body["steps"].append(body["steps"][-1])


def limits_replaced(body: Body) -> None:
    body["limits"] = ["This text is free of copyrighted material."]


def one_limit_left_out(body: Body) -> None:
    body["limits"].pop()


def models_exchanged(body: Body) -> None:
    models = body["models"]
    models["llm"]["files"], models["slm"]["files"] = models["slm"]["files"], models["llm"]["files"]


def both_trusted(body: Body) -> None:
    body["models"]["llm"]["trusted"] = True


def none_of_them_trusted(body: Body) -> None:
    body["models"]["slm"]["trusted"] = False


def no_slm(body: Body) -> None:
    del body["models"]["slm"]


def no_prompt(body: Body) -> None:
    body["prompt"] = []


def a_prompt_of_no_ids(body: Body) -> None:
    body["prompt"][0] = -5


def an_id_nobody_has(body: Body) -> None:
    body["prompt"][0] = 10**6


def a_token_nobody_has(body: Body) -> None:
    body["steps"][0][0] = 10**6


def a_default_left_out(body: Body) -> None:
    del body["method"]["sampling"]["min_p"]


def an_option_left_out(body: Body) -> None:
    del body["method"]["parameters"]["drain"]


def likelier_than_sure(body: Body) -> None:
    max(body["steps"], key=lambda step: float(step[1]))[2] = "0.500000000"


def shown_more_than_all(body: Body) -> None:
    body["steps"][0][5] = "1.500000000"


def hidden_less_than_nothing(body: Body) -> None:
    body["steps"][0][7] = "-0.500000000"


def cheaper_than_it_was(body: Body) -> None:
    body["steps"][0][3] = "-1.000000000"


def dearer_than_its_peak(body: Body) -> None:
    body["steps"][0][3:5] = ["4.000000000", "0.000000000"]


def the_budget_spent_twice(body: Body) -> None:
    for row in body["steps"]:
        row[2] = "-0.000100000"
        row[4] = "4.900000000"


def a_page_cited_twice(body: Body) -> None:
    body["context"] *= 2


def an_edit_nobody_knows(body: Body) -> None:
    body["method"]["edits"] = ["improved it"]


def another_alphabet(body: Body) -> None:
    body["models"]["slm"]["alphabet"] = {"kind": "bytes", "eps": 0.1, "off_by": 0.1, "per_token": 4.0}


@pytest.mark.parametrize(
    ("edit", "way", "kind"),
    [
        (another_text, "slm", ForgedError),
        (half_cut, "alone", ForgedError),
        (first_cut, "alone", ForgedError),
        (half_cut_by_a_plugin, "slm", ForgedError),
        (half_cut_by_its_length, "slm", ForgedError),
        (nothing_taken, "both", ForgedError),
        (nothing_taken_but_the_rest, "both", ForgedError),
        (the_slm_alone, "both", CertificateError),
        (swapped, "slm", ForgedError),
        (repeated, "alone", ForgedError),
        (limits_replaced, "alone", ForgedError),
        (one_limit_left_out, "alone", ForgedError),
        (models_exchanged, "slm", OtherModelError),
        (both_trusted, "alone", ForgedError),
        (none_of_them_trusted, "alone", ForgedError),
        (no_slm, "alone", NoCertificateError),
        (no_prompt, "alone", ForgedError),
        (a_prompt_of_no_ids, "alone", ForgedError),
        (an_id_nobody_has, "slm", ForgedError),
        (a_token_nobody_has, "slm", ForgedError),
        (a_default_left_out, "alone", ForgedError),
        (an_option_left_out, "alone", ForgedError),
        (likelier_than_sure, "alone", ForgedError),
        (shown_more_than_all, "alone", ForgedError),
        (hidden_less_than_nothing, "alone", ForgedError),
        (cheaper_than_it_was, "alone", ForgedError),
        (dearer_than_its_peak, "alone", ForgedError),
        (the_budget_spent_twice, "alone", BudgetError),
        (a_page_cited_twice, "alone", ForgedError),
        (an_edit_nobody_knows, "alone", ForgedError),
        (another_alphabet, "alone", ForgedError),
    ],
)
def test_a_forger_is_found_out(edit: Edit, way: str, kind: type[CertificateError]) -> None:
    [(found, error), *_] = refusals(forged(issued().certificate, edit))
    assert found in ORDER[: ORDER.index(way) + 1]
    assert type(error) is kind, error


def relabelled(certificate: Certificate, **sampling: Any) -> str:
    """The same answer, its sampling and every claim that follows from it written anew by the forger."""
    from purify_plugins.certificates import MEANING, claimed, mode_of
    from purify_plugins.certificates.answer_checks import policy_of
    from purify_plugins.certificates.figures import tokens_of

    def edit(body: Body) -> None:
        method = body["method"]
        method["sampling"] |= sampling
        asked = Sampling(**{**method["sampling"], "stop": tuple(method["sampling"]["stop"])})
        engines, steps = ("in-process", "in-process"), tokens_of(body["steps"])
        claim = claimed(policy_of(body, PLUGINS), asked, method["walk"], engines, steps, [])  # type: ignore[arg-type]
        method |= {**claim._asdict(), "mode": mode_of(asked, steps), "meaning": MEANING[claim.guarantee]}

    return forged(certificate, edit)


@pytest.mark.parametrize("policy", ["balanced", "windowed", "capped", "anchored", "geometric"])
def test_a_greedy_answer_relabelled_as_drawn_is_refused(policy: str) -> None:
    greedy = issued(policy, temperature=0.0)
    assert refused_by(greedy.certificate.text) == ""
    assert refused_by(relabelled(greedy.certificate, temperature=1.0)) == "alone"


def test_a_drawn_answer_relabelled_as_greedy_is_refused() -> None:
    assert refused_by(relabelled(issued().certificate, temperature=0.0)) == "alone"


def test_a_looser_policy_is_told_from_the_one_the_reader_asked_for() -> None:
    def loosen(body: Body) -> None:
        body["method"]["parameters"]["budget"] = 500.0

    loose = read(forged(issued().certificate, loosen))
    verify(loose, PLUGINS)
    with pytest.raises(MismatchError, match=r"'balanced' with .*500.* name every option"):
        verify(loose, PLUGINS, Pins(policy=PLUGINS.policy("balanced")))
    verify(loose, PLUGINS, Pins(policy=PLUGINS.policy("balanced", {"budget": 500.0})))
    verify(issued().certificate, PLUGINS, Pins(policy=PLUGINS.policy("balanced")))


# What the reader knows


def test_the_answer_a_reader_has_is_the_one_certified() -> None:
    text = issued().text.encode()
    for same in (text, text + b"\n", text + b"\r\n"):
        verify(issued().certificate, PLUGINS, Pins(answer=same))
    for other in (b"", text[:-1], text + b" ", b"Something else"):
        with pytest.raises(MismatchError, match="the certificate is not for this answer"):
            verify(issued().certificate, PLUGINS, Pins(answer=other))


@pytest.mark.parametrize("side", ["llm", "slm"])
def test_a_model_is_named_by_one_digest_or_by_all_its_files(side: str) -> None:
    files = issued().certificate.body["models"][side]["files"]
    for known in (files, model_digest(files), files["model.safetensors"]):
        verify(issued().certificate, PLUGINS, Pins(**{side: known}))
    for known in ({}, "0" * 64, files["config.json"]):
        with pytest.raises(MismatchError, match=f"the {side.upper()}, '{side}', has the digest"):
            verify(issued().certificate, PLUGINS, Pins(**{side: known}))


def test_a_model_without_files_can_only_be_signed_for() -> None:
    [answer] = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), "balanced").generate("x", few(3))
    with pytest.raises(MismatchError, match="names no files of the LLM, 'toy 1'; only a signature"):
        verify(answer.certificate, PLUGINS, Pins(llm="0" * 64))


def test_a_field_that_is_not_there_cannot_be_pinned() -> None:
    with pytest.raises(MismatchError, match=r"a certificate has no field 'method\.weather'"):
        verify(issued().certificate, PLUGINS, Pins(fields={"method.weather": "fine"}))
    with pytest.raises(MismatchError, match=r"method\.sampling\.seed is 0, not the value given"):
        verify(issued().certificate, PLUGINS, Pins(fields={"method.sampling.seed": False}))


def test_the_prompt_a_reader_asked_is_the_one_certified() -> None:
    recompute(issued().certificate, both()[1], prompt="Once upon a time")
    with pytest.raises(MismatchError, match="not for this prompt"):
        recompute(issued().certificate, both()[1], prompt="Twice upon a time")


# With both models


@pytest.mark.parametrize("policy", ["balanced", "windowed", "capped", "anchored", "geometric", "cp_fuse"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}], ids=str)
def test_both_models_compute_every_figure_again(policy: str, options: dict[str, Any]) -> None:
    certificate = issued(policy, **options).certificate
    verify(read(certificate.text), PLUGINS)
    assert recompute_both(certificate, *both(), PLUGINS) < 1e-3


def test_the_llm_must_be_the_one_that_was_named() -> None:
    with pytest.raises(OtherModelError, match="this is not the LLM the certificate names"):
        recompute_both(issued().certificate, both()[1], both()[1], PLUGINS)
