"""Real tokenizers from tests/data/tokenizers, loaded without the network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from purify_plugins.tokenizers.token_bytes import vocabulary
from purify_plugins.types import Vocabulary

HERE = Path(__file__).parent / "data" / "tokenizers"
TESTBED = Path(__file__).parent.parent / "hooks/purify_hooks/evaluation/testbed/llm" / "tokenizer.json"
MISTRAL = {"mistral-v1": "tokenizer.model.v1", "mistral-v3": "mistral_instruct_tokenizer_240323.model.v3"}
ENDS = {
    "gpt2": {50256},
    "phi-2": {50256},
    "phi-3-mini": {2, 32000, 32007},
    "kl3m-char-4k": {1},
    "mistral-v1": {2},
    "mistral-v3": {2},
    "testbed": {0},
}
"""The ids that end an answer, by the name the tests give a tokenizer."""


@cache
def load(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer the tests call `name`."""
    if name == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=_gpt2())
    if name in MISTRAL:
        return PreTrainedTokenizerFast(tokenizer_object=_sentencepiece(HERE / "mistral" / MISTRAL[name]))
    path = TESTBED if name == "testbed" else HERE / name / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


@cache
def spelled(name: str) -> Vocabulary:
    """Its vocabulary, with the EOS ids of `ENDS`."""
    return vocabulary(load(name), name, ENDS[name])


def _gpt2() -> Tokenizer:
    folder = HERE / "gpt2"
    backend = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return backend


def _sentencepiece(path: Path) -> Tokenizer:
    """What transformers makes of a SentencePiece BPE model, but for its merges: it decodes only."""
    pieces = list(_pieces(path.read_bytes()))
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    backend = Tokenizer(models.BPE(ids, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    unknown, control, user_defined = 2, 3, 4
    for piece, kind in pieces:
        if kind in (unknown, control):
            backend.add_special_tokens([AddedToken(piece, normalized=False)])
        elif kind == user_defined:
            backend.add_tokens([AddedToken(piece, normalized=False)])
    return backend


def _pieces(model: bytes) -> Iterator[tuple[str, int]]:
    """Each piece and its kind: the leading fields 1 of the protobuf message, lengths below 128."""
    at = 0
    while model[at] == 0x0A:
        end = at + 2 + model[at + 1]
        text = at + 4 + model[at + 3]  # field 1: the piece, then five bytes of field 2: its score
        yield model[at + 4 : text].decode(), model[text + 6] if end > text + 5 else 1
        at = end
