"""`purify calibrate`: settings from the pair, written where they belong, recorded, and told."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from purify_hooks.calibration.checking import check_text, compared
from purify_hooks.calibration.measure import ScoredPassage, left_out, perplexity, score_texts
from purify_hooks.calibration.result import predicts_better_copying
from purify_hooks.calibration.sample import TextPassage, TextSample, default_sample, sample_of
from purify_hooks.calibration.target import alone, copied
from purify_hooks.calibration.toml_file import TomlTable, rewritten
from purify_hooks.copying.source import CopyingSource
from purify_hooks.policies._code import code_tokens
from purify_plugins import Purifier, Remarks, Sampling
from purify_plugins.certificates import read, verify
from purify_plugins.certificates.calibration_record import CalibrationRecord, digest_of, settings_digest
from purify_plugins.certificates.explain import calibration as told
from purify_plugins.cli import app
from purify_plugins.configuration.build import calibration
from purify_plugins.configuration.config import check_config, read_config
from purify_plugins.decode.replay import replay
from purify_plugins.errors import ConfigError, NoCertificateError
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.testing import ToySource
from purify_plugins.types import ScoredPrompt
from tests.toys import BYTES, both, real, toys

TEXT = (Path(__file__).parent.parent / "docs" / "threat-model.md").read_text("utf-8")[:3000]
RECORD = CalibrationRecord("x.txt", "0" * 64, 300, "1" * 64, "2" * 64, 12.5, 20.25, 0.01, "0.1.0")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    (tmp_path / "ours.txt").write_text(TEXT, "utf-8")


def asked(*line: str, text: str = "ours.txt") -> Result:
    return CliRunner().invoke(app, ["calibrate", "--text", text, *line])


def configured(rest: str = "") -> Path:
    place = Path("purify.toml")
    place.write_text(f'# Ours\n[llm]\nmodel = "{LLM}"  # large\n\n[slm]\nmodel = "{SLM}"\n{rest}', "utf-8")
    return place


# The text


def test_the_default_sample_has_many_kinds_and_is_the_same_every_time() -> None:
    found = default_sample()
    assert {each.kind for each in found.passages} == {
        "prose",
        "facts",
        "few-shot",
        "chat",
        "code",
        "languages",
    }
    assert found.characters > 14_000
    assert found.digest == default_sample().digest


def test_a_sample_is_cut_evenly_and_alike_every_time() -> None:
    found = default_sample()
    cut = found.cut(4000)
    assert 3000 < cut.characters < 5000
    assert len({each.kind for each in cut.passages}) > 3
    assert cut.digest == found.cut(4000).digest != found.digest
    assert found.cut(10**9).passages == found.passages
    assert len(found.cut(1).passages) == 1


def test_passages_fit_the_shortest_context() -> None:
    found = default_sample().within(512, None)
    assert all(len(each.text) <= 256 for each in found.passages)
    assert found.characters > 0.9 * default_sample().characters - 256 * 5
    assert default_sample().within(None, 8192).characters > 0.99 * default_sample().characters


SPACELESS = "昔々、ある山の奥に、年老いた王がすんでいました。" * 40


def test_passages_fit_in_any_alphabet_and_lose_nothing() -> None:
    """Japanese is three tokens a character to an English tokenizer: half a context of it was too long."""
    whole = TextSample("x", (TextPassage("x", SPACELESS),))
    found = whole.within(512, None)
    assert all(0 < len(each.text.encode()) <= 384 for each in found.passages)
    assert "".join(each.text for each in found.passages) == SPACELESS
    assert whole.within(None).passages == whole.passages
    assert whole.within(8192).passages == whole.passages


def test_text_without_spaces_is_scored_but_for_its_beginning() -> None:
    """As many tokens were scored as the text has characters, which is its last third."""
    sample = TextSample("x", (TextPassage("x", SPACELESS[:100]),))
    [found] = score_texts(*both(), sample)
    assert len(found.llm) > 2.5 * len(sample.passages[0].scored)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"too short", "has 9 characters of text, and at least 2,000 are needed"),
        (b"\x00\x01binary" * 400, "is not plain text"),
        (b"\xff\xfe" * 2000, "is not UTF-8 text"),
        (b"", "at least 2,000"),
    ],
)
def test_what_is_no_text_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        sample_of([tmp_path / "x.txt"])


# What is measured


def test_of_a_text_without_spaces_the_beginning_is_not_scored_either() -> None:
    """A model whose texts have no opening token gives the first one no score: all of it was left out."""
    text = "人人生而自由，在尊严和权利上一律平等。" * 4
    assert TextPassage("x", text).scored == text[24:]
    assert TextPassage("x", "Hello.").scored == "Hello."


def test_a_text_s_scores_are_those_of_teacher_forcing() -> None:
    llm, slm = both()
    passage = TextPassage("x", TEXT[:240])
    [found] = score_texts(llm, slm, TextSample("x", (passage,)))
    opening = len(slm.encode(passage.text.removesuffix(passage.scored)))
    tokens = slm.encode(passage.text)
    [record] = replay(real("linear"), [tokens[:opening]], [tokens[opening:]])
    assert len(found.slm) == len(record)
    assert found.slm.tolist() == pytest.approx([token.slm for token in record], abs=1e-3)
    assert found.llm.tolist() == pytest.approx([token.llm for token in record], abs=1e-3)


def test_two_tokenizers_are_compared_where_a_token_of_both_ends() -> None:
    """Read in bytes, a text took a hundred times as long."""
    llm, plugins = both()[0], real().plugins
    small = plugins.source(SLM_1024)
    passage = TextPassage("x", TEXT[:240])
    [one] = score_texts(llm, llm, TextSample("x", (passage,)))
    [two] = score_texts(llm, small, TextSample("x", (passage,)))
    assert 20 < len(two.llm) <= len(one.llm)
    assert float(two.llm.sum()) == pytest.approx(float(one.llm.sum()), abs=6.0)  # but for the first piece


def test_a_text_s_pieces_have_the_signs_of_their_tokens() -> None:
    llm, slm = both()
    text = "def one(a):\n    return {a: [1]}\n\nThe king rode out of the old forest and said so to all. " * 3
    passage = TextPassage("code", text)
    [found] = score_texts(llm, slm, TextSample("x", (passage,)))
    tokens = llm.encode(text)[-len(found.signs) :]
    signs = set(code_tokens(llm.vocabulary))
    assert found.signs.tolist() == [float(each in signs) for each in tokens]
    assert 0 < found.signs.mean() < 1


def test_a_chat_is_scored_as_its_answer_alone() -> None:
    llm, slm = both()
    [found] = score_texts(
        llm, slm, TextSample("x", (TextPassage("chat", "The king rode out.", "Who rode out?"),))
    )
    assert len(found.llm) == len(slm.encode("The king rode out.")) - 1, "all but the token that opens a text"


class Silent(ToySource):
    """A server that does not say how likely it finds what it reads."""

    def open(self, prompts: Any, scored: int = 0) -> Any:
        session, rows = super().open(prompts)
        session.prompts = [ScoredPrompt(each.tokens) for each in session.prompts]
        return session, rows


def test_a_server_that_scores_no_text_is_told() -> None:
    sample = TextSample("x", (TextPassage("x", TEXT[:200]),))
    with pytest.raises(ConfigError, match="the LLM does not show how likely it finds a text"):
        score_texts(Silent(BYTES, 1), ToySource(BYTES, 2), sample)


def test_perplexity_is_the_exponential_of_the_mean_surprisal() -> None:
    assert perplexity([torch.tensor([math.log(0.5), math.log(0.125)])]) == pytest.approx(4.0)
    assert perplexity([]) == 1.0


# The file


def test_a_calibration_goes_into_the_file_and_nothing_else_changes() -> None:
    place = configured(
        '# The rule:\n[policy]\nname = "balanced"  # default\n\n# Ours too\n[sampling]\nseed = 1\n'
    )
    done = asked()
    assert done.exit_code == 0, done.output
    text = place.read_text("utf-8")
    table = tomllib.loads(text)
    assert table["policy"]["name"] == "balanced"
    assert table["policy"]["budget"] >= 8
    assert table["sampling"] == {"seed": 1}
    for line in ("# Ours\n", "  # large\n", "# The rule:\n[policy]", "# Ours too\n[sampling]"):
        assert line in text
    assert "never met the limit" in text
    asked()
    assert place.read_text("utf-8") == text, "the same command writes the same file"
    config = read_config(place)
    record = calibration(config)
    assert record is not None
    assert record.llm == digest_of(both()[0].identity())
    assert table["slm"] == {"source": "copying", "model": str(SLM)}
    assert "# Read beside a copyist of what it has read." in text
    llm, slm = both()
    assert record.strangers(llm.identity(), CopyingSource(slm).identity()) == []
    assert record.strangers(slm.identity(), CopyingSource(slm).identity()) == ["LLM"]
    assert record.strangers(llm.identity(), slm.identity()) == ["SLM"]


def test_without_a_file_the_settings_are_printed_and_make_one() -> None:
    done = asked("--llm", str(LLM), "--slm", str(SLM))
    assert done.exit_code == 0, done.output
    config = check_config({**tomllib.loads(done.stdout), "llm": {}, "slm": {}})
    assert calibration(config) is not None
    assert "SLM / LLM" in done.stderr
    made = asked("--llm", str(LLM), "--slm", str(SLM), "--config", "new.toml")
    assert made.exit_code == 0, made.output
    assert read_config("new.toml").policy == config.policy


@pytest.mark.parametrize(
    "table", [{"model": "small"}, {"model": "small", "dtype": "float32"}, {"source": "ngram", "model": "n"}]
)
def test_a_copyist_is_put_beside_an_slm_s_table_and_taken_away(table: dict[str, Any]) -> None:
    beside = copied(table)
    assert beside["source"] == "copying"
    assert copied(beside) == beside
    assert alone(beside) == table == alone(table)
    text = rewritten("", [TomlTable("slm", beside)])
    assert tomllib.loads(text) == {"slm": beside}


def test_a_copyist_comes_only_where_the_text_is_likelier_so() -> None:
    llm, slm = (torch.full((9,), each) for each in (-1.0, -4.0))
    for copy, better in ((slm + 0.1, True), (slm - 0.1, False), (slm, False)):
        assert predicts_better_copying([ScoredPassage("x", llm, slm, copy, torch.zeros(9))]) is better


def test_the_copyist_s_scores_are_those_of_its_source() -> None:
    llm, slm = both()
    sample = TextSample("x", (TextPassage("x", TEXT[:240]),))
    [plain], [beside] = (score_texts(llm, each, sample) for each in (slm, CopyingSource(slm)))
    assert plain.copied.tolist() == pytest.approx(beside.slm.tolist(), abs=1e-3)


def test_as_json_is_one_value() -> None:
    configured()
    found = json.loads(asked("--json").stdout)
    assert found["calibration"]["settings"] == settings_digest(found["policy"])


@pytest.mark.parametrize(
    ("rest", "line", "words"),
    [
        ('[policy]\nname = "windowed"\n', (), "is set by hand: name = windowed; replace it with --force"),
        ('[policy]\nname = "balanced"\nbudget = 3.0\n', (), "budget = 3.0; replace it with --force"),
        ("", ("--llm", "another"), "has another model than --llm another"),
        ("", ("--config", "absent.toml"), "absent.toml"),
    ],
)
def test_what_somebody_chose_is_not_replaced_in_silence(rest: str, line: tuple[str, ...], words: str) -> None:
    place = configured(rest)
    before = place.read_text("utf-8")
    done = asked(*line)
    assert done.exit_code
    assert words in done.stderr.replace("\n", " ")
    assert place.read_text("utf-8") == before


def test_with_force_it_is() -> None:
    place = configured('[policy]\nname = "consistency"\nruns = 3\n[policy.policy]\nname = "geometric"\n')
    assert asked("--force").exit_code == 0
    assert tomllib.loads(place.read_text("utf-8"))["policy"]["name"] == "balanced"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""),
        ('policy = {name = "windowed"}\nwalk = "lockstep"\n', ""),
        ('policy.name = "windowed"\n\n[llm]\nmodel = "x"  # keep\n', ""),
        ('[ policy ]  # old\nname = "windowed"\n\n# next\n[llm]\nx = """\n[policy]\n"""\n', ""),
        (
            '[project]\nname = "p"\n\n[tool.purify.policy]\nname = "windowed"\n[tool.other]\nx = 1\n',
            "tool.purify.",
        ),
    ],
)
def test_a_table_is_replaced_by_itself(text: str, prefix: str) -> None:
    block = TomlTable("policy", {"name": "balanced", "budget": 8.5}, ["Why."], {"budget": "nats"})
    if '"""' in text:
        with pytest.raises(ConfigError, match="cannot be replaced without touching other lines"):
            rewritten(text, [block], prefix)
        return
    after = rewritten(text, [block], prefix)
    assert "# Why.\n" in after
    assert rewritten(after, [block], prefix) == after
    assert ("# keep" in text) == ("# keep" in after)


