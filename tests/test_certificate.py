"""Certificates: what they say is true, and what was changed is noticed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_plugins import Certificate, CertificateError, Completion, Sampling
from purify_plugins.canonical_json import canonical, digest, jsonable, options
from purify_plugins.certificates import LIMITS, citing, mode_of, read, recompute, totals, verify
from purify_plugins.certificates.figures import fixed, tokens_of
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.sampling import COLDEST
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Token
from tests.toys import BYTES, Failing, Forbidding, both, few, pair, real, toys

PLUGINS = load_plugins([])
POLICIES: list[dict[str, Any]] = [
    {"name": "windowed"},
    {"name": "windowed", "cap": 0.5, "window": 2, "budget": 0.7},
    {"name": "balanced"},
    {"name": "balanced", "budget": 0.7, "doubt": 0.5},
    {"name": "balanced", "gap": 0.3, "gap_limit": 1.0, "memory": 4.0, "hedge": 0.05, "numbers": 3.0},
    {"name": "balanced", "gap_limit": 1.0, "memory": 4.0, "opening": 2.0},
    {"name": "capped"},
    {"name": "capped", "total": math.inf},
    {"name": "capped", "cap": 0.3, "total": 1.0},
    {"name": "anchored"},
    {"name": "geometric", "alpha": 0.3},
    {"name": "minimum"},
    {"name": "cp_fuse"},
    {"name": "consistency", "policy": {"name": "windowed"}},
    {"name": "consistency", "policy": {"name": "consistency", "policy": {"name": "anchored"}}},
]


@cache
def answer(policy: str = "windowed", length: int = 5) -> Completion:
    return toys(policy).generate("né", few(length, stop=("zzz",)))[0]


def altered(certificate: Certificate, change: Callable[[dict[str, Any]], Any]) -> Certificate:
    """The certificate after `change`, its digest made again: what a forger would write."""
    body = json.loads(certificate.text)
    change(body)
    return Certificate(canonical({**body, "digest": digest(body)}))


def summed(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """`change`, and then the totals made again too."""

    def both_(body: dict[str, Any]) -> None:
        change(body)
        body["totals"] = totals(body["steps"])

    return both_


# What it says


def test_it_records_every_step_and_their_sums() -> None:
    body, steps = answer().certificate.body, answer().steps
    assert body["steps"] == [
        [
            s.id,
            *(f"{x:.9f}" for x in (s.slm, s.fused, s.kl, s.peak, s.revealed)),
            s.slm_only,
            f"{s.hidden:.9f}",
        ]
        for s in steps
    ]
    assert float(body["totals"]["log_ratio"]) == pytest.approx(sum(s.fused - s.slm for s in steps), abs=1e-8)
    assert float(body["totals"]["kl"]) == pytest.approx(sum(s.kl for s in steps), abs=1e-8)
    assert float(body["totals"]["surprisal"]) == pytest.approx(-sum(s.slm for s in steps), abs=1e-8)
    assert float(body["totals"]["largest_step"]) == pytest.approx(max(s.ratio for s in steps), abs=1e-8)
    assert float(body["totals"]["largest_peak"]) == pytest.approx(max(s.peak for s in steps), abs=1e-8)
    assert (body["totals"]["tokens"], body["totals"]["slm_only"]) == (len(steps), 0)


def test_it_names_the_answer_the_models_and_the_method() -> None:
    body, text = answer().certificate.body, answer().text.encode()
    assert body["answer"] == {
        "sha256": hashlib.sha256(text).hexdigest(),
        "bytes": len(text),
        "finish_reason": "length",
        "limit": 5,
        "limited_by": "max_tokens",
    }
    assert body["prompt"] == list("né".encode())
    assert body["models"]["slm"] == {
        "kind": "toy",
        "name": "toy 2",
        "engine": "in-process",
        "trusted": True,
    }
    assert body["models"]["llm"]["trusted"] is False
    assert body["vocabulary"] == BYTES.fingerprint
    assert body["method"]["parameters"] == {"cap": 3.0, "window": 4, "budget": 6.0}
    assert Sampling(**body["method"]["sampling"]) == few(5, stop=("zzz",))
    assert body["limits"] == list(LIMITS)


def test_a_real_models_files_are_named_by_their_digests() -> None:
    body = real().generate("Once", few(2))[0].certificate.body
    for side, source in zip(("llm", "slm"), both(), strict=True):
        weights = (source.folder / "model.safetensors").read_bytes()  # type: ignore[operator]
        assert body["models"][side]["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize(
    ("policy", "sampled"),
    [
        ("windowed", "window"),
        ("balanced", "passage"),
        ("capped", "path"),
        ("anchored", "mean"),
        ("minimum", "none"),
    ],
)
def test_a_greedy_answer_claims_nothing(policy: str, sampled: str) -> None:
    greedy = toys(policy).generate("x", few(temperature=0))[0].certificate
    assert (greedy.body["method"]["mode"], greedy.guarantee) == ("greedy", "none")
    assert greedy.body["method"]["claimed"] == sampled
    assert "arg-max" in greedy.body["method"]["reason"]
    drawn = toys(policy).generate("x", few())[0].certificate
    assert (drawn.body["method"]["mode"], drawn.guarantee) == ("sampled", sampled)


def test_an_answer_of_the_slm_alone_says_so() -> None:
    for temperature in (0.0, 1.0):
        purifier = pair(
            Failing(BYTES, 1, opening=True), ToySource(BYTES, 2), "windowed", on_llm_failure="slm"
        )
        certificate = purifier.generate("x", few(temperature=temperature))[0].certificate
        assert (certificate.body["method"]["mode"], certificate.guarantee) == ("slm-only", "none")
        assert certificate.body["totals"]["slm_only"] == 8
        assert certificate.log_ratio == 0
        verify(read(certificate.text), PLUGINS)


def test_one_fused_token_is_enough_for_a_fused_answer() -> None:
    alone, fused = (Token(1, -1.0, -1.0, -1.0, 0.0, 0.0, slm_only=only) for only in (True, False))
    assert mode_of(Sampling(), [alone, alone]) == "slm-only"
    assert mode_of(Sampling(), [alone, fused]) == "sampled"
    assert mode_of(Sampling(temperature=0), [alone, fused]) == "greedy"


def test_the_text_of_prompt_and_answer_is_not_inside() -> None:
    llm = ScriptedSource(BYTES, b"an answer nobody should log")
    purifier = pair(llm, ToySource(BYTES, 2), {"name": "geometric", "alpha": 1.0})
    completion = purifier.generate("a prompt nobody should log", Sampling(temperature=0))[0]
    assert completion.text == "an answer nobody should log"
    assert "nobody" not in completion.certificate.text


def test_an_option_that_was_added_later_is_stated_where_it_is_used() -> None:
    """So certificates, and draws that are keyed by them, stay the same for those who do not use it."""
    policy = PLUGINS.policy("balanced", {})
    assert "opening" not in options(policy, PLUGINS.name_of)
    used = PLUGINS.policy("balanced", {"opening": 2.0, "memory": 16.0})
    assert options(used, PLUGINS.name_of)["opening"] == 2.0


def test_options_hidden_from_repr_are_left_out() -> None:
    @dataclass(frozen=True)
    class Hidden:
        shown: tuple[float, ...] = (1.0, math.inf)
        table: object = field(default_factory=object, repr=False)
        name: ClassVar[str] = "hidden"

    assert jsonable(Hidden()) == {"shown": [1.0, "inf"]}


# The canonical form


def test_the_canonical_form_is_frozen() -> None:
    body = {"é": '🐤\n"', "b": [1, True, None, "−0.5"], "a": {"z": 0.1, "y": 1e-7, "x": 1e22}, "B": -0.0}
    text = '{"B":-0.0,"a":{"x":1e+22,"y":1e-07,"z":0.1},"b":[1,true,null,"−0.5"],"é":"🐤\\n\\""}'
    assert canonical(body) == text
    assert digest(body) == digest({**body, "digest": "x"}) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.000000000"),
        (-1.5, "-1.500000000"),
        (1 / 3, "0.333333333"),
        (1e-12, "0.000000000"),
        (-745.25, "-745.250000000"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_nine_places(number: float, text: str) -> None:
    assert fixed(number) == text


def test_sums_are_exact() -> None:
    rows = [
        [1, "-0.300000000", "-0.100000000", "0.100000000", "0.200000000", "1.000000000", False, "0.000000000"]
    ] * 3
    found = totals(rows)
    assert found["log_ratio"] == "0.600000000"
    assert found["kl"] == "0.300000000"
    assert found["surprisal"] == "0.900000000"


def test_infinite_figures_are_written_read_and_checked() -> None:
    slm = Forbidding(BYTES, 2, forbidden=frozenset(b"SECRT"))
    purifier = pair(ScriptedSource(BYTES, b"SECRET"), slm, {"name": "linear"})
    certificate = purifier.generate("x", Sampling(max_tokens=6, temperature=0))[0].certificate
    assert certificate.log_ratio == math.inf
    verify(read(certificate.text), purifier.plugins)
    assert recompute(certificate, slm) < 1e-6


def test_a_token_too_unlikely_to_count_leaves_the_figures_finite() -> None:
    """exp(-200) is zero in float32; times an infinite ratio the KL was NaN."""
    llm = ScriptedSource(BYTES, b"aaa", doubt=1e-60)
    slm = Forbidding(BYTES, 2, forbidden=frozenset(b"z"))
    certificate = pair(llm, slm, {"name": "linear"}).generate("x", few(3, temperature=0))[0].certificate
    assert math.isfinite(float(certificate.body["totals"]["kl"]))
    read(certificate.text)


# Altering it


def test_an_untouched_certificate_is_accepted() -> None:
    text = answer().certificate.text
    verify(read(text), PLUGINS)
    verify(read(text.encode()), PLUGINS)


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_any_flipped_byte_is_rejected(bit: int) -> None:
    data = answer("windowed", 2).certificate.text.encode()
    for at in range(len(data)):
        with pytest.raises(CertificateError):
            read(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])


@given(st.data())
def test_any_other_byte_anywhere_is_rejected(data: Any) -> None:
    text = answer("anchored", 3).certificate.text.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at]))
    with pytest.raises(CertificateError):
        read(text[:at] + bytes([byte]) + text[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '"text"',
        "NaN",
        '{"digest":NaN}',
        '{"digest":1e999}',
        '{"a":"\\ud800"}',
        '{"a":"\ud800"}',
        "[" * 100_000,
        "9" * 10_000,
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_certificate_is_refused(text: str | bytes) -> None:
    with pytest.raises(CertificateError):
        read(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(CertificateError):
        read(data)


@pytest.mark.parametrize(
    "rewrite", [lambda t: t + "\n", lambda t: " " + t, lambda t: json.dumps(json.loads(t))]
)
def test_a_reformatted_certificate_is_refused(rewrite: Callable[[str], str]) -> None:
    with pytest.raises(
        CertificateError, match="not in its canonical form; it has been edited or reformatted"
    ):
        read(rewrite(answer().certificate.text))


def test_a_changed_field_breaks_the_digest() -> None:
    body = json.loads(answer().certificate.text)
    body["answer"]["bytes"] += 1
    with pytest.raises(
        CertificateError, match=r"the digest does not match|digest does not match its content"
    ):
        read(canonical(body))


def drop(body: dict[str, Any]) -> None:
    del body["steps"][1]


def swap(body: dict[str, Any]) -> None:
    body["steps"][0], body["steps"][1] = body["steps"][1], body["steps"][0]


def set_(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: Any) -> None:
        for key in path[:-1]:
            body = body[key]
        assert body[path[-1]] != to
        body[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop, "the totals are not the sums of the steps"),
        (set_("totals", "kl", to="0.000000001"), "the totals are not the sums of the steps"),
        (set_("totals", "tokens", to=1), "the totals are not the sums of the steps"),
        (set_("steps", 0, 2, to="-0.000000001"), "the totals are not the sums of the steps"),
        (set_("columns", to=["id"]), "the columns of the steps must be id, slm, "),
        (set_("method", "guarantee", to="path"), "a sampled answer under 'windowed' has no such guarantee"),
        (set_("method", "claimed", to="path"), "a sampled answer under 'windowed' has no such guarantee"),
        (set_("method", "mode", to="greedy"), "a sampled answer under 'windowed' has no such guarantee"),
        (set_("method", "reason", to="trust me"), "a sampled answer under 'windowed' has no such guarantee"),
        (
            set_("method", "meaning", to="it is safe"),
            "a sampled answer under 'windowed' has no such guarantee",
        ),
        (set_("method", "sampling", "temperature", to=0.0), "a greedy answer under 'windowed' has no such"),
        (set_("method", "policy", to="minimum"), "unknown policy 'minimum' option"),
        (set_("method", "parameters", "cap", to=-1.0), "windowed: cap must be a number of nats, 0 or more"),
        (set_("method", "sampling", "max_tokens", to=0), "sampling: max_tokens must be at least 1"),
        (set_("method", "sampling", "temperature", to="warm"), "describes nothing that can run"),
        (set_("method", "sampling", to={"warmth": 1}), "describes nothing that can run"),
        (set_("steps", 0, 1, to="-inf"), "totals are not the sums"),
        (summed(set_("steps", 0, 2, to="9.000000000")), "the steps exceed the budget of 'windowed'"),
        (summed(set_("steps", 0, 4, to="3.100000000")), "the steps exceed the budget of 'windowed'"),
    ],
)
def test_an_altered_certificate_with_a_new_digest_is_rejected(change: Any, words: str) -> None:
    forged = read(altered(answer().certificate, change).text)
    with pytest.raises(CertificateError, match=words):
        verify(forged, PLUGINS)


@pytest.mark.parametrize(
    "spelling", ["00.000000000", "٠.000000000", "+0.000000000", "0.0000000000", "0,000000000"]
)
def test_a_number_has_one_spelling(spelling: str) -> None:
    """Leading zeros and other alphabets' digits add up to the same, and made another certificate of it."""
    with pytest.raises(CertificateError, match=r"malformed at steps\.0\.7"):
        read(altered(answer().certificate, set_("steps", 0, 7, to=spelling)).text)


