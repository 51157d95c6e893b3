"""From a request's options to the purifier's `Sampling`: every option is honoured, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.rejections import Rejected, invalid, too_long, unsupported
from purify_adapters.gateway.schemas import (
    ChatRequest,
    CompletionRequest,
    Format,
    JsonFormat,
    ObjectFormat,
    Parameters,
    RegexFormat,
    TextFormat,
)
from purify_plugins.errors import ConfigError, TooLongError
from purify_plugins.grammar import Grammar
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chat, Prompt, Vocabulary

if TYPE_CHECKING:
    from purify_adapters.gateway.settings import Settings
    from purify_plugins.purifier import Purifier

DEFAULT_CONTEXT = 4096
"""Tokens, prompt and answer together, where neither model has a context length."""


@dataclass(frozen=True)
class OptionNames:
    """A route's names of its options, and the most likeliest tokens of a row that it shows (`most`)."""

    prompt: str = "inputs"
    tokens: str = "max_new_tokens"
    shown: str = "top_n_tokens"
    most: int = 5


@dataclass(frozen=True)
class Generation:
    """One answer to generate.

    `input_length`: the prompt's length in tokens of the SLM; 0 where the SLM cannot tokenise here. `top`:
    how many of each fused row's likeliest tokens are shown. `logprobs`: whether `/v1/completions` shows
    log-probabilities. `staged`: whether the answer goes through request stages. `user`: whose
    the request is, as its client says. `best_of`: among how many answers the one is picked.
    """

    prompt: Prompt
    sampling: Sampling
    input_length: int
    top: int = 0
    logprobs: bool = False
    staged: bool = False
    user: str | None = None
    best_of: int = 1

    def several(self, answers: int | None) -> list[Generation]:
        """So many answers to the same prompt, which counts once; each has a certificate of its own."""
        others = [
            replace(self, sampling=self.sampling.of_row(row), input_length=0)
            for row in range(1, answers or 1)
        ]
        return [self, *others]


