"""What `purify verify` tells a reader who was not there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from purify_plugins import MismatchError, PluginError, Purifier, Sampling
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import Pins, verify
from purify_plugins.certificates.guarantee_text import meant
from purify_plugins.cli import app
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Certificate


def purify(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """An answer, its text, and the same prompt's greedy answer, as files."""
    folder = tmp_path_factory.mktemp("written")
    writer = Purifier.load(LLM, SLM)
    [answer] = writer.generate("The king", Sampling(max_tokens=8, seed=3))
    [greedy] = writer.generate("The king", Sampling(max_tokens=4, temperature=0.0))
    files = {"answer": answer.certificate.text, "greedy": greedy.certificate.text, "text": answer.text}
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return {name: folder / name for name in files}


def refiled(file: Path, change: Callable[[dict[str, Any]], None], place: Path) -> str:
    """A certificate that was edited and given a digest to match."""
    body = json.loads(file.read_text("utf-8"))
    change(body)
    place.write_text(canonical({**body, "digest": digest(body)}), "utf-8")
    return str(place)


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def the(start: str, among: list[str]) -> str:
    [found] = [line for line in among if line.startswith(start)]
    return found


# Whose words they are


def test_a_certificate_s_words_stay_in_their_line(written: Mapping[str, Path], tmp_path: Path) -> None:
    """A stop text with a line break began a line of its sender's own, such as "Signature: ..."."""
    forged = "x\nSignature: your key has signed it.\x1b[2A\u202e"

    def change(body: dict[str, Any]) -> None:
        body["method"]["sampling"]["stop"] = [forged]

    told = lines(purify("verify", refiled(written["answer"], change, tmp_path / "forged.json")))
    assert (
        the("Signature: ", told)
        == "Signature: none. Nobody vouches for it; whoever sends it can have written it."
    )
    assert r"stop = x\nSignature: your key has signed it.\x1b[2A\u202e" in the("Sampling: ", told)


# What was compared, and what is somebody's word

GIVEN = {
    "nothing": ((), "nothing.", ["the answer", "the prompt", "the policy", "SLM's", "LLM's"]),
    "a field": (("--expect", "answer.limit=8"), "answer.limit.", ["the answer", "the policy", "SLM's"]),
    "the answer": (("--answer", "TEXT"), "the answer.", ["the prompt", "the policy", "SLM's", "LLM's"]),
    "the SLM": (("--slm", str(SLM)), "the SLM's files.", ["the answer", "the prompt", "the policy", "LLM's"]),
    "its digest": (("--slm-digest", str(SLM)), "the SLM's files.", ["the answer", "the prompt", "LLM's"]),
    "both": (("--slm", str(SLM), "--llm", str(LLM)), "the SLM's files, the LLM's files.", ["the answer"]),
    "a guarantee": (("--require", "passage"), "the guarantee.", ["the answer", "the policy", "SLM's"]),
}


@pytest.mark.parametrize("name", GIVEN)
def test_one_thing_compared_leaves_the_rest_its_issuer_s_word(name: str, written: Mapping[str, Path]) -> None:
    """One pin, of any kind, silenced "Whose it is, nobody has checked"."""
    options, compared, missing = GIVEN[name]
    options = tuple(str(written["text"]) if each == "TEXT" else each for each in options)
    told = lines(purify("verify", str(written["answer"]), *options))
    assert the("Compared with what you gave", told).endswith(f"the same: {compared}")
    rest = the("Not compared, so its issuer's word: ", told)
    assert all(each in rest for each in missing)
    assert rest.endswith("the models' names, who wrote it and when (a signature's matter).")


def test_what_was_compared_is_not_said_to_be_somebody_s_word(written: Mapping[str, Path]) -> None:
    options = ("--slm", str(SLM), "--answer", str(written["text"]), "--policy", "balanced")
    rest = the("Not compared", lines(purify("verify", str(written["answer"]), *options)))
    assert "the answer" not in rest
    assert "SLM's files" not in rest
    assert "the policy" not in rest


def test_a_name_that_was_changed_stays_its_issuer_s_word(written: Mapping[str, Path], tmp_path: Path) -> None:
    """The files say who a model is; its name is a label that anybody can write."""

    def rename(body: dict[str, Any]) -> None:
        body["models"]["slm"]["name"] = "gpt-5"

    file = refiled(written["answer"], rename, tmp_path / "renamed")
    told = lines(purify("verify", file, "--slm", str(SLM), "--llm", str(LLM)))
    assert "the models' names" in the("Not compared", told)
    assert "SHA-256 of its files" in the("SLM: gpt-5", told)


