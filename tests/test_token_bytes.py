"""Token bytes agree with what the tokenizer itself decodes, for real tokenizers and made-up ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from purify_plugins.errors import VocabularyError
from purify_plugins.tokenizers.token_bytes import vocabulary
from tests.tokenizer_files import ENDS, load, spelled

PARROT = "🦜".encode()


def decoded(name: str, ids: Sequence[int]) -> str:
    return load(name).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@cache
def anchor(name: str) -> int:
    """A word that any text can follow: SentencePiece strips one space at the start of a text only."""
    return max(i for i, token in enumerate(spelled(name).tokens) if token.isalpha())


def fast(
    model: models.Model, decoder: decoders.Decoder | None, added: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.decoder = decoder
    backend.add_tokens([AddedToken(text, normalized=False) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def bpe(*pieces: str, **options: object) -> models.BPE:
    return models.BPE({piece: index for index, piece in enumerate(pieces)}, [], **options)


def sentencepiece(*extra: decoders.Decoder) -> decoders.Decoder:
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), *extra])


@pytest.mark.parametrize("name", ENDS)
def test_every_token_spells_what_its_tokenizer_decodes(name: str) -> None:
    words, first = spelled(name), anchor(name)
    start = decoded(name, [first])
    for index, token in enumerate(words.tokens):
        if index not in words.control:
            assert decoded(name, [first, index]) == start + token.decode(errors="replace"), index


@cache
def texts(name: str) -> list[int]:
    """The ids whose runs decode as they are spelled.

    A broken run of `<0xAB>` decodes to one � for each byte, ours to one for each broken character;
    an end that is stored as text decodes to it.
    """
    pieces = load(name).convert_ids_to_tokens(range(len(spelled(name))))
    stored = spelled(name).eos.difference(load(name).all_special_ids)
    return [i for i, piece in enumerate(pieces) if not piece.startswith("<0x") and i not in stored]


@pytest.mark.parametrize("name", ENDS)
@given(data=st.data())
def test_a_run_of_tokens_spells_what_its_tokenizer_decodes(name: str, data: st.DataObject) -> None:
    run = [anchor(name), *data.draw(st.lists(st.sampled_from(texts(name)), max_size=20))]
    assert decoded(name, run) == spelled(name).spell(run).decode(errors="replace")


@pytest.mark.parametrize("name", ["phi-3-mini", "mistral-v1", "mistral-v3"])
def test_byte_tokens_add_up_to_a_character(name: str) -> None:
    run = load(name).convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in PARROT])
    assert spelled(name).spell(run) == PARROT == decoded(name, run).encode()


@pytest.mark.parametrize("name", [name for name in ENDS if name not in ("kl3m-char-4k",)])
def test_every_byte_can_be_spelled(name: str) -> None:
    assert {bytes([byte]) for byte in range(256)} - {*spelled(name).tokens} == set()


@pytest.mark.parametrize("name", ["gpt2", "phi-2", "phi-3-mini", "kl3m-char-4k", "testbed"])
def test_the_tokens_of_a_text_spell_it(name: str) -> None:
    text = "Zoë's  café:\n\tdef f(x):  return {x} # 🦜"
    ids = load(name)(text, add_special_tokens=False)["input_ids"]
    assert spelled(name).spell(ids).decode().removeprefix(" ") == text


def test_a_leading_space_is_text() -> None:
    hello = load("phi-3-mini").convert_tokens_to_ids("▁Hello")
    assert spelled("phi-3-mini").tokens[hello] == b" Hello"


def test_special_tokens_spell_nothing_and_have_a_name() -> None:
    words = spelled("phi-3-mini")
    assert (words.tokens[32007], words.control[32007]) == (b"", "<|end|>")


def test_an_end_spells_nothing_even_when_it_is_stored_as_text() -> None:
    """Phi-3 stores `</s>` as not special; were it text, answers would end in its five letters."""
    words = spelled("phi-3-mini")
    assert (words.tokens[2], words.control[2]) == (b"", "</s>")
    assert vocabulary(load("phi-3-mini"), "phi-3", {32007}).tokens[2] == b"</s>"


def test_added_whitespace_is_text() -> None:
    words = spelled("phi-2")
    assert words.tokens[50257] == b" " * 31
    assert words.added == {*range(50256, 50295)}
    assert words.control == {50256: "<|endoftext|>"}


def test_added_text_is_literal() -> None:
    """GPT-2's alphabet has an ï of its own, which stands for a single byte."""
    words = vocabulary(fast(bpe("a"), decoders.ByteLevel(), ["naïve"]), "toy", ())
    assert words.tokens == (b"a", "naïve".encode())


def test_ids_without_a_token_are_control_tokens() -> None:
    words = vocabulary(fast(models.BPE({"a": 0, "b": 3}, []), decoders.ByteLevel()), "toy", {3})
    assert words.tokens == (b"a", b"", b"", b"")
    assert words.control == {1: "<unused 1>", 2: "<unused 2>", 3: "b"}


def test_a_pretokenizer_is_enough_to_know_the_alphabet() -> None:
    toy = fast(bpe("Ġa"), None)
    toy.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert vocabulary(toy, "toy", ()).tokens == (b" a",)


def test_metaspace_with_byte_fallback_is_understood() -> None:
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    assert vocabulary(fast(bpe("▁a", "<0x0A>"), decoder), "toy", ()).tokens == (b" a", b"\n")


def test_a_tokenizer_without_bytes_is_refused_by_name() -> None:
    with pytest.raises(VocabularyError, match=r"'t5-small' .*Unigram with decoder Metaspace.*; use a model"):
        vocabulary(load("t5-small"), "t5-small", {1})


@pytest.mark.parametrize(
    "toy",
    [
        fast(bpe("a"), None),
        fast(bpe("a"), decoders.WordPiece()),
        fast(bpe("a</w>", end_of_word_suffix="</w>"), decoders.ByteLevel()),
        fast(bpe("▁a"), sentencepiece(decoders.Strip(" ", 1, 0))),
        fast(bpe("▁a"), sentencepiece(decoders.BPEDecoder())),
    ],
    ids=["no decoder", "word pieces", "word suffixes", "strips every token", "unknown step"],
)
def test_what_is_not_understood_is_refused(toy: PreTrainedTokenizerFast) -> None:
    with pytest.raises(VocabularyError, match="'toy' does not say which bytes its tokens spell"):
        vocabulary(toy, "toy", ())


def test_a_slow_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(VocabularyError, match=r"'old' is a slow one \(object\).* tokenizer\.json"):
        vocabulary(object(), "old", ())


def test_an_end_that_is_no_token_is_refused() -> None:
    with pytest.raises(VocabularyError, match=r"'gpt2' has no token 50257.*generation_config\.json"):
        vocabulary(load("gpt2"), "gpt2", {50257})
