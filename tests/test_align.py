"""Alignment: one language in other ids gives the same rows; another language is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from zlib import crc32

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purify_plugins.errors import PromptError, VocabularyError
from purify_plugins.protocols import LogitSource
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.tokenizers.vocabulary_map import RemappedSource, align
from purify_plugins.types import Chat, Prompt, ScoredPrompt, Vocabulary
from tests.tokenizer_files import spelled

END, TURN = "<|endoftext|>", "<|im_end|>"


def words(
    *tokens: str, eos: Sequence[str] = (END,), added: Sequence[str] = (), name: str = "toy"
) -> Vocabulary:
    """A vocabulary of letters and `<control>` tokens, in this order."""
    control = {i: token for i, token in enumerate(tokens) if token.startswith("<")}
    return Vocabulary(
        tuple(b"" if i in control else token.encode() for i, token in enumerate(tokens)),
        frozenset(tokens.index(end) for end in eos),
        control,
        frozenset(tokens.index(token) for token in added),
        name,
    )


@dataclass(frozen=True)
class Speaker:
    """One language model whatever its ids: a logit follows from names alone."""

    vocabulary: Vocabulary
    context_length: int | None = 99

    def name(self, token: int) -> str:
        return self.vocabulary.control.get(token, self.vocabulary.tokens[token].decode())

    def logits(self, read: Sequence[int]) -> Tensor:
        context = "|".join(map(self.name, read))
        names = map(self.name, range(len(self.vocabulary)))
        return torch.tensor([crc32(f"{context}>{name}".encode()) / 2**30 for name in names])

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Speech, Tensor]:
        speech = Speech(self, [self.encode(prompt) for prompt in prompts], scored)
        return speech, torch.stack([self.logits(row) for row in speech.rows])

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, Chat):  # every message ends its turn
            texts = ["".join((message["content"], TURN)) for message in prompt.messages]
            return tuple(token for text in texts for token in self.encode(text))
        if isinstance(prompt, tuple):
            return prompt
        turn = prompt.endswith(TURN)
        ids = {self.name(token): token for token in range(len(self.vocabulary))}
        return tuple(ids[name] for name in [*prompt.removesuffix(TURN), *[TURN] * turn])

    def identity(self) -> Mapping[str, Any]:
        return {"name": self.vocabulary.name}


class Speech:
    """The rows a Speaker has read."""

    def __init__(self, speaker: Speaker, rows: Sequence[tuple[int, ...]], scored: int) -> None:
        self.speaker = speaker
        self.rows = [list(row) for row in rows]
        self.prompts = [ScoredPrompt(row, (-1.0,) * min(scored, len(row) - 1)) for row in rows]
        self.closed = False

    def extend(self, tokens: Tensor) -> Tensor:
        return torch.stack(
            [self._extend(row, new) for row, new in zip(self.rows, tokens.tolist(), strict=True)]
        )

    def _extend(self, row: list[int], new: Sequence[int]) -> Tensor:
        start = len(row)
        row += new
        return torch.stack([self.speaker.logits(row[: at + 1]) for at in range(start, len(row))])

    def rewind(self, lengths: Tensor) -> None:
        for row, prompt, length in zip(self.rows, self.prompts, lengths.tolist(), strict=True):
            del row[len(prompt.tokens) + length :]

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def first(source: LogitSource, prompt: Prompt = "ab") -> Tensor:
    """The first row's logits (V,)."""
    return source.open([prompt])[1][0]


