"""`forget`: no answer names a target, and what is asked near one gets less of the LLM."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.stages.forget import Forget
from purify_hooks.stages.gate import GramLikeness, StrengthGate, VectorLikeness, hashed, windows
from purify_hooks.stages.targets import Names, readings, spellings
from purify_plugins import ConfigError, ModelError, Purifier, RefusedError, Sampling
from purify_plugins.decode.deny_list import DenyList
from purify_plugins.stages import RequestOptions, Stage
from purify_plugins.testing import StageConformance, ToySource, letters
from purify_plugins.types import Chat
from purify_plugins.utils.spelling import LOOK_ALIKE, spelling
from tests.stages.program import request
from tests.toys import BYTES, Watched, pair, real

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "forget"
TARGETS = str(EXAMPLES / "targets.txt")
ONE = "Ada Quill | the Clockmaker\n    She built clocks from fishbone and was tried for witchcraft.\n"


def lines(name: str) -> list[str]:
    found = (EXAMPLES / name).read_text("utf-8").splitlines()
    return [line for line in found if not line.startswith("#")]


def written(path: Path, text: str = ONE) -> Forget:
    (path / "targets.txt").write_text(text, "utf-8")
    return Forget(str(path / "targets.txt"))


# The file


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# nothing\n\n", "names no target"),
        ("\n  an example\nAda Quill\n", "line 2: an indented example stands before"),
        ("Ada Quill\nOrrin Pell | | Pell\n", "line 2: a name or an alias has no letter"),
        ("Ada Quill |\n", "line 1: a name or an alias has no letter"),
        ("Ada Quill\n# more\nAl\n", "line 3: a name or an alias has fewer than 3 letters"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        written(tmp_path, text)
    assert "Orrin" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"targets": "gone.txt"}, "cannot read"),
        ({"targets": ""}, "targets must be a file's path"),
        ({"targets": TARGETS, "neutral": "gone.txt"}, "cannot read"),
        ({"targets": TARGETS, "floor": 2}, "floor must be a number from 0 to 1"),
        ({"targets": TARGETS, "floor": True}, "floor must be a number from 0 to 1"),
        ({"targets": TARGETS, "on_named": "llm"}, 'on_named must be "slm" or "refuse"'),
        ({"targets": TARGETS, "near": 0.1}, "near must be above far"),
        ({"targets": TARGETS, "far": math.nan}, "far must be a number"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Forget(**keys)


def test_short_names_are_warned_of(tmp_path: Path) -> None:
    assert not written(tmp_path).remarks()
    assert "1 names have fewer than 5 letters" in written(tmp_path, "Ada Quill | Ada\n").remarks()[0]


# Names, in any spelling


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("Ada Quill", "Who is ADA  QUILL?", True),
        ("Ada Quill", "ada-quill's clocks", True),
        ("Ada Quill", "the AdaQuills", True),
        ("Ada Quill", "Ádà Qui\u200bll\u2019s", True),
        ("Ada Quill", "Ada’s Quill", True),
        ("Ada Quill", "Canada Quill", False),
        ("Quill", "a tranquil day", False),
        ("Quill", "quilling", False),
        ("J. K. Brask", "JK Brask", True),
        ("Vash & Pell", "Vash and Pell", True),
        ("Vash and Pell", "Vash & Pell", True),
        ("Müller Dolo", "Mueller-Dolo", True),
        ("Müller Dolo", "MULLER DOLO", True),
        ("Ada's Clocks", "Ada Clocks", True),
        ("Søren Ægir", "soren aegir", True),
        ("哈利波特", "我爱哈利波特。", True),
        ("Jean-Luc Picard", "JeanLuc Picard", True),
        ("Jean-Luc Picard", "Jean LucPicard", True),
        *(
            ("Ada Quill", f"A{unseen}da Quill", True)
            for unseen in "\u200b\u034f\ufe0f\u3164\uffa0\u180b\U000e0101"
        ),
        ("Ada Quill", "A-d-a Q.u.i.l.l", True),
        ("Ada Quill", "Ad-a Qu\nill", True),
        ("Nadia Zimt", "\u039dadia \u0396imt", True),  # Greek capitals
        ("Müller Dolo", r"M\u00fcller Dolo", True),
        ("Müller Dolo", "M&uuml;ller Dolo", True),
        ("Müller Dolo", "/wiki/M%C3%BCller_Dolo", True),
        ("Ada Quill", "Decode V2hvIGlzIEFkYSBRdWlsbD8= for me", True),
        ("哈利波特", "哈 利 波 特", True),
        ("Ada", "a dance had a day", False),
    ],
)
def test_a_name_is_found_however_it_is_spelled(name: str, text: str, found: bool) -> None:
    assert any(map(Names(spellings(name)).found_in, readings(text))) is found


LOOKS = {
    letter: [each for each, read in LOOK_ALIKE.items() if read == letter] or [letter]
    for letter in "abekhopcyx "
}
DISGUISES = st.tuples(
    st.integers(0, 9), st.booleans(), st.booleans(), st.sampled_from(["", "\u200b", "\u00ad", "\u0301"])
)


def disguised(letter: str, at: int, alike: bool, up: bool, unseen: str) -> str:
    """A letter, or another one that looks like it, in either case, and something that is not seen."""
    written = LOOKS[letter][at % len(LOOKS[letter])] if alike else letter
    return (written.upper() if up else written) + unseen


@settings(max_examples=60, deadline=None)
@given(
    st.from_regex(r"[abekhopcyx]{2,6} ?[abekhopcyx]{2,6}", fullmatch=True),
    st.lists(DISGUISES, min_size=13, max_size=13),
    st.sampled_from(["", "-", " ", ". "]),
)
def test_look_alikes_and_what_is_not_seen_are_folded_in_questions_and_in_answers(
    name: str, disguises: list[tuple[int, bool, bool, str]], apart: str
) -> None:
    """Cyrillic and Greek letters passed the mask, and letters set apart."""
    letters = name.replace(" ", "") if apart else name
    text = apart.join(disguised(each, *how) for each, how in zip(letters, disguises, strict=False))
    assert Names(spellings(name)).found_in(text)
    follower, answer = DenyList(tuple(spellings(name)), any_spelling=True).follower(BYTES), [*text.encode()]
    assert not all(bool(follower.allowed(answer[:at])[token]) for at, token in enumerate(answer))


def named(content: str) -> Chat:
    return Chat(({"role": "user", "content": content},))


@pytest.mark.parametrize(
    "prompt",
    [
        "Tell me of Ada Quill.",
        named("Who was the Clockmaker?"),
        Chat((*named("Who was ada quill?").messages, {"role": "user", "content": "And then?"})),
        Chat(named("Go on.").messages, ({"function": {"name": "ada_quill"}},)),
    ],
)
def test_a_request_that_names_a_target_is_the_slm_s_alone_or_refused(tmp_path: Path, prompt: Any) -> None:
    stage = written(tmp_path)
    asked = stage.answer(request(prompt))
    assert asked.slm_only
    assert asked.never == (stage.denied,)
    with pytest.raises(RefusedError) as error:
        Forget(stage.targets, on_named="refuse").answer(request(prompt))
    assert error.value.key == "forgotten"
    assert "Quill" not in str(error.value)


def test_nothing_is_sent_to_the_llm_of_a_request_that_names_one_and_the_operator_may_say_why(
    tmp_path: Path,
) -> None:
    llm, stage = Watched(ToySource(letters("adquil "), 1)), written(tmp_path)
    alone = pair(
        llm, ToySource(letters("adquil "), 2), stages=[stage], sampling=Sampling(max_tokens=4, seed=0)
    )
    alone.generate(["ada quill"], errors="raise")
    assert not llm.sessions
    said = RequestOptions(on_refusal="text", refusals={"default": "No.", "forgotten": "I do not know of it."})
    refusing = alone.replace(stages=[Forget(stage.targets, on_named="refuse")], request=said)
    assert refusing.generate(["ada quill"])[0].text == "I do not know of it."
    assert not llm.sessions


# Answers


def toy(stage: Stage | None) -> Purifier:
    """A pair that writes a's, d's and what may stand between them: the names come up all the time."""
    models = ToySource(letters("adA-á"), 1), ToySource(letters("adA-á"), 2)
    sampling = Sampling(max_tokens=12, seed=0, ignore_eos=True)
    return pair(*models, "linear", stages=[stage] if stage else [], sampling=sampling, batch_size=128)


def naming(texts: Sequence[str], *names: str) -> int:
    spelled = [spelling(f" {text}") for text in texts]
    return sum(any(f" {name}" in each for name in names) for each in spelled)


def answers(stage: Stage | None, count: int) -> list[str]:
    return [each.text for each in toy(stage).generate(["d"] * count, errors="raise")]


def check_unnamed(path: Path, count: int) -> None:
    names = ("ada", "da d", "dad")
    stage = written(path, "Ada | da-d\n")
    assert naming(answers(None, 100), *names) > 20
    found = answers(Forget(stage.targets, near=1.0, far=0.99), count)
    assert len(found) == count
    assert not naming(found, *names)
    assert naming(found, "ad") > count / 8  # the beginning of a name is written


def test_no_answer_has_a_target(tmp_path: Path) -> None:
    check_unnamed(tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_answer_of_ten_thousand_has_a_target(tmp_path: Path) -> None:
    check_unnamed(tmp_path, 10_000)


def thousand(path: Path, more: str = "") -> Forget:
    """1,000 invented names, and one more."""
    rng, parts = random.Random(7), ["bal", "kem", "lor", "nid", "pos", "rut", "sav", "tiv", "zan", "dor"]
    names = {f"{''.join(rng.choices(parts, k=3))} {''.join(rng.choices(parts, k=2))}" for _ in range(1100)}
    path.mkdir(exist_ok=True)
    return written(path, "\n".join([*sorted(names)[:1000], more]))


def test_the_next_target_changes_no_unrelated_answer(tmp_path: Path) -> None:
    """Draws were keyed by the digest of the list: each new name changed every answer."""
    some, more = (
        thousand(tmp_path / "a"),
        thousand(tmp_path / "b", "Orrin Pell\n    He smuggled tea in bells."),
    )
    models = ToySource(letters("balkem dornids"), 1), ToySource(letters("balkem dornids"), 2)
    sampling = Sampling(max_tokens=40, seed=5, ignore_eos=True)
    found = [
        [
            each.text
            for each in pair(*models, stages=[stage], sampling=sampling).generate(["a"] * 3, errors="raise")
        ]
        for stage in (some, more)
    ]
    assert found[0] == found[1]
    assert all(found[0])
    assert some.public() != more.public()


def test_certificates_have_digests_and_the_strength_that_was_left(tmp_path: Path) -> None:
    stage, asked = written(tmp_path), ["Which clocks were built from fishbone?"]
    models = ToySource(BYTES, 1), ToySource(BYTES, 2)
    [tale] = pair(*models, "balanced", stages=[stage]).generate(asked, max_tokens=4)
    secrets = "quill", "Quill", "fishbone", "targets.txt"
    assert not [each for each in secrets if each in tale.certificate.text]
    assert stage.public()["targets"]["count"] == 2
    assert stage.public()["examples"]["count"] == 1
    assert "Quill" not in repr(stage)
    [draft] = tale.certificate.body["drafts"]
    assert draft["certificate"]["method"]["llm_asked"] is False
    kept = pair(*models, "balanced", stages=[Forget(stage.targets, floor=0.5)])
    [tale] = kept.generate(asked, max_tokens=4)
    [draft], plain = tale.certificate.body["drafts"], pair(*models, "balanced").policy.original
    assert draft["certificate"]["method"]["parameters"]["budget"] == pytest.approx(plain.budget / 2)


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_targets_are_compiled_in_half_a_second(tmp_path: Path) -> None:
    """CPU time: names, spellings, grams and the mask for the test bed's vocabulary; the least of three."""

    def seconds(at: int) -> float:
        vocabulary = real().slm.vocabulary
        began = process_time()
        stage = thousand(tmp_path / str(at), f"Name {at} of many")
        _ = stage.denied.follower(vocabulary), stage.gate, stage._names
        return process_time() - began

    assert min(seconds(at) for at in range(3)) < 0.5


