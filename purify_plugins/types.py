"""The nouns: vocabularies, prompts, sampling settings, tokens, answers and their certificates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, NoReturn

from purify_plugins.errors import PurifyError, RefusedError

FinishReason = Literal["eos", "stop", "length", "refused"]
"""Why an answer ended; "refused": a check blocked the rest of it, or a stage the request."""
Guarantee = Literal["none", "mean", "window", "passage", "path"]
Fallback = Literal["refuse", "slm"]
"""What happens when the LLM fails: the request ends with an error, or the SLM goes on alone."""
Keep = Literal["digests", "certificates"]
"""What a store keeps of a certificate: what identifies no text, or the certificate itself too."""
OnError = Literal["refuse", "warn"]
"""What becomes of an answer that a store cannot record."""
Alignment = Literal["auto", "bytes", "common_tokens", "top_k_union"]
"""The symbols that two tokenizers are fused in; "auto" chooses by how well the tokenizers agree."""
Fidelity = Literal["exact", "default", "fast"]
"""How closely a model is followed in symbols smaller than its tokens."""
History = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per row: the prompt's token ids and the answer's token ids so far."""


@dataclass(frozen=True)
class Chat:
    """A conversation; each model renders it with its own chat template.

    `messages` and `tools` are the mappings every chat template reads (`role`, `content`, …).
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


Prompt = str | Chat | tuple[int, ...]
"""Text, a conversation, or the token ids of a text already tokenised (tests, audits, evaluations)."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What each token id spells.

    `tokens[i]` is the bytes token `i` adds to a text; control tokens add none and have a name in
    `control` instead. `eos` ids end an answer. `added` ids came after the tokenizer was trained:
    two vocabularies may differ in these and still count as one. `per_token` is the average number of these
    ids in one of the LLM's own tokens: more than 1 where two tokenizers are fused in smaller symbols.
    """

    tokens: tuple[bytes, ...]
    eos: frozenset[int]
    control: Mapping[int, str] = field(default_factory=dict)
    added: frozenset[int] = frozenset()
    name: str = "vocabulary"
    per_token: float = 1.0

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every token's bytes, the control names and the EOS ids."""
        digest = hashlib.sha256()
        for index, token in enumerate(self.tokens):
            control = self.control.get(index, "").encode()
            digest.update(b"%d:%d:" % (len(token), len(control)) + token + control)
        digest.update(repr(sorted(self.eos)).encode())
        return digest.hexdigest()

    def spell(self, tokens: Sequence[int]) -> bytes:
        """The bytes of a sequence of token ids."""
        return b"".join(self.tokens[token] for token in tokens)


class ScoredPrompt(NamedTuple):
    """One row's prompt as a model read it.

    `tokens` are all its ids; `logprobs` are the model's log-probabilities (nats) of the *last*
    `len(logprobs)` of them, each given the tokens before it. A model in smaller symbols than its tokens
    scores its own tokens: `spelled` are the symbols of each scored one, none of a control token.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    spelled: tuple[tuple[int, ...], ...] = ()

    def last(self, scored: int) -> ScoredPrompt:
        """The same prompt with at most the last `scored` of its scores."""
        at = max(len(self.logprobs) - scored, 0)
        return self._replace(logprobs=self.logprobs[at:], spelled=self.spelled[at:])


class Remarks(NamedTuple):
    """What a check of a pair found: facts by name, as JSON, and warnings, a sentence each."""

    facts: Mapping[str, Any]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes a tool call.

    A call is `begin`, a JSON object with `name` and `arguments` (by that key), and `end`; with
    `listed` the objects stand in a JSON array. With `named` a call is the tool's name, this mark and the
    arguments. Where `begin` is empty, an answer that starts with a brace is a call if it names a tool and its
    arguments. `sign` is a regular expression found in the chat templates of that family.
    """

    begin: str
    end: str
    sign: str
    arguments: str = "arguments"
    listed: bool = False
    named: str | None = None


class Token(NamedTuple):
    """One token of an answer and its figures when it was drawn (nats).

    `llm`, `slm` and `fused` are its log-probabilities in the three rows; `llm` is None where the policy takes
    raw logits, whose normalisation would cost as much as the fusion (see `Purifier.explain`). `kl` is
    KL(fused || slm) of the whole row and `peak` the largest log fused/slm of any token in it; for a greedy
    token both are its surprisal under the SLM. `revealed` is the LLM's probability that its server showed
    (below 1 for the top few tokens). `slm_only` marks a token drawn from the SLM's row because there was no
    fused one. `hidden` is the fused mass of tokens that the server did not show: with the whole row a pool
    (geometric, minimum, linear) would differ by no more than that, in total variation. `top` are the fused
    row's likeliest tokens and their log-probabilities, in descending order. `marked`: a watermark's numbers
    drew it.
    """

    id: int
    llm: float | None
    slm: float
    fused: float
    kl: float
    peak: float
    revealed: float = 1.0
    slm_only: bool = False
    hidden: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    marked: bool = False

    @property
    def ratio(self) -> float:
        """log fused/slm of the drawn token (nats): what the untrusted model added."""
        return self.fused - self.slm if self.fused > -math.inf else 0.0