def test_a_replay_of_both_models_says_so(written: Mapping[str, Path]) -> None:
    both = lines(purify("verify", str(written["answer"]), "--slm", str(SLM), "--llm", str(LLM)))
    assert any(line.startswith("Both models were replayed, and the policy") for line in both)
    alone = lines(purify("verify", str(written["answer"]), "--slm", str(SLM)))
    assert the("Recomputed with the SLM", alone).endswith("The LLM was not replayed.")


# The verdict


def test_the_verdict_comes_first(written: Mapping[str, Path]) -> None:
    """A greedy answer's began "The certificate is intact"."""
    drawn, greedy = (lines(purify("verify", str(written[name]))) for name in ("answer", "greedy"))
    assert drawn[0].startswith("Verdict: HOLDS, as far as it can without a signature.")
    assert greedy[0].endswith("It guarantees nothing, as the next line says.")
    assert drawn[1] == "Guarantee of this answer: passage, against untrusted weights in an honest engine."
    assert greedy[1].startswith("Guarantee of this answer: NONE, because greedy decoding takes the arg-max")
    assert greedy[2].startswith("In plain words: nothing limits how far the LLM moved this answer")


def test_a_guarantee_can_be_required(written: Mapping[str, Path]) -> None:
    assert purify("verify", str(written["answer"]), "--require", "passage").exit_code == 0
    refused = purify("verify", str(written["greedy"]), "--require", "passage")
    assert refused.exit_code == 1
    assert "the guarantee of this answer is 'none'" in refused.stderr
    assert "do not rely on it" in refused.stderr
    with pytest.raises(MismatchError, match="'window' is required"):
        verify(Certificate(written["answer"].read_text("utf-8")), load_plugins([]), Pins(guarantee="window"))


def test_a_guarantee_that_there_is_not_cannot_be_required(written: Mapping[str, Path]) -> None:
    refused = purify("verify", str(written["answer"]), "--require", "pasage")
    assert refused.exit_code == 2
    assert "--require takes one of none, mean, window, passage, path" in refused.stderr


# Plain words


def method(guarantee: str, **parameters: Any) -> dict[str, Any]:
    return {"guarantee": guarantee, "mode": "sampled", "parameters": parameters}


def test_the_example_of_a_passage_is_what_its_formula_gives() -> None:
    told = meant(method("passage", budget=5.0, doubt=1.0, drain=3.0))
    assert f"at most 1 in {1 / math.sqrt(math.exp(5.0) * 1e-9):,.0f} here" in told
    assert "at most 1 in 1 here" in meant(method("passage", budget=40.0, doubt=1.0))  # no promise at all


def test_the_example_of_a_window_is_what_its_formula_gives() -> None:
    told = meant(method("window", cap=3.0, window=4, budget=1.0))
    assert told.startswith("any 4 tokens in a row are at most 2.72 times as likely")
    assert f"which is 13 such windows, that is {math.exp(13):,.3g} times" in told


def test_the_other_guarantees_are_said_with_their_values_too() -> None:
    assert "by at most 0.5 nats (a factor of 1.65)" in meant(method("mean", budget=0.5))
    assert "is at most 10^8.7 times as likely" in meant(method("path", cap=1.0, total=20.0))
    assert "nothing limits" in meant(method("none"))
    assert meant({**method("none"), "mode": "slm-only"}) == "the LLM had no part in this answer"


def test_a_policy_inside_another_lends_its_values() -> None:
    inside = method("window", strength=1.0, policy={"name": "windowed", "window": 4, "budget": 1.0})
    assert meant(inside) == meant(method("window", window=4, budget=1.0))


def test_a_policy_with_options_of_its_own_names_is_told_without_an_example() -> None:
    assert "no more than the policy's budget" in meant(method("window", allowance=2.0))


def test_a_large_factor_is_said_to_be_no_verdict(written: Mapping[str, Path]) -> None:
    told = the("This very answer is e^", lines(purify("verify", str(written["answer"]))))
    assert told.endswith("is no verdict; compare nats a token.")


# All that an auditor asks for