@pytest.mark.parametrize("figures", [("-inf", "-inf"), ("9" * 40 + ".000000000", "0.000000000")])
def test_figures_that_do_not_add_up_to_a_number_are_rejected(figures: tuple[str, str]) -> None:
    def change(body: dict[str, Any]) -> None:
        body["steps"][0][1:3] = figures

    with pytest.raises(CertificateError, match="describes nothing that can run"):
        verify(read(altered(answer().certificate, change).text), PLUGINS)


@pytest.mark.parametrize(
    ("policy", "tighter"),
    [
        ("windowed", {"budget": 0.01}),
        ("windowed", {"cap": 0.01}),
        ("balanced", {"budget": 0.01}),
        ("capped", {"total": 0.01}),
        ("anchored", {"budget": 1e-4}),
    ],
)
def test_steps_beyond_the_budget_are_rejected(policy: str, tighter: Mapping[str, float]) -> None:
    forged = altered(answer(policy).certificate, lambda body: body["method"]["parameters"].update(tighter))
    with pytest.raises(CertificateError, match=f"the steps exceed the budget of '{policy}'"):
        verify(read(forged.text), PLUGINS)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}], ids=str)
def test_every_policys_certificate_verifies_and_recomputes(
    policy: dict[str, Any], options: dict[str, Any]
) -> None:
    purifier = toys(policy)
    for completion in purifier.generate(["x", "yz"], few(10, **options)):
        verify(read(completion.certificate.text), PLUGINS)
        assert recompute(completion.certificate, purifier.slm) < 1e-6


