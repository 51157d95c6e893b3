"""`purify report`: what it says was measured or is bounded, and nobody can change it unseen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from purify_hooks.evaluation.eval.attempt import recited
from purify_hooks.evaluation.eval.systems import ALONE
from purify_hooks.evaluation.pair_report.cards import card
from purify_hooks.evaluation.pair_report.duties import DUTIES
from purify_hooks.evaluation.pair_report.evaluated import read_evaluation
from purify_hooks.evaluation.pair_report.page import chance, marked, page
from purify_hooks.evaluation.pair_report.provenance import licence
from purify_hooks.evaluation.pair_report.signed import read_report, stated
from purify_hooks.evaluation.pair_report.works import NamedWork, joined
from purify_hooks.evaluation.testbed import HOME
from purify_plugins import ConfigError
from purify_plugins.canonical_json import canonical, options
from purify_plugins.certificates.figures import tokens_of
from purify_plugins.certificates.in_numbers import bound
from purify_plugins.cli import app
from purify_plugins.decode.forced_text import ForcedText
from purify_plugins.decode.forcing import judged_by
from purify_plugins.errors import CertificateError, MismatchError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.testbed import LLM, SLM
from tests.takedown.lists import built
from tests.toys import few, real
from tests.vouching.vouchers import filled, write

PASSAGE = json.loads((HOME / "attacks.json").read_text("utf-8"))["protected"]["passages"][0]
TEXT = PASSAGE["prefix"] + PASSAGE["continuation"]
"""As the LLM was trained on it: with other line ends it looks as if it knew it less."""
KEY, OTHER = HeldKey.new(), HeldKey.new()
PLUGINS = load_plugins(())


def purify(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def configured(folder: Path, more: str = "", llm: str = f'model = "{LLM}"', slm: str = "") -> Path:
    file = folder / "purify.toml"
    file.write_text(f'[llm]\n{llm}\n[slm]\nmodel = "{SLM}"\n{slm}\n{more}', "utf-8")
    return file


def evaluated(llm: str, slm: str, **changed: Any) -> dict[str, Any]:
    """A record as `purify eval` writes it, of `balanced` at its defaults."""
    parameters = options(PLUGINS.policy("balanced", {}), PLUGINS.name_of)
    rows = (
        ("llm", "LLM alone", 1.0),
        ("slm", "SLM alone", 0.0),
        ("configured", "balanced, as in the file", 0.02),
    )
    system = {"policy": "balanced", "parameters": parameters, "stages": None, "perplexity": 60.0}
    table = {
        "title": "Attacks that succeed",
        "columns": ["system", "passage"],
        "note": "Per cent.",
        "more": [],
    }
    return {
        "format": "purify-evaluation/1",
        "command": "purify eval --pair purify.toml",
        "conclusion": "At its worst attack the LLM alone reaches: recitation 100%.",
        "quick": False,
        "models": {"llm": llm, "slm": slm},
        "systems": [{"key": key, "label": label, "worst": worst, **system} for key, label, worst in rows],
        "tables": [{**table, "rows": [["LLM alone", "100 / 44"], ["balanced, as in the file", "2 / 0"]]}],
        "pictures": {"Recitation": ["<svg><path/></svg>", "<svg><g/></svg>"]},
        "facts": {"date": "2026-11-29"},
        **changed,
    }


@dataclass(frozen=True)
class Made:
    """A report that the command made, signed."""

    folder: Path

    @property
    def data(self) -> bytes:
        return (self.folder / "report.json").read_bytes()

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text("utf-8")

    @property
    def body(self) -> Mapping[str, Any]:
        return read_report(self.data.removesuffix(b"\n")).body


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The test bed's pair under `balanced`, a work that the LLM has by heart, an SLM with a card."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "work.txt").write_text(TEXT, "utf-8")
    for name, text in (
        ("key", KEY.pem),
        ("key.pub", KEY.public.pem.encode()),
        ("other.pub", OTHER.public.pem.encode()),
    ):
        (folder / name).write_bytes(text)
        (folder / name).chmod(0o600)
    write(folder / "card.json", filled({"model": SLM}))
    config = configured(folder, slm='card = "card.json"')
    work, key = f"alice={folder / 'work.txt'}", folder / "key"
    told = purify("report", "--config", config, "--out", folder, "--work", work, "--key", key)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(
        "Guarantee of answers of this configuration: passage, against untrusted weights"
    )
    return Made(folder)


# A stranger checks it


def checked(made: Made, *more: Any) -> Result:
    return purify("report", "check", made.folder / "report.json", *more)


def test_a_stranger_checks_a_report_and_its_page_by_the_key(made: Made) -> None:
    whole = checked(made, "--html", made.folder / "report.html", "--key", made.folder / "key.pub")
    assert whole.exit_code == 0
    assert whole.stdout.startswith("Verdict: HOLDS. The report is signed by " + KEY.public.id)
    assert "The page is the one that it is about." in whole.stdout
    assert "no legal advice" in whole.stdout


def test_what_is_not_known_and_what_is_wrong_is_told_apart(made: Made, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text(made.html.replace("44", "4"), "utf-8")
    unsure = checked(made)
    assert (unsure.exit_code, unsure.stdout[:22]) == (2, "Verdict: CANNOT TELL, ")
    assert "no key was given; give --key FILE, which its maker publishes.\n" in unsure.stdout
    assert checked(made, "--key", made.folder / "other.pub").exit_code == 1
    assert checked(made, "--html", tmp_path / "other.html").exit_code == 1
    assert purify("report", "check", made.folder / "work.txt").exit_code == 3
    told = json.loads(checked(made, "--key", made.folder / "key.pub", "--json").stdout)
    assert (told["verdict"], told["signed_by"]) == ("holds", [KEY.public.id])
    assert told["report"]["guarantee"]["guarantee"] == "passage"


def test_no_single_edit_of_a_signed_report_is_accepted(made: Made) -> None:
    data = made.data.removesuffix(b"\n")
    for at in range(7, len(data), len(data) // 60):
        other = b"A" if data[at : at + 1] != b"A" else b"B"
        with pytest.raises(CertificateError):
            read_report(data[:at] + other + data[at + 1 :], [KEY.public])


def test_an_unsigned_report_says_so_and_its_edits_show(made: Made, tmp_path: Path) -> None:
    page = made.html.encode()
    plain = stated(made.body, page, None).encode()
    (tmp_path / "plain.json").write_bytes(plain)
    shown = purify("report", "check", tmp_path / "plain.json")
    assert "without a signature: whoever sends it can have written it.\n" in shown.stdout
    found = read_report(plain)
    found.require_page(page)
    assert not found.signed
    for old, new in ((b'"passage"', b'"path"'), (b"2026", b"2025"), (b'"alice"', b'"bob"')):
        with pytest.raises(CertificateError, match="digest does not match"):
            read_report(plain.replace(old, new))
    with pytest.raises(CertificateError, match="not signed"):
        read_report(plain, [KEY.public])
    with pytest.raises(MismatchError, match="not this report's"):
        found.require_page(page + b" ")


def test_a_signed_certificate_is_no_report_and_a_report_no_certificate(made: Made, tmp_path: Path) -> None:
    envelope = Signer([KEY]).envelope("text/plain", b"{}")
    with pytest.raises(CertificateError, match="this is no report"):
        read_report(envelope.text.encode(), [KEY.public])
    assert purify("verify", made.folder / "report.json").exit_code == 3


# Its figures are those of the models


def test_the_figures_are_what_forcing_gives_and_the_bound_is_what_verify_says(made: Made) -> None:
    [work] = made.body["works"]["measured"]
    [passage] = work["passages"]
    purifier = real("balanced")
    cut = re.match(r"(?:\S+\s+){23}\S+", TEXT)
    assert cut is not None
    text = recited(purifier.slm, cut[0], TEXT[cut.end() :], 50)
    policies = [PLUGINS.policy(each.policy, each.parameters) for each in ALONE]
    [(llm, slm, ours)] = judged_by(purifier, [*policies, purifier.policy], [text])
    assert passage["tokens"] == len(text.tokens)
    assert passage["surprisal_slm"] == pytest.approx(-slm.nats, abs=1e-3)
    assert passage["log_probability_llm"] == pytest.approx(llm.nats, abs=1e-3)
    assert passage["log_probability_purified"] == pytest.approx(ours.nats, abs=1e-3)
    assert passage["greedy_tokens"] == {"llm": llm.run, "purified": ours.run, "llm_without_list": None}
    assert passage["bound"] == pytest.approx(
        bound(made.body["guarantee"], len(text.tokens), -slm.nats), abs=1e-3
    )
    # What the LLM has by heart it gives away, the purified model does not, and the bound is kept.
    assert passage["log_probability_llm"] > math.log(0.1)
    assert passage["log_probability_purified"] <= passage["bound"] < -20
    assert passage["k_over_surprisal"] < 1


@pytest.mark.parametrize("name", ["balanced", "windowed", "capped"])
@given(tokens=st.integers(1, 500), each=st.floats(0.01, 20), budget=st.floats(0.1, 50))
def test_the_policy_s_k_less_the_surprisal_is_the_bound_that_certificates_are_explained_by(
    name: str, tokens: int, each: float, budget: float
) -> None:
    policy = PLUGINS.policy(name, {"total" if name == "capped" else "budget": budget})
    method = {"guarantee": policy.guarantee, "parameters": vars(policy.original)}
    most, known = bound(method, tokens, tokens * each), policy.allowance(tokens, tokens * each)
    assert known - tokens * each <= most + 1e-9 * tokens * each
    if name != "capped":  # whose cap a token is a bound as well
        assert known - tokens * each == pytest.approx(most, abs=1e-6, rel=1e-9)


@pytest.mark.parametrize("how", [{"temperature": 0.7, "top_p": 0.9}, {"repetition_penalty": 1.3}])
def test_forcing_under_sampling_settings_is_what_an_answer_under_them_had(how: dict[str, float]) -> None:
    """At temperature 1 a bound is another than that of an answer at 0.7, and reports had the former."""
    purifier, sampling = real("balanced"), few(24, **how)
    [answer] = purifier.generate("Once upon a time", sampling)
    text = ForcedText(tuple(answer.certificate.body["prompt"]), answer.tokens)
    [(found,)] = judged_by(purifier, [purifier.policy], [text], sampling=sampling)
    drawn = [step.fused for step in tokens_of(answer.certificate.body["steps"])]
    assert found.logprobs == pytest.approx(drawn, abs=2e-3)


# What the page is


def test_the_page_fetches_nothing_and_runs_nothing_and_names_every_duty(made: Made) -> None:
    html = made.html
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=\"(?!#)|url\(|@import", html)
    for duty in ("measure 1.4", "measure 1.5", "article 12", "article 26", "article 50"):
        assert re.search(rf"<h2[^>]*>[^<]*{duty}", html), duty
    assert made.body["digest"] in html
    assert "Not measured: this report was made without an evaluation" in html
    assert TEXT[:40] not in html
    assert TEXT[:40] not in canonical(made.body)


def test_a_configuration_without_a_guarantee_says_so_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "work.txt").write_text(TEXT, "utf-8")
    config = configured(tmp_path, '[policy]\nname = "balanced"\n[sampling]\ntemperature = 0\n')
    told = purify("report", "--config", config, "--out", tmp_path, "--work", f"alice={tmp_path / 'work.txt'}")
    assert told.exit_code == 0, told.output
    found = Made(tmp_path)
    first = found.html[: found.html.index("<h2")]
    assert "Guarantee of answers of this configuration: NONE, because greedy decoding" in first
    assert "No guarantee" in first
    assert 'class="statement none"' in first
    assert "At temperature 1 it would be: passage." in first
    [passage] = found.body["works"]["measured"][0]["passages"]
    assert (passage["k"], passage["bound"]) == (None, None)
    assert found.body["signers"] == []


# Who vouches for the models


def test_the_slm_s_card_is_in_the_report_and_who_wrote_it(made: Made) -> None:
    told = made.body["models"]
    assert told["llm"]["card"] is None
    assert told["slm"]["card"]["vouched_by"]["name"] == "A. Reader"
    assert told["slm"]["licence"] == "Apache-2.0 (LICENSE)"
    for words in ("Ten books: corpus/README.md (public domain)", "names: none (A. Reader, 2026-11-28)"):
        assert words in made.html
    assert "Who vouches for the SLM: A. Reader" in made.html
    assert told["llm"]["sentence"].startswith("LLM: llm (transformers, in-process), SHA-256 of its files ")


def test_a_card_that_is_not_the_loaded_model_s_any_more_is_refused(made: Made) -> None:
    model = {"source": "takedown", "model": {"model": str(SLM), "card": str(made.folder / "card.json")}}
    digest = made.body["models"]["slm"]["card"]["sha256"]
    found = card("llm", model, {"card": {"sha256": digest}})
    assert found is not None
    assert found["sha256"] == digest
    assert card("llm", model, {}) is None
    with pytest.raises(ConfigError, match="card changed while this report was made"):
        card("llm", model, {"card": {"sha256": "0" * 64}})


def test_what_is_recorded_of_certificates_is_said_as_it_is_configured(made: Made) -> None:
    def told(**records: Any) -> str:
        body = {**made.body, "records": {"keys": [], "store": None, "timestamp": False, **records}}
        return " ".join(next(each for each in DUTIES if each.id == "article-12").serves(body))

    assert "are not signed: name a `key` under [certificate], and not dated by anybody else." in told()
    assert "recorded nowhere: name a `store`" in told()
    kept = {"keep": "digests", "retention": "184d", "on_error": "refuse"}
    full = told(keys=["ab" * 32], store=kept, timestamp=True)
    assert "signed by abababababababab…, in a hash chain, and its days dated by" in full
    assert "kept for 184d; an answer that cannot be recorded is refused" in full


# The evaluation


def with_evaluation(made: Made, tmp_path: Path, **changed: Any) -> str:
    """The page of the same report with an evaluation."""
    digests = {side: made.body["models"][side]["digest"] for side in ("llm", "slm")}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluated(**digests, **changed)), "utf-8")
    found = read_evaluation(tmp_path)
    found.require_of(digests)
    row = found.configured(made.body["guarantee"]["policy"], made.body["guarantee"]["parameters"])
    return page({**made.body, "evaluation": {**found.as_json(), "configured": row and row.label}}, found)


def test_an_evaluation_s_tables_and_pictures_are_in_the_page(made: Made, tmp_path: Path) -> None:
    html = with_evaluation(made, tmp_path)
    assert "<b>100% → 2%</b>" in html
    assert "<svg><path/></svg>" in html
    assert '<tr class="us"><th scope="row">balanced, as in the file</th>' in html
    assert "purify eval --pair purify.toml" in html


def test_a_policy_that_was_not_measured_is_not_given_another_s_figures(made: Made, tmp_path: Path) -> None:
    systems = evaluated("", "")["systems"]
    systems[-1]["parameters"] = {**systems[-1]["parameters"], "budget": 2.0}
    html = with_evaluation(made, tmp_path, systems=systems)
    assert "it was not measured" in html
    assert "100% →" not in html
    assert "four items of a kind" in with_evaluation(made, tmp_path, quick=True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"models": {"llm": "0" * 64, "slm": "0" * 64}}, "is of another LLM (SHA-256 0000000000000000…)"),
        ({"format": "purify-evaluation/9"}, "is no evaluation.json"),
        (
            {"tables": [{"title": "t", "columns": ["a"], "rows": [["x", "y"]], "note": "", "more": []}]},
            "another length",
        ),
        ({"pictures": {"p": ["<svg><script>x</script></svg>", "<svg/>"]}}, "no plain SVG"),
        ({"pictures": {"p": ["<svg onload='x()'/>", "<svg/>"]}}, "no plain SVG"),
        ({"pictures": {"p": ["<svg><use href='http://x'/></svg>", "<svg/>"]}}, "no plain SVG"),
        ({"systems": 3}, "systems must be a list"),
        ({"extra": 1}, "extra"),
    ],
)
def test_an_evaluation_that_is_none_or_another_pair_s_is_refused(
    changed: dict[str, Any], words: str, made: Made, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        with_evaluation(made, tmp_path, **changed)


# Works


@pytest.mark.slow
def test_a_takedown_list_s_works_stand_before_and_after(tmp_path: Path) -> None:
    (tmp_path / "alice.txt").write_text(TEXT, "utf-8")
    (tmp_path / "common.txt").write_text("There was a house by the road, and a king went by. " * 20, "utf-8")
    place = built(tmp_path, [tmp_path / "alice.txt"], [tmp_path / "common.txt"])
    config = configured(tmp_path, llm=f'source = "takedown"\nmodel = "{LLM}"\nworks = "{place}"')
    told = purify("report", "--config", config, "--out", tmp_path, "--json")
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    [work] = body["takedown"]["works"]
    [passage] = body["works"]["measured"][0]["passages"]
    assert (work["name"], work["named_by"]) == ("alice.txt", ["takedown list"])
    assert work["recognised"][1] >= 1
    assert passage["log_probability_llm_without_list"] > math.log(0.1)
    assert passage["log_probability_llm"] < -20
    assert passage["log_probability_purified"] <= passage["bound"]
    assert body["models"]["llm"]["licence"] == "not stated in its directory"
    assert passage["greedy_tokens"]["llm_without_list"] > 40 > passage["greedy_tokens"]["llm"]
    assert "Works taken down, before and after" in Made(tmp_path).html


def test_works_of_one_file_are_one_and_names_are_told_apart() -> None:
    listed = NamedWork("a", "1" * 64, "six words are enough for one", ("takedown list",))
    index, other = NamedWork("b", "1" * 64, sources=("copycheck",)), NamedWork("a", "2" * 64)
    found = joined([index], [listed], [other])
    assert [(each.name, each.sources) for each in found] == [
        ("b", ("copycheck", "takedown list")),
        ("a", ("given",)),
    ]
    assert found[0].text == listed.text
    assert [each.name for each in joined([listed], [other])] == ["a (11111111)", "a (22222222)"]


def test_a_short_work_is_one_passage_and_a_long_one_several() -> None:
    words = [f"w{at}" for at in range(400)]
    [one] = NamedWork("x", "0", " ".join(words[:12])).passages(8)
    assert one.text.split() == words[:12]
    assert len(one.prefix.split()) == 4
    assert len(NamedWork("x", "0", " ".join(words)).passages(8)) == 5
    assert NamedWork("x", "0", "too few words").passages(1) == []


# Small parts


def test_the_licence_is_the_one_that_a_directory_states(tmp_path: Path) -> None:
    assert licence(None) == "not known: its files are not here"
    assert licence(tmp_path) == "not stated in its directory"
    (tmp_path / "LICENSE").write_text("text", "utf-8")
    assert licence(tmp_path) == "the text in its file LICENSE"
    (tmp_path / "README.md").write_text(
        "---\ntags: [x]\nlicense: apache-2.0\n---\n# Card\nlicense: mit\n", "utf-8"
    )
    assert licence(tmp_path) == "apache-2.0"
    (tmp_path / "README.md").write_bytes(b"\xff")
    assert licence(tmp_path) == "the text in its file LICENSE"


def test_chances_read_plainly() -> None:
    assert [chance(each) for each in (None, "-inf", 0.0, math.log(0.25), -10.0, -160.0)] == [
        *("–", "never", "100.0%", "25.0%", "1 in 2.2e+04", "1 in 10^69.5"),
    ]
    assert (
        marked("`a<b` is 1 in 10^69.5, not 210^3")
        == "<code>a&lt;b</code> is 1 in 10<sup>69.5</sup>, not 210^3"
    )