@dataclass(frozen=True)
class Step:
    """One column of a batch: each row's token, or None where the row has ended or got none.

    `prompts` are the token ids the SLM read, the same object in every step of a batch. `origin` is set by the
    decoder; steps without it are refused (see `decode/provenance.py`).
    """

    tokens: tuple[Token | None, ...]
    prompts: tuple[tuple[int, ...], ...]
    origin: object = field(default=None, repr=False, compare=False)


Steps = Generator[Step, None, None]
"""A decoder's generator: a step per column of tokens."""


class DrawnToken(NamedTuple):
    """A token of an answer and the text that it was decoded to."""

    token: Token
    text: str


class Piece(NamedTuple):
    """Text of an answer and the token that wrote it (see `Detokenizer`); None: an operator's text."""

    token: Token | None
    text: str


UNDECODED: Mapping[str, Any] = {
    "prompt": (),
    "models": {},
    "method": {"policy": "none", "mode": "none"},
    "steps": (),
}
"""`Certificate.decoded` of an answer that no model wrote."""


@dataclass(frozen=True)
class Certificate:
    """The record that comes with an answer; `text` is its canonical JSON.

    `envelope` is the signed form of it (DSSE, one line of JSON), "" where nothing signs.
    """

    text: str
    envelope: str = ""

    @property
    def issued(self) -> str:
        """What the answer's reader gets: the envelope, else the text itself."""
        return self.envelope or self.text

    @cached_property
    def body(self) -> dict[str, Any]:
        """The parsed JSON."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def digest(self) -> str:
        return str(self.body["digest"])

    @property
    def claim(self) -> Mapping[str, Any]:
        """The part of the body with the guarantee, its adversary, the reason and the meaning."""
        found: Mapping[str, Any] = self.body["claim" if self.staged else "method"]
        return found

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee that holds for this answer, in the mode it was drawn."""
        return self.claim["guarantee"]  # type: ignore[no-any-return]  # checked by the schema

    @property
    def log_ratio(self) -> float:
        """log fused/slm of the whole answer (nats); with stages, of the drafts that it was made from too."""
        return float(self.body["ledger"]["spent"] if self.staged else self.body["totals"]["log_ratio"])

    @property
    def staged(self) -> bool:
        """Whether stages made the answer, so that the body has the records of several drafts."""
        return "drafts" in self.body

    @property
    def decoded(self) -> Mapping[str, Any]:
        """The record of the decode whose text was released: its `prompt`, `models`, `method`, `steps`, ….

        It is the body itself where there are no stages; of an answer in the operator's words, `UNDECODED`.
        """
        if not self.staged:
            return self.body
        found = (each["certificate"] for each in self.body["drafts"] if each["role"] == "released")
        return next(found, UNDECODED)


@dataclass(frozen=True)
class Completion:
    """A finished answer: its text, its token ids, why it ended and its certificate.

    `drawn` are its tokens, each with the text it was decoded to, which a stop string is part of; `pieces`
    are the same tokens with the text each added to the answer: they join to `text`.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    drawn: tuple[DrawnToken, ...]
    certificate: Certificate
    pieces: tuple[Piece, ...] = ()

    @cached_property
    def steps(self) -> tuple[Token, ...]:
        """The records of the tokens."""
        return tuple(token for token, _ in self.drawn)

    @property
    def chunk(self) -> Chunk:
        """The whole answer as one chunk."""
        return Chunk(self.pieces, self.drawn, self, ended=True)


class Unanswered:
    """An outcome without an answer: every attribute of an answer raises `error`."""

    error: PurifyError

    def _unanswered(self) -> NoReturn:
        raise self.error

    text = tokens = finish_reason = steps = drawn = pieces = certificate = property(_unanswered)


@dataclass(frozen=True)
class Refused(Unanswered):
    """The outcome of a prompt, or of its answer, that a plugin or the operator's policy refused."""

    error: RefusedError


@dataclass(frozen=True)
class Failed(Unanswered):
    """The outcome of a prompt that could not be answered: too long, a model or a plugin broken, …"""

    error: PurifyError


Outcome = Completion | Refused | Failed
"""The outcome of one prompt."""


@dataclass(frozen=True)
class Chunk:
    """A part of a streamed answer; `print(chunk, end="")` prints its text.

    `pieces` are the text that is certain now, by the token that wrote it; a token's text can come later than
    the token. `drawn` are the tokens drawn since the last chunk, each with the text it was decoded to, which
    a stop string is part of. `ended`: they are the answer's last ones. The final chunk, without tokens, has
    the rest of the text and the `completion`. With [stages](stages.md) a token of which a part is still held
    has the id -1 in `pieces`, and is among `drawn` once all its text is released.
    """

    pieces: tuple[Piece, ...]
    drawn: tuple[DrawnToken, ...] = ()
    completion: Completion | None = None
    ended: bool = False

    @cached_property
    def text(self) -> str:
        """The text that is certain now."""
        return "".join(text for _, text in self.pieces)

    @property
    def steps(self) -> tuple[Token, ...]:
        """The records of the tokens drawn since the last chunk."""
        return tuple(token for token, _ in self.drawn)

    def __str__(self) -> str:
        return self.text