@pytest.mark.parametrize("policy", ["balanced", "windowed", "capped"])
@pytest.mark.parametrize("sharpness", [2.0, 30.0])
@pytest.mark.parametrize("temperature", [COLDEST, 1e-4, 0.02])
def test_an_honest_answer_at_a_low_temperature_keeps_its_claim(
    policy: str, sharpness: float, temperature: float
) -> None:
    """Its figures are in the millions, and float32 knows these to a tenth; a bound to 1e-5 refused them."""
    llm, slm = (ToySource(BYTES, seed, sharpness=sharpness) for seed in (1, 2))
    purifier = pair(llm, slm, policy)
    for completion in purifier.generate(["x", "yz"], few(12, temperature=temperature)):
        assert completion.certificate.guarantee == purifier.policy.guarantee
        verify(read(completion.certificate.text), PLUGINS)
        recompute(completion.certificate, slm)


@pytest.mark.parametrize("temperature", [COLDEST, 1e-4, 0.02])
def test_where_rounding_costs_a_budget_the_answer_says_so_and_verifies(temperature: float) -> None:
    """`anchored` adds up KL, and at a low temperature its rows are too coarse to keep that to 1e-5."""
    llm, slm = (ToySource(BYTES, seed, sharpness=30.0) for seed in (1, 2))
    purifier = pair(llm, slm, "anchored")
    for completion in purifier.generate(["x", "yz"], few(12, temperature=temperature)):
        kept = purifier.policy.holds(tokens_of(completion.certificate.body["steps"]))  # type: ignore[attr-defined]
        assert completion.certificate.guarantee == ("mean" if kept else "none")
        verify(read(completion.certificate.text), PLUGINS)


