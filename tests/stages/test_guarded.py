"""A guarded purifier: what is blocked appears nowhere, and every way of asking gets the same text."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.stages.guardian import Guardian
from purify_plugins import Purifier, Sampling
from purify_plugins.errors import RefusedError
from purify_plugins.stages.matches import WordPattern
from purify_plugins.stages.options import RequestOptions
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Stage
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ScriptedSource, ToySource, byte_vocabulary, letters
from purify_plugins.types import Chunk, Completion, Refused

BYTES = byte_vocabulary()
SAYS = b"It is a bad  thing to say, and more."
SETTINGS = Sampling(max_tokens=60, temperature=0, seed=1)
ERRORS = RequestOptions()
TEXTS = RequestOptions(on_refusal="text", refusals={"default": "No.", "guardian": "I'd rather not."})


def guarded(
    guardian: Guardian, slm: bytes = SAYS, request: RequestOptions = ERRORS, llm: bytes = SAYS
) -> Purifier:
    """An LLM that is sure of its text, an SLM that is sure of its own; the LLM is nearly alone."""
    sources = ScriptedSource(BYTES, llm), ScriptedSource(BYTES, slm)
    return Purifier.load(*sources, "linear", weight=0.99, stages=[guardian], request=request)


def shown(chunks: list[Chunk]) -> str:
    """All that chunks carry as text, wherever in them; tokens by what they spell."""
    found = [chunk.text + "".join(text for _, text in chunk.drawn) for chunk in chunks]
    spelled = [BYTES.spell([token.id for token in chunk.steps]).decode() for chunk in chunks]
    whole = [chunk.completion for chunk in chunks if chunk.completion]
    rest = [f"{each.text} {BYTES.spell(each.tokens).decode()} {each.certificate.text}" for each in whole]
    return " ".join([*found, *spelled, *rest])


def streamed(
    purifier: Purifier, prompt: str = "hello", sampling: Sampling = SETTINGS
) -> tuple[list[Chunk], RefusedError | None]:
    """An answer's chunks, and the refusal that ended it."""
    chunks: list[Chunk] = []
    try:
        for chunk in purifier.stream(prompt, sampling):
            chunks.append(chunk)  # those before an error count
    except RefusedError as error:
        return chunks, error
    return chunks, None


GUARDIANS: dict[str, Callable[[], Guardian]] = {
    "words": lambda: Guardian(words=("bad",), on=("out",)),
    "regex": lambda: Guardian("regex", pattern="ba[dt]", window=12, stride=4, on=("out",)),
    "scores": lambda: Guardian(Bad(), window=12, stride=4, on=("out",)),
}


class Bad:
    """Scores a text by whether something bad is in it."""

    def scores(self, texts: Any) -> list[float]:
        return [float("bad" in text) for text in texts]