# The record


def certified(purifier: Purifier) -> Any:
    [answer] = purifier.generate("The king", Sampling(max_tokens=4, seed=0))
    return answer.certificate  # type: ignore[union-attr]  # generate raises where there is none


def test_certificates_record_a_calibration_and_only_where_there_is_one() -> None:
    plain = toys("balanced")
    assert "calibration" not in certified(plain).body["method"]
    found = certified(plain.replace(calibration=RECORD))
    assert found.body["method"]["calibration"] == RECORD.as_json()
    verify(read(found.text), plain.plugins)
    [words] = told(found.body)
    assert "Calibrated on x.txt (300 tokens" in words
    assert "made with another LLM and another SLM" in words
    assert told(certified(plain).body) == []


def test_another_policy_has_another_calibration_or_none() -> None:
    purifier = toys("balanced", calibration=RECORD)
    assert purifier.replace(batch_size=3).calibration == RECORD
    assert purifier.replace(policy=purifier.plugins.policy("windowed")).calibration is None


@pytest.mark.parametrize(
    "wrong", [None, {}, {**RECORD.as_json(), "limited": 2.0}, {**RECORD.as_json(), "x": 1}]
)
def test_a_certificate_s_calibration_is_whole(wrong: Any) -> None:
    from purify_plugins.canonical_json import canonical, digest

    body = json.loads(certified(toys("balanced")).text)
    body["method"]["calibration"] = wrong
    with pytest.raises(NoCertificateError, match=r"calibration|x"):
        read(canonical({**body, "digest": digest(body)}))