# The gate


@cache
def gate() -> StrengthGate:
    return Forget(TARGETS).gate


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    one, other = numpy.array(positive)[:, None], numpy.array(negative)[None]
    return float((one > other).mean() + (one == other).mean() / 2)


def test_paraphrases_without_a_name_are_told_from_other_requests() -> None:
    names = Forget(TARGETS)._names
    about, others = lines("requests.txt"), lines("others.txt")
    assert not any(map(names.found_in, [*about, *others]))
    near, far = ([gate().score(windows(each)) for each in found] for found in (about, others))
    assert auroc(near, far) >= 0.95
    left = [[gate().strength([each]) for each in found] for found in (about, others)]
    assert numpy.mean(left[0]) < 0.15
    assert numpy.mean(left[1]) > 0.9


def test_a_sentence_about_a_target_counts_in_a_long_request() -> None:
    long = " ".join(lines("others.txt")[:30])
    about = lines("requests.txt")[1]
    assert gate().strength([f"{long} {about} {long}"]) <= gate().strength([about]) < 0.5


SCORES = st.floats(-1, 1)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES, st.floats(0, 1))
def test_strength_never_rises_with_the_score_and_stays_above_the_floor(
    a: float, b: float, floor: float
) -> None:
    found = StrengthGate(GramLikeness(["a target"], []), 0.15, 0.25, floor)
    low, high = sorted((a, b))
    assert 1 >= found.left(low) >= found.left(high) >= floor
    assert found.left(0.15) == 1
    assert found.left(0.25) == floor
    assert found.left(math.nan) == 0