class RequestValidator:
    """Checks requests against this pair of models. Its methods raise Rejected, with TGI's messages."""

    def __init__(self, purifier: Purifier, settings: Settings) -> None:
        self.purifier, self.settings = purifier, settings
        lengths = [each.context_length for each in (purifier.llm, purifier.slm) if each.context_length]
        self.max_total_tokens = settings.max_total_tokens or min(lengths, default=DEFAULT_CONTEXT)

    @property
    def max_input_tokens(self) -> int:
        return self.max_total_tokens - 1

    def generate(self, inputs: str, parameters: Parameters) -> Generation:
        """A request to `/generate`, `/generate_stream` or `/`."""
        for name in ("watermark", "decoder_input_details", "adapter_id"):
            if getattr(parameters, name):
                raise unsupported(name)
        if not inputs:
            raise invalid("`inputs` cannot be empty")
        prompt = inputs if parameters.truncate is None else self._truncated(inputs, parameters.truncate)
        return self._generation(prompt, parameters, _samples(parameters))

    def chat(
        self,
        request: ChatRequest,
        prompt: Chat,
        grammar: Grammar | None = None,
        names: OptionNames | None = None,
    ) -> Generation:
        """A request to `/v1/chat/completions`, or to `/v1/responses` with its own `names`."""
        self._require_few("n", request.n or 1)
        name = "max_completion_tokens" if request.max_tokens is None else "max_tokens"
        parameters = _openai(request, getattr(request, name))
        if not prompt.messages:
            raise invalid("`messages` cannot be empty", "messages")
        parameters.top_n_tokens = request.top_logprobs if request.logprobs else None
        names = names or OptionNames("messages", name, "top_logprobs", 20)
        found = self._generation(prompt, parameters, request.temperature != 0, grammar, names)
        return replace(found, user=request.user)

    def completions(self, request: CompletionRequest) -> list[Generation]:
        """A request to `/v1/completions`: one answer for each of its prompts."""
        if request.suffix:
            message = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Rejected(422, message, "suffix not supported")
        given = prompts_of(request.prompt)
        if len(given) * (request.n or 1) > self.settings.max_batch:
            message = f"Number of prompts exceeds the maximum allowed batch size of {self.settings.max_batch}"
            raise Rejected(422, message, "batch size exceeded")
        parameters = _openai(request, request.max_tokens)
        parameters.best_of = _best_of(request)
        parameters.top_n_tokens = request.logprobs
        if not given or not all(given):
            raise invalid("`prompt` cannot be empty", "prompt")
        samples, shown = request.temperature != 0, request.logprobs is not None
        names = OptionNames("prompt", "max_tokens", "logprobs", 20)
        found = [self._generation(self._prompt(each), parameters, samples, names=names) for each in given]
        asked = [replace(each, logprobs=shown, user=request.user) for each in found]
        return [answer for each in asked for answer in each.several(request.n)]

    def _prompt(self, prompt: str | Sequence[int]) -> Prompt:
        """A prompt of `/v1/completions`; token ids are the SLM's, as `/tokenize` returns them."""
        if isinstance(prompt, str):
            return prompt
        if unknown := [token for token in prompt if token >= len(self.vocabulary)]:
            raise invalid(f"`prompt` holds token {unknown[0]}; there are {len(self.vocabulary)}")
        if self.vocabulary.fingerprint == self.purifier.vocabulary.fingerprint:
            return tuple(prompt)
        # The models are fused in smaller symbols, which these ids do not index: pass their text.
        return self.vocabulary.spell(prompt).decode(errors="replace")

    def _generation(
        self,
        prompt: Prompt,
        parameters: Parameters,
        samples: bool,
        grammar: Grammar | None = None,
        names: OptionNames = OptionNames(),
    ) -> Generation:
        stops = [parameters.stop] if isinstance(parameters.stop, str) else parameters.stop or ()
        _check(parameters, names)
        if len(stops) > (most := self.settings.max_stop_sequences):
            raise invalid(f"`stop` supports up to {most} stop sequences. Given: {len(stops)}", "stop")
        length = self._length(prompt, names.prompt) if self.tokenises else 0
        sampling = Sampling(
            max_tokens=min(
                parameters.max_new_tokens or self.max_total_tokens, self.max_total_tokens - length
            ),
            temperature=(1.0 if parameters.temperature is None else parameters.temperature)
            if samples
            else 0.0,
            top_k=max(parameters.top_k or 0, 0),
            top_p=1.0 if parameters.top_p is None else parameters.top_p,
            min_p=parameters.min_p or 0.0,
            typical_p=1.0 if parameters.typical_p is None else parameters.typical_p,
            repetition_penalty=1.0
            if parameters.repetition_penalty is None
            else parameters.repetition_penalty,
            frequency_penalty=parameters.frequency_penalty or 0.0,
            seed=None if parameters.seed is None or parameters.seed < 0 else parameters.seed,
            stop=tuple(each for each in stops if each),  # an empty one ends nothing
            grammar=_grammar(parameters.grammar) if parameters.grammar else grammar,
        )
        if self.settings.require_guarantee:
            self._require_guarantee(sampling)
        best_of, top = parameters.best_of or 1, parameters.top_n_tokens or 0
        staged = self._staged(best_of, top, samples, names)
        return Generation(prompt, sampling, length, top, staged=staged, best_of=best_of)

    @property
    def max_best_of(self) -> int:
        """The most answers that one can be picked among."""
        return self.purifier.request.calls

    def _staged(self, best_of: int, top: int, samples: bool, names: OptionNames) -> bool:
        """Whether an answer goes through stages. Raises Rejected where one cannot be picked among so many."""
        if best_of > self.max_best_of:
            raise invalid(f"`best_of` must be > 0 and <= {self.max_best_of}. Given: {best_of}", "best_of")
        if best_of > 1 and not samples:
            raise invalid("you must use sampling when `best_of` is > 1", "best_of")
        staged = bool(self.purifier.stages) or best_of > 1
        if staged and top:
            raise unsupported(names.shown, "no check of the request stages has judged the words not drawn")
        return staged

    def _require_few(self, name: str, answers: int) -> None:
        """Raise Rejected for more answers than prompts of one request."""
        if answers > (most := self.settings.max_batch):
            raise invalid(f"`{name}` must be <= {most}. Given: {answers}", name)

    def _require_guarantee(self, sampling: Sampling) -> None:
        """Raise Rejected if no answer with this sampling could claim a guarantee."""
        claim = self.purifier.claim(sampling)
        if claim.guarantee == "none":
            way = "ask for a sampled answer (`do_sample`, or a temperature above 0) without a `seed`"
            raise Rejected(422, f"no guarantee would hold for this answer: {claim.reason}; {way}", "refused")

    def _length(self, prompt: Prompt, name: str) -> int:
        """The prompt's length in tokens. Raises Rejected, naming the option, if no token fits after it."""
        try:
            length = len(self.encode(prompt))
        except TooLongError as error:
            length = error.length
        if length >= self.max_total_tokens:
            raise too_long(self.max_total_tokens, length, name)
        return length

    @property
    def tokenises(self) -> bool:
        """Whether the SLM can tokenise without a model call; one on a server may not."""
        return self.purifier.slm.inner.encodes

    def encode(self, prompt: Prompt) -> Sequence[int]:
        """The prompt's token ids in the SLM's vocabulary. Raises Rejected if the SLM cannot tokenise here."""
        if not self.tokenises:
            raise unsupported("truncate", "the SLM does not tell its tokens")
        return self.purifier.slm.inner.encode(prompt)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the ids of `encode`."""
        return self.purifier.slm.inner.vocabulary

    def _truncated(self, text: str, most: int) -> str:
        """The text of its last `most` tokens."""
        if not 0 < most <= self.max_input_tokens:
            limit = self.max_input_tokens
            raise invalid(f"`truncate` must be strictly positive and less than {limit}. Given: {most}")
        tokens = self._all_tokens(text)
        return self.vocabulary.spell(tokens[-most:]).decode(errors="ignore") if len(tokens) > most else text

    def _all_tokens(self, text: str) -> Sequence[int]:
        """All of a text's tokens, even more than the model's context holds."""
        tokenizer = self.purifier.slm.inner.tokenizer
        return list(tokenizer(text)["input_ids"]) if tokenizer else self.encode(text)


def _samples(parameters: Parameters) -> bool:
    """Whether TGI would sample: `do_sample`, or an option that has no effect on greedy decoding."""
    shaping = (parameters.temperature, parameters.top_p, parameters.typical_p)
    warmed = any(value not in (None, 1.0) for value in shaping) or bool(parameters.min_p)
    return bool(parameters.do_sample) or warmed or (parameters.top_k or 0) > 0


def _best_of(request: CompletionRequest) -> int:
    """Among how many each of a request's `n` answers is picked. Raises Rejected to pick several at once."""
    n, best_of = request.n or 1, request.best_of or request.n or 1
    if n == 1 or n == best_of:
        return best_of if n == 1 else 1
    raise unsupported("best_of", "it picks one answer; leave out `n`, or ask for as many as are drawn")