def table_of(**changes: Any) -> dict[str, Any]:
    policy = {"name": "balanced", "budget": 9.0}
    kept = {**RECORD.as_json(), "settings": settings_digest(policy)}
    return {"llm": {}, "slm": {}, "policy": policy, "calibration": kept, **changes}


def test_a_calibration_is_of_the_settings_it_stands_beside() -> None:
    assert calibration(check_config(table_of())) == RECORD
    assert calibration(check_config(table_of(calibration={}))) is None
    with pytest.raises(ConfigError, match=r"\[policy\] is not as it was calibrated; run `purify calibrate`"):
        calibration(check_config(table_of(policy={"name": "balanced", "budget": 99.0})))


@pytest.mark.parametrize("key", RECORD.as_json())
def test_every_key_of_a_calibration_is_needed_and_has_a_type(key: str) -> None:
    kept = table_of()["calibration"]
    for wrong in ({**kept, key: True}, {each: kept[each] for each in kept if each != key}):
        with pytest.raises(ConfigError, match=f"{key} is .*; run `purify calibrate` again"):
            calibration(check_config(table_of(calibration=wrong)))


# `purify check`


def checked(
    purifier: Purifier, seconds: float = 9.0, texts: tuple[Path, ...] = (Path("ours.txt"),)
) -> Remarks:
    return check_text(purifier, check_config(table_of(calibration={})), texts, seconds)