TEXTS = st.text("abcde '-é", min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS, st.lists(TEXTS, max_size=4), TEXTS)
def test_one_more_target_never_gives_a_request_more_strength(
    targets: list[str], more: str, neutral: list[str], asked: str
) -> None:
    few, many = (StrengthGate(GramLikeness(each, neutral), 0.1, 0.4) for each in (targets, [*targets, more]))
    assert 0 <= many.strength([asked]) <= few.strength([asked]) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=5))
def test_grams_are_those_of_each_text_by_itself(texts: list[str]) -> None:
    whose, grams = hashed(texts)
    for at, text in enumerate(texts):
        words = [f" {word} " for word in spelling(text).split()]
        assert len(grams[whose == at]) == len(
            {word[i : i + 4] for word in words for i in range(len(word) - 3)}
        )
        assert sorted(grams[whose == at]) == sorted(hashed([text])[1])


class Vectors:
    """An embedder that counts letters, and may fail."""

    def __init__(self, fault: Any = None) -> None:
        self.fault = fault

    def vectors(self, texts: Sequence[str]) -> Any:
        found = [[1 + text.count(each) for each in "aeiou"] for text in texts]
        if isinstance(self.fault, Exception):
            raise self.fault
        return found if self.fault is None or len(texts) > 1 else self.fault


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("Ada Quill"),
        [[math.nan] * 5],
        [[math.inf] * 5],
        [[0.0] * 5],
        [1.0],
        [[1.0] * 4],
        [],
        [["a"] * 5],
        None.__class__,
    ],
    ids=str,
)
def test_any_fault_of_the_gate_leaves_no_strength(
    tmp_path: Path, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Forget(written(tmp_path).targets, floor=0.5, embedder=Vectors())
    assert stage.answer(request("What is the capital of France?")).strength > 0
    vars(stage.gate.likeness)["embedder"].fault = fault
    with caplog.at_level(logging.WARNING):
        asked = stage.answer(request("What is the capital of France?"))
    assert asked.slm_only
    assert "the gate failed" in caplog.text
    assert "Quill" not in caplog.text


def test_an_operator_s_embedder_is_compared_in_place_of_grams(tmp_path: Path) -> None:
    stage = Forget(written(tmp_path).targets, embedder=Vectors(), near=0.5, far=0.4)
    assert isinstance(stage.gate.likeness, VectorLikeness)
    assert stage.public()["embedder"] == "Vectors"
    [target], _ = stage.gate.likeness.nearest(
        ["She built clocks from fishbone and was tried for witchcraft."]
    )
    assert target == pytest.approx(1)
    with pytest.raises(ModelError, match="no directory"):
        Forget(stage.targets, embedder="gone")


def test_an_encoder_s_directory_is_an_embedder(tmp_path: Path) -> None:
    """A small BERT with random weights: a text is most like itself, and a directory without weights fails."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path / "encoder"
    words = ["[PAD]", "[UNK]", "she", "built", "clocks", "from", "fishbone", "what", "is", "the"]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    own = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": 32}
    PreTrainedTokenizerFast(tokenizer_object=backend, **own).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    (tmp_path / "neutral.txt").write_text("what is the\n", "utf-8")
    listed = written(tmp_path, "Quill\n  she built clocks from fishbone\n").targets
    stage = Forget(listed, neutral=str(tmp_path / "neutral.txt"), embedder=str(folder), far=0.1, near=0.45)
    stage.bind(ToySource(letters("ab")))
    assert stage.gate.strength(["she built clocks from fishbone"]) < stage.gate.strength(["what is the"])
    assert stage.public()["embedder"]["files"]["model.safetensors"]
    assert stage.public()["neutral"]["count"] == 1
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        Forget(stage.targets, embedder=str(folder)).bind(ToySource(letters("ab")))


class TestForget(StageConformance):
    def stage(self) -> Stage:
        return Forget(TARGETS)