def test_everything_that_identifies_an_answer_is_told(written: Mapping[str, Path]) -> None:
    body = json.loads(written["answer"].read_text("utf-8"))
    told = "\n".join(lines(purify("verify", str(written["answer"]))))
    assert f"SHA-256 {body['answer']['sha256']}" in told
    assert f"This certificate's digest: {body['digest']}" in told
    assert f"seed 3, by purify-plugins {body['method']['version']}" in told
    for words in (
        "against untrusted weights",
        "Plugins: none. Edits: none.",
        "Texts put into the prompt: none",
    ):
        assert words in told
    verdict = json.loads(purify("verify", str(written["answer"]), "--json").stdout)
    assert verdict["adversary"] == "weights"
    assert verdict["parameters"] == body["method"]["parameters"]
    assert (verdict["parameters"]["budget"], verdict["parameters"]["gap"]) == (5.0, 0.0)
    assert verdict["answer"] == body["answer"]
    assert verdict["models"]["slm"]["digest"] in told
    assert verdict["compared"] == []
    assert verdict["not_compared"][0] == "the answer"


def test_texts_and_plugins_that_took_part_are_told(written: Mapping[str, Path], tmp_path: Path) -> None:
    def add(body: dict[str, Any]) -> None:
        body["context"] = [{"id": "page 7", "sha256": "a" * 64}]
        body["method"]["plugins"] = [{"name": "audit", "distribution": "audit-kit", "version": "2.0"}]

    told = "\n".join(lines(purify("verify", refiled(written["answer"], add, tmp_path / "more"))))
    assert f"page 7 ({'a' * 64})" in told
    assert "Plugins: audit (audit-kit 2.0)." in told


# Another answer


def answered(written: Mapping[str, Path], place: Path, text: bytes) -> Result:
    place.write_bytes(text)
    return purify("verify", str(written["answer"]), "--answer", str(place))


def test_the_line_break_that_generate_prints_after_an_answer_is_no_part_of_it(
    written: Mapping[str, Path], tmp_path: Path
) -> None:
    assert answered(written, tmp_path / "a", written["text"].read_bytes() + b"\n").exit_code == 0


def test_a_refusal_says_how_the_answer_differs(written: Mapping[str, Path], tmp_path: Path) -> None:
    """It said "that has 67 bytes and the certificate's 66, or another SHA-256" whatever the matter was."""
    text = written["text"].read_bytes()
    other = answered(written, tmp_path / "a", text[:-1] + b"~\n")
    assert (other.exit_code, "the same length" in other.stderr) == (1, True)
    longer = answered(written, tmp_path / "a", text + b"more\n")
    assert f"it has {len(text) + 4} bytes" in longer.stderr
    assert f"the certificate's has {len(text)}" in longer.stderr
    spaced = answered(written, tmp_path / "a", b"\r\n" + text + b"\r\n\r\n")
    assert "differs only in line ends" in spaced.stderr
    assert "stop string" in longer.stderr


# Refusals