def test_a_check_measures_both_models_on_each_kind_of_text(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text(TEXT[1000:], "utf-8")
    found = checked(real("windowed"), texts=(tmp_path / "ours.txt", tmp_path / "more.txt"))
    assert list(found.facts) == ["ours", "more"]
    figures = found.facts["ours"]
    assert figures["tokens"] > 100
    assert figures["ratio"] == pytest.approx(figures["SLM perplexity"] / figures["LLM perplexity"], rel=0.01)
    assert checked(real("windowed"), seconds=0.0).facts == {}


def test_a_check_stops_when_its_time_is_over_and_reads_one_text_at_least() -> None:
    found = checked(real("windowed"), seconds=1e-9, texts=())
    assert list(found.facts) == ["prose"]


def test_passages_that_cannot_be_compared_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair of which nothing could be compared was passed without a word."""
    monkeypatch.setattr("purify_hooks.calibration.checking.score_texts", lambda *asked: [])
    found = checked(real("windowed"))
    assert found.facts == {}
    assert found.warnings == [left_out(15, 0)]


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((0, 0), "practically the same model"),
        ((1, 0), "the SLM predicts this text better than the LLM"),
    ],
)
def test_a_check_warns_of_a_pair_that_protects_nothing_or_gains_nothing(
    sides: tuple[int, int], words: str
) -> None:
    llm, slm = (both()[side] for side in sides)
    book = Path("book.txt")
    book.write_text("The king said to the old man that he had come from the forest. " * 40, "utf-8")
    found = checked(Purifier(llm, slm, real("windowed").policy), texts=(book,))
    assert any(words in each for each in found.warnings), found


def test_a_check_warns_where_the_slm_is_too_weak_for_a_kind_of_text() -> None:
    passages = [ScoredPassage("code", torch.full((9,), -1.0), *torch.full((3, 9), -4.0))]
    [warning] = compared(real("windowed"), passages)
    assert "the SLM is weak on this text, code: perplexity 54.6, and the LLM 2.718" in warning
    assert [
        *compared(
            real("windowed"), [ScoredPassage("prose", torch.full((9,), -1.0), *torch.full((3, 9), -2.0))]
        )
    ] == []


def test_a_check_tells_of_balanced_without_a_calibration_or_with_another_pair_s() -> None:
    plain = real("balanced")
    [warning] = checked(plain, seconds=0.0).warnings
    assert "balanced is not calibrated to this pair" in warning
    [warning] = checked(plain.replace(calibration=RECORD), seconds=0.0).warnings
    assert "balanced was calibrated with another LLM and another SLM" in warning
    llm, slm = (digest_of(each.identity()) for each in both())
    assert not checked(plain.replace(calibration=replace(RECORD, llm=llm, slm=slm)), seconds=0.0).warnings
    assert not checked(real("windowed"), seconds=0.0).warnings


def test_a_server_that_scores_no_text_leaves_the_rest_of_a_check_standing() -> None:
    found = checked(Purifier(Silent(BYTES, 1), ToySource(BYTES, 2), real("windowed").policy))
    assert found.facts == {}
    assert "does not show how likely" in found.warnings[-1]


def test_the_command_prints_what_was_measured_and_says_at_once_what_it_does() -> None:
    configured()
    done = CliRunner().invoke(app, ["check", "--text", "ours.txt", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["text"]["ours"]["tokens"] > 100
    assert any("purify calibrate" in each for each in found["warnings"])
    assert done.stderr.startswith("loading both models\n")
    short = CliRunner().invoke(app, ["check", "--seconds", "0"])
    assert "warning: balanced is not calibrated" in short.stderr
    assert "perplexity" not in short.stdout