def test_only_what_could_be_drawn_has_a_peak() -> None:
    """Far down in both rows a ratio is what rounding left of two huge numbers: 8 nats under a cap of 5."""
    from purify_plugins.decode.fusion import FusedLogits
    from purify_plugins.decode.token_records import token_records

    slm = torch.log_softmax(torch.tensor([[0.0, -1.0, -1e8, -3e8]]), -1)
    fused = slm + torch.tensor([[0.1, 0.0, 8.0, 64.0]])
    total = fused.logsumexp(-1, keepdim=True)
    totals = torch.cat([total, torch.zeros_like(total), total], -1)
    alone = torch.zeros(1, dtype=torch.bool)
    [token] = token_records(
        FusedLogits(fused, slm, fused, fused.exp(), totals, alone), torch.tensor([0]), False
    )
    assert 0 < token.peak < 0.1


# Recomputing it


SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.6, "top_p": 0.9, "top_k": 50},
    {"min_p": 0.02, "repetition_penalty": 1.3, "frequency_penalty": 0.4},
    {"stop": ("the",), "ignore_eos": False},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_the_slm_recomputes_its_own_log_probabilities(options: dict[str, Any]) -> None:
    purifier = real("windowed")
    for completion in purifier.generate(["Once upon a time", "The old man said that"], few(12, **options)):
        verify(read(completion.certificate.text), purifier.plugins)
        assert recompute(completion.certificate, both()[1]) < 1e-4