def test_a_file_that_was_cut_off_is_said_to_be(written: Mapping[str, Path], tmp_path: Path) -> None:
    whole = written["answer"].read_text("utf-8")
    for length in (1, 60, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_text(whole[:length], "utf-8")
        refused = purify("verify", str(tmp_path / "cut"))
        assert (refused.exit_code, "it is cut off after" in refused.stderr) == (3, True), refused.stderr


def test_a_field_that_was_added_is_said_to_be_unknown(written: Mapping[str, Path], tmp_path: Path) -> None:
    """It was "malformed at issued, which Extra inputs are not permitted"."""
    file = refiled(written["answer"], lambda body: body.update(issued="2026-11-28"), tmp_path / "dated")
    refused = purify("verify", file)
    assert refused.exit_code == 3
    assert "has an unknown field 'issued'; nothing may be added to one" in refused.stderr


def test_a_reformatted_file_sends_its_reader_to_the_original(
    written: Mapping[str, Path], tmp_path: Path
) -> None:
    pretty = json.dumps(json.loads(written["answer"].read_text("utf-8")), indent=2)
    (tmp_path / "pretty").write_text(pretty, "utf-8")
    refused = purify("verify", str(tmp_path / "pretty"))
    assert refused.exit_code == 1
    assert refused.stderr.endswith("do not rely on it, and ask its issuer for the original file\n")


def test_a_false_claim_is_told_beside_what_follows(written: Mapping[str, Path], tmp_path: Path) -> None:
    def boast(body: dict[str, Any]) -> None:
        body["method"].update(guarantee="path", meaning="anything")

    refused = purify("verify", refiled(written["answer"], boast, tmp_path / "boast"))
    assert refused.exit_code == 1
    assert "'path' against 'weights', where 'passage' against 'weights' follows" in refused.stderr
    assert "do not rely on it" in refused.stderr


def test_a_budget_that_is_exceeded_names_the_first_token(written: Mapping[str, Path], tmp_path: Path) -> None:
    """Of a budget so small that the first token which takes anything is too much."""
    from purify_plugins.certificates.figures import tokens_of

    def tighten(body: dict[str, Any]) -> None:
        body["method"]["parameters"]["budget"] = 0.001

    file = refiled(written["answer"], tighten, tmp_path / "tight")
    refused = purify("verify", file)
    assert refused.exit_code == 1
    steps = tokens_of(json.loads(Path(file).read_text("utf-8"))["steps"])
    policy = load_plugins([]).policy("balanced", {"budget": 0.001})
    first = next(count for count in range(len(steps)) if policy.holds(steps[: count + 1]) is False)
    assert f"'balanced' at token {first}, with" in refused.stderr
    assert "though 'passage' is claimed" in refused.stderr


# Writing one

PAIR = ("--llm", str(LLM), "--slm", str(SLM), "--max-tokens", "2")


def test_a_certificate_is_written_over_only_when_that_is_said(tmp_path: Path) -> None:
    """The proof of one answer was lost to the next, without a word."""
    place = tmp_path / "kept.json"
    place.write_text("evidence")
    refused = purify("generate", "The", *PAIR, "--certificate", str(place))
    assert refused.exit_code == 2
    assert "name another, or replace it with --force" in refused.stderr
    assert place.read_text() == "evidence"
    assert purify("generate", "The", *PAIR, "--certificate", str(place), "--force").exit_code == 0
    assert json.loads(place.read_text("utf-8"))["format"] == "purify-certificate/2"
    assert purify("generate", "The", *PAIR, "--certificate", "/dev/null").exit_code == 0


def test_a_seed_without_a_secret_is_said_to_repeat_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--seed` was "Draw the same answer again", which no second process does without a secret."""
    monkeypatch.delenv("PURIFY_SECRET", raising=False)
    told = purify("generate", "The", *PAIR, "--seed", "1")
    assert "note: PURIFY_SECRET is not set, so this seed draws another answer in every process" in told.stderr
    assert "note" not in purify("generate", "The", *PAIR).stderr
    monkeypatch.setenv("PURIFY_SECRET", "s" * 64)
    assert "note" not in purify("generate", "The", *PAIR, "--seed", "1").stderr


def test_a_check_prints_the_digests_that_verify_takes(written: Mapping[str, Path]) -> None:
    facts = json.loads(purify("check", *PAIR, "--json").stdout)
    pins = [f"--{side}-digest={facts[side]['digest']}" for side in ("slm", "llm")]
    assert purify("verify", str(written["answer"]), *pins).exit_code == 0


# Keeping them


def test_the_gateway_page_s_plugin_keeps_every_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code is taken from the page; what it wrote is read back by digest."""
    from types import ModuleType

    page = (Path(__file__).parent.parent / "docs" / "gateway.md").read_text("utf-8")
    code = page.split("# purify_audit.py\n")[1].split("```")[0]
    plugin = ModuleType("purify_audit")
    exec(code, plugin.__dict__)  # the page's own code, which its reader copies
    folder = tmp_path / "proofs"
    monkeypatch.setenv("PURIFY_AUDIT", str(folder))
    plugins = load_plugins([])
    plugins.register(plugin, name="audit")
    llm, slm = (plugins.source({"model": str(model)}) for model in (LLM, SLM))
    writer = Purifier(llm, slm, plugins.policy("balanced"), plugins=plugins)
    answers = writer.generate(["The king", "The miller"], Sampling(max_tokens=3))
    assert {file.stem for file in folder.iterdir()} == {each.certificate.digest for each in answers}
    for each in answers:
        found = purify("verify", str(folder / f"{each.certificate.digest}.json"), "--require", "passage")
        assert found.exit_code == 0
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("no directory")
    with pytest.raises(PluginError, match=r"audit.*failed in purify_completed"):
        writer.generate("The king", Sampling(max_tokens=3))


def test_another_prompt_is_refused_with_what_a_prompt_is(written: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("user: The king", "utf-8")
    refused = purify(
        "verify", str(written["answer"]), "--slm", str(SLM), "--prompt", str(tmp_path / "prompt")
    )
    assert refused.exit_code == 1
    assert "of a chat, that is its messages as the model's template writes them" in refused.stderr