def mass(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    return logits[list(tokens)].logsumexp(-1)


BASE = words("a", "b", "c", "<pad>", END)


def test_models_with_one_vocabulary_are_returned_as_they_are() -> None:
    llm, slm = Speaker(BASE), Speaker(replace(BASE, name="another name"))
    assert align(llm, slm) == (llm, slm)


@given(st.permutations(["a", "b", "c", "d", "<pad>", TURN, END]), st.lists(st.integers(0, 6), min_size=1))
def test_a_model_in_permuted_ids_says_the_same(order: Sequence[str], answer: list[int]) -> None:
    slm = Speaker(words(*sorted(order), eos=(TURN, END)))
    llm, same = align(Speaker(words(*order, eos=(TURN, END))), slm)
    assert same is slm
    assert llm.vocabulary.fingerprint == slm.vocabulary.fingerprint
    theirs, ours = llm.open(["ab", "c"]), slm.open(["ab", "c"])
    assert torch.equal(theirs[1], ours[1])
    assert theirs[0].prompts == ours[0].prompts
    tokens = torch.tensor([answer, answer[::-1]])
    assert torch.equal(theirs[0].extend(tokens), ours[0].extend(tokens))


def test_rewinding_forgets_in_the_models_own_session() -> None:
    llm, slm = align(Speaker(words(END, "b", "a", "<pad>", "c")), Speaker(BASE))
    sessions = [source.open(["a", "bc"])[0] for source in (llm, slm)]
    for session in sessions:
        session.extend(torch.tensor([[0, 1, 2], [2, 1, 0]]))
        session.rewind(torch.tensor([1, 2]))
    rows = [session.extend(torch.tensor([[2], [2]])) for session in sessions]
    assert torch.equal(*rows)


def test_padding_is_left_out() -> None:
    padded = words("a", "b", "c", "<pad>", END, "<unused 5>", "<unused 6>")
    llm, slm = align(Speaker(padded), Speaker(BASE))
    assert slm.vocabulary is BASE
    assert torch.equal(first(llm), first(slm))


def test_an_added_token_of_the_llm_is_left_out() -> None:
    llm, slm = align(Speaker(words("d", "a", "b", "c", "<pad>", END, added=["d"])), Speaker(BASE))
    assert torch.equal(first(llm), first(slm))


def test_an_added_token_of_the_slm_is_left_out_of_both() -> None:
    more = words("d", "a", "<tool>", "b", "c", END, "<pad>", added=["d"])
    llm, slm = align(Speaker(BASE), Speaker(more))
    assert llm.vocabulary is slm.vocabulary
    assert llm.vocabulary.tokens == (b"a", b"b", b"c", b"", b"")
    assert llm.vocabulary.control == {3: END, 4: "<pad>"}
    assert llm.vocabulary.eos == {3}
    assert torch.equal(first(llm), first(slm))
    assert torch.equal(first(slm, "abc"), Speaker(more).logits([1, 3, 4])[[1, 3, 4, 5, 6]])


def test_a_prompt_token_that_is_not_shared_is_marked() -> None:
    _, slm = align(Speaker(BASE), Speaker(words("d", "a", "b", "c", "<pad>", END, added=["d"])))
    session, _ = slm.open(["add"], scored=2)
    assert session.prompts == [ScoredPrompt((0, -2, -2), (-1.0, -1.0))]


def test_a_prompt_of_ids_is_in_shared_ids() -> None:
    llm, slm = align(Speaker(words(END, "b", "a", "<pad>", "c")), Speaker(BASE))
    assert torch.equal(first(llm, (0, 1)), first(slm, "ab"))


@pytest.mark.parametrize("token", [-1, 5])
def test_a_prompt_of_ids_that_are_not_shared_is_refused(token: int) -> None:
    llm, _ = align(Speaker(words(END, "b", "a", "<pad>", "c")), Speaker(BASE))
    with pytest.raises(PromptError, match=f"the prompt holds token {token}, which the models do not share"):
        llm.open([(0, token)])


def test_namesakes_are_matched_in_order() -> None:
    """SentencePiece spells a space as a byte and as a piece; both ids must stay themselves."""
    theirs = Vocabulary((b" ", b"a", b" ", b""), frozenset({3}), {3: END})
    ours = Vocabulary((b"a", b"", b" ", b" "), frozenset({1}), {1: END})
    llm, _ = align(Speaker(theirs), Speaker(ours))
    assert isinstance(llm, RemappedSource)
    assert llm.columns == (1, 3, 0, 2)


def test_a_namesake_added_later_is_matched_last() -> None:
    """NeoX adds runs of spaces that it has already; the one it was trained with is the shared one."""
    theirs = Vocabulary((b" ", b" ", b""), frozenset({2}), {2: END}, frozenset({0}))
    ours = Vocabulary((b" ", b""), frozenset({1}), {1: END})
    llm, _ = align(Speaker(theirs), Speaker(ours))
    assert isinstance(llm, RemappedSource)
    assert llm.columns == (1, 2)


CHAT = words("a", "b", "c", "<pad>", TURN, eos=[TURN])


def test_models_that_end_differently_end_together() -> None:
    llm, _ = align(Speaker(CHAT), Speaker(BASE))
    assert torch.equal(first(llm), first(Speaker(CHAT)))


def test_the_end_has_the_mass_of_every_end() -> None:
    theirs = words("a", TURN, "b", "<|eot|>", "c", "<pad>", eos=[TURN, "<|eot|>"])
    llm, _ = align(Speaker(theirs), Speaker(BASE))
    torch.testing.assert_close(first(llm)[4], mass(first(Speaker(theirs)), [1, 3]))
    torch.testing.assert_close(mass(first(llm), range(5)), mass(first(Speaker(theirs)), range(6)))


def test_an_end_of_the_slm_that_the_llm_lacks_has_no_mass() -> None:
    ours = words("a", "b", "c", "<pad>", END, "<|eot|>", eos=[END, "<|eot|>"])
    llm, _ = align(Speaker(CHAT), Speaker(ours))
    row = first(llm)
    assert row.isneginf().tolist() == [False] * 5 + [True]
    torch.testing.assert_close(mass(row, range(6)), mass(first(Speaker(CHAT)), range(5)))


def test_ends_of_one_name_keep_their_own_mass() -> None:
    ours = words("a", "b", "c", "<pad>", END, TURN, eos=[END, TURN])
    theirs = words(TURN, "<|eot|>", END, "a", "b", "c", "<pad>", eos=[TURN, "<|eot|>", END])
    own = first(Speaker(theirs))
    row = first(align(Speaker(theirs), Speaker(ours))[0])
    assert row[5] == own[0]
    torch.testing.assert_close(row[4], mass(own, [1, 2]))
    assert torch.equal(row[:4], own[3:])


def test_an_end_moves_away_from_its_own_name() -> None:
    """A base SLM knows <|im_end|> but does not end with it: its mass must not be counted twice."""
    ours, theirs = (words("a", "b", "c", "<pad>", TURN, END, eos=[end]) for end in (END, TURN))
    row, own = first(align(Speaker(theirs), Speaker(ours))[0]), first(Speaker(theirs))
    torch.testing.assert_close(row[5], mass(own, [4, 5]))
    assert row[4] == -torch.inf
    torch.testing.assert_close(mass(row, range(6)), mass(own, range(6)))


def test_a_prompts_turns_are_read_alike_whoever_ends_with_them() -> None:
    ours, theirs = words("a", END, "b", TURN), words(TURN, "a", "b", END, eos=[TURN])
    chat = Chat(({"role": "user", "content": "ab"},))
    read = [source.open([chat])[0].prompts for source in align(Speaker(theirs), Speaker(ours))]
    assert read[0] == read[1] == [ScoredPrompt((0, 2, 3))]


def test_an_end_that_the_llm_lacks_is_read_as_its_own_end() -> None:
    llm, _ = align(Speaker(CHAT), Speaker(BASE))
    session, _ = llm.open(["a"])
    after = session.extend(torch.tensor([[4, 1]]))
    assert torch.equal(after[0, 1], Speaker(CHAT).logits([0, 4, 1]))


def test_an_end_for_an_slm_without_one_is_left_out() -> None:
    llm, slm = align(Speaker(BASE), Speaker(words("a", "b", "c", eos=[])))
    assert torch.equal(first(llm), first(slm))


def test_a_wrapped_model_is_still_itself() -> None:
    llm, _ = align(Speaker(CHAT), Speaker(BASE))
    assert isinstance(llm, LogitSource)
    assert (llm.context_length, llm.identity()) == (99, {"name": "toy"})


def test_closing_the_wrapper_closes_the_model() -> None:
    llm, _ = align(Speaker(CHAT), Speaker(BASE))
    with llm.open(["a"])[0] as session:
        inner: Speech = session.session  # type: ignore[attr-defined]  # the toy's own record of being closed
        assert not inner.closed
    assert inner.closed


def test_half_precision_stays_half() -> None:
    @dataclass(frozen=True)
    class Half(Speaker):
        def logits(self, read: Sequence[int]) -> Tensor:
            return super().logits(read).bfloat16()

    llm, _ = align(Half(CHAT), Speaker(BASE))
    assert torch.equal(first(llm), first(Half(CHAT)))
    assert first(llm).dtype == torch.bfloat16


@pytest.mark.parametrize("swap", [False, True], ids=["the LLM", "the SLM"])
def test_two_languages_that_cannot_spell_plain_text_are_refused(swap: bool) -> None:
    pair = [Speaker(words("a", "b", "c", "<pad>", END, "z", name="big")), Speaker(BASE)]
    message = r"the tokens of '(big|toy)' cannot spell '\\n' \(9[23] of the 96 plain characters are missing\)"
    with pytest.raises(VocabularyError, match=message):
        align(*pair[:: -1 if swap else 1])


def test_two_languages_meet_in_bytes() -> None:
    gpt2, kl3m = align(ToySource(spelled("gpt2")), ToySource(spelled("kl3m-char-4k")), "bytes")
    assert gpt2.vocabulary.fingerprint == kl3m.vocabulary.fingerprint == byte_vocabulary().fingerprint


def test_phi_2_is_gpt2_and_some_whitespace() -> None:
    phi, gpt2 = spelled("phi-2"), spelled("gpt2")
    big, small = align(Speaker(phi), Speaker(gpt2))
    assert isinstance(big, RemappedSource)
    assert big.columns == tuple(range(50257))
    assert small.vocabulary is gpt2
    big, small = align(Speaker(gpt2), Speaker(phi))
    assert isinstance(small, RemappedSource)
    assert small.columns == tuple(range(50257))
    assert small.vocabulary.fingerprint == gpt2.fingerprint


def test_mistral_v3_is_v1_in_other_ids_and_new_control_tokens() -> None:
    old, new = spelled("mistral-v1"), spelled("mistral-v3")
    llm, slm = align(Speaker(new), Speaker(old))
    assert isinstance(llm, RemappedSource)
    assert slm.vocabulary is old
    assert sorted(llm.columns) == [0, 1, 2, *range(771, 32768)]
    assert all(new.tokens[own] == old.tokens[i] for i, own in enumerate(llm.columns))
    assert all(new.control.get(own) == old.control.get(i) for i, own in enumerate(llm.columns))


def test_alignment_imports_without_torch() -> None:
    code = "import sys, purify_plugins.tokenizers.vocabulary_map; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
