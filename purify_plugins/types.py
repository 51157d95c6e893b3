"""The nouns: vocabularies, prompts, sampling settings, tokens, answers and their certificates."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, NoReturn, Self

from purify_plugins.errors import ConfigError, PurifyError, RefusedError, UnknownNameError
from purify_plugins.grammar import Grammar

FinishReason = Literal["eos", "stop", "length"]
Guarantee = Literal["none", "mean", "window", "passage", "path"]
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
    two models may differ in these and still speak the same language. `per_token` is how many of these
    a token of the LLM's own comes to: more than 1 where two tokenizers meet in smaller symbols.
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
        """The bytes a run of token ids adds to a text."""
        return b"".join(self.tokens[token] for token in tokens)


class ScoredPrompt(NamedTuple):
    """One row's prompt as a model read it.

    `tokens` are all its ids; `logprobs` are the model's log-probabilities (nats) of the *last*
    `len(logprobs)` of them, given what stands before each.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()


COLDEST = 1e-6
"""The lowest temperature that draws: logits of a hundred become figures of 1e8, which float32 knows to 8."""


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


CHECKS: Sequence[tuple[str, Callable[[Any], bool], str]] = (
    ("max_tokens", _whole, "a whole number"),
    ("temperature", _number, "a number"),
    ("top_k", _whole, "a whole number"),
    ("top_p", _number, "a number"),
    ("min_p", _number, "a number"),
    ("typical_p", _number, "a number"),
    ("repetition_penalty", _number, "a number"),
    ("frequency_penalty", _number, "a number"),
    ("seed", lambda seed: seed is None or _whole(seed), "a whole number"),
    ("stop", _texts, "a text, or a list of texts"),
    ("ignore_eos", lambda value: isinstance(value, bool), "True or False"),
    ("max_tokens", lambda n: n >= 1, "at least 1"),
    (
        "temperature",
        lambda t: t == 0 or COLDEST <= t < math.inf,
        f"0 (greedy), or finite and at least {COLDEST}",
    ),
    ("top_k", lambda n: n >= 0, "0 (off) or more"),
    ("top_p", lambda p: 0 < p <= 1, "above 0 and at most 1"),
    ("min_p", lambda p: 0 <= p <= 1, "between 0 and 1"),
    ("typical_p", lambda p: 0 < p <= 1, "above 0 and at most 1"),
    ("repetition_penalty", lambda factor: 0 < factor < math.inf, "above 0"),
    ("frequency_penalty", lambda nats: abs(nats) < math.inf, "finite"),
    ("seed", lambda seed: seed is None or seed >= 0, "0 or more"),
    ("stop", all, "without empty strings"),
    ("stop", lambda texts: not re.search("[\ud800-\udfff]", "".join(texts)), "valid Unicode"),
    ("grammar", lambda grammar: grammar is None or isinstance(grammar, Grammar), "a Grammar"),
)
"""What each sampling option must be, in this order: its kind before its range."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, and when an answer ends.

    Penalties, the grammar, temperature, top_k, top_p, min_p and typical_p shape *both* models' rows
    before they are fused; nothing touches the fused row. `temperature` 0 takes the arg-max of the fused
    row. Row i of a batch draws from `seed` + i, so that a batch equals its rows.
    """

    max_tokens: int = 256
    """The most tokens an answer may have; a model's context may leave fewer."""
    temperature: float = 1.0
    """Divides both models' logits: below 1 steadier, above 1 bolder, 0 the fused row's arg-max. Nothing
    between 0 and 1e-06: float32 could not tell such a row's tokens apart."""
    top_k: int = 0
    """Each model keeps its `top_k` likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Each model keeps its likeliest tokens until they hold this much of the probability."""
    min_p: float = 0.0
    """Each model keeps the tokens at least this many times as likely as its likeliest; 0 keeps all."""
    typical_p: float = 1.0
    """Each model keeps the tokens whose surprisal is nearest to its average, until they hold this much of
    the probability (locally typical sampling, arXiv 2202.00666); 1 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the prompt or the answer has used become less likely; 1 is off."""
    frequency_penalty: float = 0.0
    """Nats taken from a token for each time the answer has used it; below 0 they are given."""
    seed: int | None = None
    """Repeats the draws within this process; in another one too only if both have the same `PURIFY_SECRET`.
    None draws anew each time."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer where the first of them would appear; none of it is released. The name of a
    control token ends it where that token is drawn."""
    ignore_eos: bool = False
    """Rules out every end token, so that only `stop` and `max_tokens` end the answer."""
    grammar: Grammar | None = None
    """What the answer must look like: a table with `kind` ("json_schema", "regex", "lark") and `text`.
    Where the LLM rules out all that may come next, the SLM goes on alone; the SLM's doing so is an error."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # what dataclasses would say of an unknown name is a TypeError that knows no nearer one
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise UnknownNameError("sampling option", name, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.grammar, Mapping):
            object.__setattr__(self, "grammar", Grammar.of(self.grammar))
        if isinstance(self.stop, str | list):
            object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, fine, expected in CHECKS:
            value = getattr(self, name)
            if not fine(value):
                raise ConfigError(f"sampling: {name} must be {expected}, not {value!r}")
        if self.ignore_eos and self.grammar:
            raise ConfigError("sampling: ignore_eos must be off: a grammar ends its answer, not True")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes the call of a tool.

    A call is `begin`, a JSON object with `name` and `arguments` (by that key), and `end`; with
    `listed` the objects stand in a JSON array. With `named` a call is no object but its name, this
    mark and the arguments. Where `begin` is empty, an answer that starts with a brace is a call if it
    names a tool and its arguments. `sign` is a regular expression found in the chat templates of that family.
    """

    begin: str
    end: str
    sign: str
    arguments: str = "arguments"
    listed: bool = False
    named: str | None = None