def test_a_long_answer_is_recomputed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from purify_plugins.decode import replay

    monkeypatch.setattr(replay, "BLOCK", 3)
    assert recompute(answer("minimum", 11).certificate, ToySource(BYTES, 2)) < 1e-6


def test_a_changed_log_probability_is_found_by_recomputing() -> None:
    purifier = real("windowed")
    certificate = purifier.generate("Once upon a time", few(6))[0].certificate
    slm = float(certificate.body["steps"][2][1])
    forged = altered(certificate, summed(set_("steps", 2, 1, to=fixed(slm + 0.01))))
    verify(read(forged.text), purifier.plugins)
    with pytest.raises(
        CertificateError, match=r"the SLM gives other probabilities than recorded: off by 0.01 nats"
    ):
        recompute(forged, both()[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap, "its steps do not spell the answer whose digest it has"),
        (drop, "its steps do not spell the answer whose digest it has"),
        (set_("steps", 0, 0, to=65), "its steps do not spell the answer whose digest it has"),
        (set_("steps", 0, 1, to="-inf"), "the SLM gives other probabilities than recorded"),
        (set_("prompt", to=[1, 2]), "the SLM gives other probabilities than recorded"),
        (set_("method", "sampling", "top_k", to=3), "the SLM gives other probabilities than recorded"),
    ],
)
def test_other_tokens_another_prompt_or_other_settings_do_not_recompute(change: Any, words: str) -> None:
    forged = altered(answer().certificate, summed(change))
    with pytest.raises(CertificateError, match=words):
        recompute(forged, ToySource(BYTES, 2))


