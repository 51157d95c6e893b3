"""Token bytes: the bytes that each id of a transformers tokenizer adds to a text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

from purify_plugins.errors import VocabularyError
from purify_plugins.types import Vocabulary

Spell = Callable[[str], bytes]
"""A token as its tokenizer writes it -> its bytes."""

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SENTENCEPIECE = {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}
"""The decoders whose effect on a single token is known exactly."""
MARK = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
"""SentencePiece's mark for a space."""
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
"""Marks of CLIP and WordPiece at the edges of words, which are not bytes of a text."""


def vocabulary(tokenizer: Any, name: str, eos: Collection[int]) -> Vocabulary:
    """The exact bytes of every id of a fast tokenizer.

    Special tokens, the `eos` ids and ids without a token are control tokens without bytes. A piece that
    begins with a space keeps it: only continuations matter here, not the start of a text. Raises
    VocabularyError for a tokenizer that cannot spell every byte, or is not a fast one.
    """
    backend = _backend(tokenizer, name)
    pieces = {index: piece for piece, index in backend.get_vocab(with_added_tokens=True).items()}
    added = backend.get_added_tokens_decoder()
    spell = _speller(backend, name)
    tokens = [b""] * (max(pieces, default=-1) + 1)
    for index, piece in pieces.items():
        tokens[index] = spell(piece)
    for index in _literal(backend, added) if spell is _byte_level else ():
        tokens[index] = added[index].content.encode()
    special = {index: token.content for index, token in added.items() if token.special}
    control = special | _ends(pieces, eos, name) | _holes(pieces, len(tokens))
    for index in control:
        tokens[index] = b""
    return Vocabulary(tuple(tokens), frozenset(eos), control, frozenset(added), name)


def _backend(tokenizer: Any, name: str) -> Any:
    """The Rust tokenizer inside. Its parts are read one by one, since its whole JSON is mostly merges."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(backend, "get_added_tokens_decoder"):
        return backend
    raise VocabularyError(
        f"the tokenizer of {name!r} is a slow one ({type(tokenizer).__name__}), whose bytes cannot be read; "
        "save a fast one beside the model (a tokenizer.json) and load that"
    )


def _ends(pieces: Mapping[int, str], eos: Collection[int], name: str) -> dict[int, str]:
    """The end tokens, special or not."""
    if unknown_ids := sorted(set(eos) - pieces.keys()):
        raise VocabularyError(
            f"the tokenizer of {name!r} has no token {unknown_ids[0]}, yet the model ends its answers with "
            "it; correct eos_token_id in its generation_config.json"
        )
    return {index: pieces[index] for index in eos}


def _holes(pieces: Mapping[int, str], size: int) -> dict[int, str]:
    """The unused ids below `size`."""
    return {index: f"<unused {index}>" for index in range(size) if index not in pieces}


def _literal(backend: Any, added: Mapping[int, Any]) -> set[int]:
    """The added tokens that are plain text: those not in the model's own vocabulary."""
    own = backend.model.token_to_id
    return {index for index, token in added.items() if own(token.content) != index}


def _speller(backend: Any, name: str) -> Spell:
    """The function that turns one token into bytes, as the tokenizer's decoder does."""
    steps = _parts(backend.decoder) or [s for s in _parts(backend.pre_tokenizer) if s["type"] == "ByteLevel"]
    kinds = [step["type"] for step in steps]
    affixed = any(getattr(backend.model, affix, None) for affix in AFFIXES)
    if {*kinds} - {"Fuse"} == {"ByteLevel"} and not affixed:
        return _byte_level
    if "ByteFallback" in kinds and _plain(steps) and not affixed:
        return _sentencepiece(steps)
    found = f"{type(backend.model).__name__} with decoder {' + '.join(kinds) or 'none'}"
    raise VocabularyError(
        f"the tokenizer of {name!r} does not say which bytes its tokens spell ({found}); "
        "use a model with byte-level BPE (GPT-2, Llama-3, Qwen) or SentencePiece with byte fallback (Mistral)"
    )


def _parts(component: Any) -> list[dict[str, Any]]:
    """The JSON of a decoder or a pre-tokenizer, its sequences flattened."""

    def flat(part: dict[str, Any]) -> list[dict[str, Any]]:
        inner = part.get("decoders", part.get("pretokenizers", ()))
        return [leaf for step in inner for leaf in flat(step)] if part["type"] == "Sequence" else [part]

    return flat(json.loads(component.__getstate__())) if component is not None else []


def _plain(steps: list[dict[str, Any]]) -> bool:
    """Whether every step treats a token independently of its position in a text."""
    kinds = [step["type"] for step in steps]
    patterns = [step["pattern"] for step in steps if step["type"] == "Replace"]
    strips_text = "Strip" not in kinds or "Fuse" in kinds[: kinds.index("Strip")]
    return {*kinds} <= SENTENCEPIECE and strips_text and all("String" in pattern for pattern in patterns)


def _sentencepiece(steps: list[dict[str, Any]]) -> Spell:
    """Pieces with a mark for the space, and `<0xAB>` for a byte that no piece holds."""
    marks = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
    marks += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]

    def spell(piece: str) -> bytes:
        if byte := BYTE.fullmatch(piece):
            return bytes.fromhex(byte[1])
        for mark, text in marks:
            piece = piece.replace(mark, text)
        return piece.encode()

    return spell


def _byte_level(piece: str) -> bytes:
    """GPT-2's byte-to-character table; a piece with other characters is literal text."""
    try:
        return codecs.charmap_encode(piece, "strict", _alphabet())[0]
    except UnicodeEncodeError:
        return piece.encode()


@cache
def _alphabet() -> dict[int, int]:
    """Code point -> byte: printable latin-1 characters are themselves, the other bytes follow from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = sorted({*range(256)} - {*printable})
    return {byte: byte for byte in printable} | {256 + rank: byte for rank, byte in enumerate(moved)}