@pytest.mark.parametrize("kind", GUARDIANS)
def test_nothing_of_a_blocked_span_is_in_a_chunk_a_log_or_an_error(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    purifier = guarded(GUARDIANS[kind]())
    chunks, error = streamed(purifier)
    assert error is not None
    assert error.key == "guardian"
    text = "".join(chunk.text for chunk in chunks)
    assert b"It is a ".decode().startswith(text)
    assert kind != "words" or text == "It is a "
    assert not any(chunk.completion for chunk in chunks)
    assert "bad" not in shown(chunks) + str(error) + repr(error) + caplog.text
    with pytest.raises(RefusedError, match="blocked"):
        purifier.generate("hello", SETTINGS)


@pytest.mark.parametrize("kind", GUARDIANS)
async def test_every_way_of_asking_gets_the_operator_s_text(kind: str) -> None:
    purifier = guarded(GUARDIANS[kind](), request=TEXTS)
    [answer] = purifier.generate("hello", SETTINGS)
    assert answer.finish_reason == "refused"
    assert answer.text.endswith("I'd rather not.")
    assert "It is a ".startswith(answer.text.removesuffix("I'd rather not."))
    chunks, error = streamed(purifier)
    assert error is None
    assert "bad" not in shown(chunks)
    batch = purifier.generate(["hello", "another"], SETTINGS)
    [awaited] = await purifier.agenerate("hello", SETTINGS)
    later = [chunk async for chunk in purifier.astream("hello", SETTINGS)]
    texts = [each.text for each in (*batch, awaited)]
    texts += ["".join(chunk.text for chunk in each) for each in (chunks, later)]
    assert set(texts) == {answer.text}
    for each in (*chunks, *later):
        assert each.text == "".join(text for _, text in each.pieces)


def test_a_request_that_is_refused_leaves_its_neighbours_their_answers() -> None:
    guardian = Guardian(words=("bomb",))
    purifier = guarded(guardian)
    one, two, three = purifier.generate(["hello", "a bomb", "how are you"], SETTINGS)
    assert isinstance(two, Refused)
    assert two.error.key == "guardian"
    assert (one.text, three.text) == (SAYS.decode(), SAYS.decode())
    said = guarded(guardian, request=TEXTS).generate(["hello", "a bomb"], SETTINGS)
    assert [each.text for each in said] == [SAYS.decode(), "I'd rather not."]
    assert isinstance(said[1], Completion)
    assert (said[1].tokens, said[1].finish_reason) == ((), "refused")


def test_a_blocked_span_is_written_again_by_the_slm_alone() -> None:
    slm = b"It is a good thing to hear, and more."
    purifier = guarded(Guardian(words=("bad",), redo=1, on=("out",)), slm)
    [answer] = purifier.generate("hello", SETTINGS, errors="raise")
    chunks, error = streamed(purifier)
    assert error is None
    assert answer.text == "".join(chunk.text for chunk in chunks)
    assert answer.text == "It is a good thing to say, and more."
    assert "bad" not in shown(chunks)
    with pytest.raises(RefusedError):  # the SLM alone writes it again
        guarded(Guardian(words=("bad",), redo=1, on=("out",))).generate("hello", SETTINGS)


def test_an_answer_that_no_check_blocks_is_what_it_is_without_a_guardian() -> None:
    slm = ToySource(BYTES, 1)
    llm = ToySource(BYTES, 2)
    sampling = Sampling(max_tokens=80, seed=3)
    plain = Purifier.load(llm, slm, "geometric")
    guardian = Guardian(words=("a phrase that a toy does not write",))
    found = plain.replace(stages=[guardian]).generate(["hello", "another"], sampling)
    assert [each.text for each in found] == [
        each.text for each in plain.generate(["hello", "another"], sampling)
    ]


def test_the_slm_s_odds_guard_both_sides() -> None:
    question = "Is it harmful?"
    yes = guarded(Guardian("slm", question=question), slm=b"Yes")
    with pytest.raises(RefusedError, match="refuses this request"):
        yes.generate("hello", SETTINGS)
    out = guarded(Guardian("slm", question=question, on=("out",), window=8, stride=4), slm=b"Yes")
    with pytest.raises(RefusedError, match="blocked"):
        out.generate("hello", SETTINGS)
    fine = guarded(Guardian("slm", question=question, window=8, stride=4), slm=b"No", llm=b"a fine text")
    assert fine.generate("hello", SETTINGS)[0].text == "a fine text"


def test_four_lines_of_purify_toml_guard_a_purifier(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("king\n", "utf-8")
    (tmp_path / "purify.toml").write_text(
        f"""
        llm = {{ model = "{LLM}" }}
        slm = {{ model = "{SLM}" }}

        [[stage]]
        name = "guardian"
        file = "words.txt"
        key = "rude"

        [request]
        on_refusal = "text"
        refusals = {{ default = "No.", rude = "Not of kings." }}
        """,
        "utf-8",
    )
    purifier = Purifier.from_config(tmp_path / "purify.toml")
    assert [stage.holds_back for stage in purifier.stages] == [4]
    [asked] = purifier.generate("The king had", max_tokens=4)
    assert asked.text == "Not of kings."


@dataclass(frozen=True)
class Reading(Stage):
    """Reads its draft as a number, which it is not; the error quotes the draft."""

    def answer(self, request: Request) -> Answer:
        draft = yield request
        int(draft.text)
        return draft


def test_an_error_of_a_stage_does_not_quote_the_draft_that_it_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sources = ScriptedSource(BYTES, SAYS), ScriptedSource(BYTES, SAYS)
    purifier = Purifier.load(*sources, "linear", stages=[Reading()])
    with pytest.raises(
        RefusedError, match=r"Reading failed with ValueError in test_guarded.py, line \d+$"
    ) as refused:
        purifier.generate("hello", SETTINGS)
    written = "".join(traceback.format_exception(refused.value))
    assert "bad" not in written + caplog.text


FEW = letters("ab c")
WORDS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=2, unique=True)


@settings(max_examples=15)
@given(WORDS, st.integers(0, 2), st.integers(0, 99), st.sampled_from(["", "cab", " c"]), st.booleans())
def test_no_random_answer_holds_a_blocked_word_and_a_stream_is_what_generate_returns(
    words: list[str], redo: int, seed: int, stop: str, said: bool
) -> None:
    """Of toys that write a few letters at random, so that words are blocked, written again and cut short."""
    guardian = Guardian(words=tuple(words), redo=redo, on=("out",))
    sources = ToySource(FEW, seed), ToySource(FEW, seed + 100)
    request = RequestOptions(on_refusal="text", refusals={"default": "!"}) if said else ERRORS
    purifier = Purifier.load(*sources, "geometric", stages=[guardian], request=request)
    sampling = Sampling(max_tokens=24, seed=seed, stop=(stop,) if stop else (), ignore_eos=True)
    chunks, error = streamed(purifier, "a", sampling)
    whole = None
    try:
        [whole] = purifier.generate("a", sampling)
    except RefusedError as found:
        refusal = str(found)
        assert error is not None, refusal
    text = "".join(chunk.text for chunk in chunks)
    assert (whole is None) == (error is not None)
    assert whole is None or whole.text == text
    blocked = error is not None or (whole is not None and whole.finish_reason == "refused")
    assert not blocked or said == (error is None)
    # After a block what is released may end in the middle of a word.
    shown_text = text.removesuffix("!") + ("a" if blocked else "")
    assert not WordPattern(words).pattern.search(shown_text)