def test_a_token_the_slm_does_not_have_is_rejected() -> None:
    with pytest.raises(CertificateError, match="the SLM has no token 999"):
        recompute(altered(answer().certificate, set_("steps", 0, 0, to=999)), ToySource(BYTES, 2))


def test_another_slm_is_rejected() -> None:
    certificate = real("windowed").generate("Once", few(4))[0].certificate
    with pytest.raises(
        CertificateError, match="this is not the SLM the certificate names: the files' digests differ"
    ):
        recompute(certificate, both()[0])
    with pytest.raises(
        CertificateError, match="this is not the SLM the certificate names: its name is 'toy 3'"
    ):
        recompute(answer().certificate, ToySource(BYTES, 3))


def test_another_alphabet_is_rejected() -> None:
    longer = replace(BYTES, tokens=(*BYTES.tokens, b"more"))
    with pytest.raises(CertificateError, match="in an alphabet the two models shared, not the SLM's own"):
        recompute(answer().certificate, ToySource(longer, 2))


# What the prompt quotes


def cited(completion: Completion) -> list[dict[str, str]]:
    return completion.certificate.body["context"]  # type: ignore[no-any-return]


def named(name: str, text: str) -> dict[str, str]:
    return {"id": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def test_the_texts_a_prompt_quotes_are_named_with_their_digests() -> None:
    purifier = toys()
    with citing({"page 7": "né"}):
        [inside] = purifier.generate("né", few())
        with citing({"page 8": "x", "page 7": "né"}):
            [both_pages] = purifier.generate("né x", few())
    [outside] = purifier.generate("né", few())
    assert cited(inside) == [named("page 7", "né")]
    assert cited(both_pages) == [named("page 7", "né"), named("page 8", "x")]
    assert cited(outside) == []
    verify(inside.certificate, PLUGINS)


def test_they_are_those_of_when_the_answer_was_asked_for() -> None:
    """A stream is read later, perhaps on another thread."""
    with citing({"page 7": "né"}):
        chunks = toys().stream("né", few())
    *_, last = chunks
    assert last.completion is not None
    assert cited(last.completion) == [named("page 7", "né")]


@pytest.mark.anyio
async def test_asynchronous_answers_name_them_too() -> None:
    with citing({"page 7": "né"}):
        [answer] = await toys().agenerate("né", few())
        chunks = toys().astream("né", few())
    streamed = [chunk.completion async for chunk in chunks if chunk.completion]
    assert cited(answer) == cited(streamed[0]) == [named("page 7", "né")]


@pytest.mark.parametrize("change", [lambda one: one.pop("sha256"), lambda one: one.update(sha256="no")])
def test_a_malformed_context_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with citing({"page 7": "né"}):
        [answer] = toys().generate("né", few())
    forged = altered(answer.certificate, lambda body: change(body["context"][0]))
    with pytest.raises(CertificateError, match="malformed at context"):
        read(forged.text)