class Token(NamedTuple):
    """One token of an answer and what was thought of it when it was drawn (nats).

    `llm`, `slm` and `fused` are its log-probabilities in the three rows (`llm` is None where the policy
    could do without: to add up a wide row costs as much as to fuse it; see `Purifier.explain`). `kl` is
    KL(fused || slm) of the whole row and `peak` the largest log fused/slm of any token in it; of a
    greedy token, whose row is sure of it, both are its surprisal under the SLM. `revealed` is the LLM's
    mass that was actually shown (below 1 for servers that show their top few). `slm_only` marks a
    token drawn from the SLM's row because there was no fused one. `hidden` is the fused mass of tokens that
    such a server did not show: the whole row could have moved a pool's (geometric, minimum, linear) by no
    more than that, in total variation. `top` are the fused row's likeliest tokens, likeliest first, and
    their log-probabilities, as many as `Purifier.showing` asks for.
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

    @property
    def ratio(self) -> float:
        """log fused/slm of the drawn token: what the untrusted model added, in nats."""
        return self.fused - self.slm if self.fused > -math.inf else 0.0


@dataclass(frozen=True)
class Step:
    """One column of a batch: each row's token, or None where the row has ended or waits.

    `prompts` are the token ids the SLM read, the same object in every step of a batch. `origin` is the
    decoder's mark, without which no reader accepts it: see `decode/provenance.py`.
    """

    tokens: tuple[Token | None, ...]
    prompts: tuple[tuple[int, ...], ...]
    origin: object = field(default=None, repr=False, compare=False)


class Piece(NamedTuple):
    """A token of an answer, and text that it wrote: see `Detokenizer` for which token that is."""

    token: Token
    text: str


@dataclass(frozen=True)
class Certificate:
    """The proof that goes with an answer; `text` is its canonical JSON."""

    text: str

    @cached_property
    def body(self) -> dict[str, Any]:
        """Everything it says, by name."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def digest(self) -> str:
        return str(self.body["digest"])

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee that holds for this very answer, in the mode it was drawn."""
        return self.body["method"]["guarantee"]  # type: ignore[no-any-return]  # checked by the schema

    @property
    def log_ratio(self) -> float:
        """log fused/slm of the whole answer, in nats."""
        return float(self.body["totals"]["log_ratio"])


@dataclass(frozen=True)
class Completion:
    """A finished answer: its text, its token ids, why it ended and the proof of how it was made.

    `drawn` are its tokens, each with the text it was decoded to, which a stop string is part of; `pieces`
    are the same tokens with the text each added to the answer: they join to `text`.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    drawn: tuple[Piece, ...]
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
    """What a prompt has in place of an answer: `error` says why; all that an answer would have raises it."""

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
"""What became of one prompt."""


@dataclass(frozen=True)
class Chunk:
    """A part of a streamed answer; `print(chunk, end="")` prints its text.

    `pieces` are the text that is certain now, by the token that wrote it; a token's text can come later than
    the token. `drawn` are the tokens drawn since the last chunk, each with the text it was decoded to, which
    a stop string is part of. `ended`: they are the answer's last ones. The final chunk, without tokens, has
    the rest of the text and the `completion`.
    """

    pieces: tuple[Piece, ...]
    drawn: tuple[Piece, ...] = ()
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