def _openai(request: ChatRequest | CompletionRequest, tokens: int | None) -> Parameters:
    """OpenAI's options, and vLLM's additional ones, by TGI's names.

    Temperature 0 means greedy; a limit of -1 means no limit.
    """
    return Parameters(
        temperature=None if request.temperature == 0 else request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        typical_p=request.typical_p,
        repetition_penalty=request.repetition_penalty,
        frequency_penalty=request.frequency_penalty,
        max_new_tokens=None if tokens == -1 else tokens,
        stop=request.stop,
        seed=request.seed,
    )


def prompts_of(prompt: Any) -> Sequence[str | Sequence[int]]:
    """The prompts of a request; a single one is a batch of one."""
    alone = isinstance(prompt, str) or any(isinstance(each, int) for each in prompt[:1])
    return [prompt] if alone else prompt


RANGES: Sequence[tuple[str, Callable[[float], bool], str]] = (
    ("temperature", lambda value: value > 0, "strictly positive"),
    ("repetition_penalty", lambda value: value > 0, "strictly positive"),
    ("frequency_penalty", lambda value: abs(value) <= 2, ">= -2.0 and <= 2.0"),
    ("top_p", lambda value: 0 < value <= 1, "> 0.0 and <= 1.0"),
    ("typical_p", lambda value: 0 < value <= 1, "> 0.0 and <= 1.0"),
    ("top_k", lambda value: value >= -1, "strictly positive, or 0 or -1 for all"),
    ("min_p", lambda value: 0 <= value <= 1, ">= 0.0 and <= 1.0"),
)
"""TGI's ranges of options, in its order and with its messages; values without effect are in range too."""


def _check(parameters: Parameters, names: OptionNames) -> None:
    """Raise Rejected for an option that is out of range."""
    for name, allowed, words in RANGES:
        if (value := getattr(parameters, name)) is not None and not allowed(value):
            raise invalid(f"`{name}` must be {words}", name)
    if parameters.max_new_tokens == 0:
        raise invalid(f"`{names.tokens}` must be strictly positive", names.tokens)
    if (parameters.top_n_tokens or 0) > names.most:
        given = f"Given: {parameters.top_n_tokens}"
        raise invalid(f"`{names.shown}` must be >= 0 and <= {names.most}. {given}", names.shown)


def answer_grammar(format: TextFormat | ObjectFormat | Format | None) -> Grammar | None:
    """The grammar of `response_format`; None for text."""
    if format is None or isinstance(format, TextFormat):
        return None
    if isinstance(format, ObjectFormat):
        format = JsonFormat(type="json", value=format.value or {"type": "object"})
    return _grammar(format, "response_format")


def _grammar(format: Format, name: str = "grammar") -> Grammar:
    """The core's grammar for a format; `name` is the option. Raises Rejected."""
    try:
        if isinstance(format, RegexFormat):
            return Grammar("regex", format.value)
        if isinstance(format, JsonFormat):
            text = format.value if isinstance(format.value, str) else json.dumps(format.value)
            return Grammar("json_schema", text)
        named = format.value or format.json_schema
        if named is None:
            raise invalid(f"{name} is not valid: the type json_schema needs a `json_schema`", name)
        return Grammar("json_schema", json.dumps(named.schema_))
    except ConfigError as error:
        raise invalid(f"{name} is not valid: {error}", name) from error
