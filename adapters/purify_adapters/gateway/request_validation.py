"""From what a client sends to what the purifier is asked: every option honoured, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

ROOM = 4096
"""Tokens, prompt and answer together, where neither model says what it can read."""


@dataclass(frozen=True)
class OptionNames:
    """What a route calls its options, and how many of a row's likeliest tokens it shows at most."""

    prompt: str = "inputs"
    tokens: str = "max_new_tokens"
    shown: str = "top_n_tokens"
    most: int = 5


@dataclass(frozen=True)
class Generation:
    """One answer, as it is asked of the purifier.

    `input_length` counts the prompt's tokens as the SLM reads them; 0 where it does not tell. `top` is how
    many of each fused row's likeliest tokens are shown; `told` whether log-probabilities are, on
    `/v1/completions`.
    """

    prompt: Prompt
    sampling: Sampling
    input_length: int
    top: int = 0
    logprobs: bool = False


class RequestValidator:
    """Checks requests against what this pair of models can do. Raises Rejected, with TGI's names."""

    def __init__(self, purifier: Purifier, settings: Settings) -> None:
        self.purifier, self.settings = purifier, settings
        lengths = [each.context_length for each in (purifier.llm, purifier.slm) if each.context_length]
        self.max_total_tokens = settings.max_total_tokens or min(lengths, default=ROOM)

    @property
    def max_input_tokens(self) -> int:
        return self.max_total_tokens - 1

    def generate(self, inputs: str, asked: Parameters) -> Generation:
        """A request to `/generate` and its like."""
        for name in ("watermark", "decoder_input_details", "adapter_id"):
            if getattr(asked, name):
                raise unsupported(name)
        if asked.best_of not in (None, 1):
            raise unsupported("best_of", "choosing among answers spends a budget that no certificate counts")
        if not inputs:
            raise invalid("`inputs` cannot be empty")
        prompt = inputs if asked.truncate is None else self._truncated(inputs, asked.truncate)
        return self._generation(prompt, asked, _samples(asked))

    def chat(
        self,
        asked: ChatRequest,
        prompt: Chat,
        grammar: Grammar | None = None,
        names: OptionNames | None = None,
    ) -> Generation:
        """A request to `/v1/chat/completions` about this chat; `names` are another route's for the same."""
        _one_answer(asked, "n")
        name = "max_completion_tokens" if asked.max_tokens is None else "max_tokens"
        drawn = _openai(asked, getattr(asked, name))
        if not prompt.messages:
            raise invalid("`messages` cannot be empty", "messages")
        drawn.top_n_tokens = asked.top_logprobs if asked.logprobs else None
        names = names or OptionNames("messages", name, "top_logprobs", 20)
        return self._generation(prompt, drawn, asked.temperature != 0, grammar, names)

    def completions(self, asked: CompletionRequest) -> list[Generation]:
        """A request to `/v1/completions`: one answer for each of its prompts."""
        if asked.suffix:
            said = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Rejected(422, said, "suffix not supported")
        given = prompts_of(asked.prompt)
        if len(given) > self.settings.max_batch:
            said = f"Number of prompts exceeds the maximum allowed batch size of {self.settings.max_batch}"
            raise Rejected(422, said, "batch size exceeded")
        _one_answer(asked, "n", "best_of")
        drawn = _openai(asked, asked.max_tokens)
        drawn.top_n_tokens = asked.logprobs
        if not given or not all(given):
            raise invalid("`prompt` cannot be empty", "prompt")
        samples, shown = asked.temperature != 0, asked.logprobs is not None
        names = OptionNames("prompt", "max_tokens", "logprobs", 20)
        found = [self._generation(self._prompt(each), drawn, samples, names=names) for each in given]
        return [replace(each, logprobs=shown) for each in found]

    def _prompt(self, prompt: str | Sequence[int]) -> Prompt:
        """A prompt as the pair reads it; token ids are the SLM's, as `/tokenize` gives them."""
        if isinstance(prompt, str):
            return prompt
        if strange := [token for token in prompt if token >= len(self.vocabulary)]:
            raise invalid(f"`prompt` holds token {strange[0]}; there are {len(self.vocabulary)}")
        if self.vocabulary.fingerprint == self.purifier.vocabulary.fingerprint:
            return tuple(prompt)
        # The models meet in another alphabet, to which these ids mean nothing; their text does.
        return self.vocabulary.spell(prompt).decode(errors="replace")

    def _generation(
        self,
        prompt: Prompt,
        asked: Parameters,
        samples: bool,
        grammar: Grammar | None = None,
        names: OptionNames = OptionNames(),
    ) -> Generation:
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or ()
        _check(asked, names)
        if len(stops) > (most := self.settings.max_stop_sequences):
            raise invalid(f"`stop` supports up to {most} stop sequences. Given: {len(stops)}", "stop")
        length = self._length(prompt, names.prompt) if self.tokenises else 0
        sampling = Sampling(
            max_tokens=min(asked.max_new_tokens or self.max_total_tokens, self.max_total_tokens - length),
            temperature=(1.0 if asked.temperature is None else asked.temperature) if samples else 0.0,
            top_k=max(asked.top_k or 0, 0),
            top_p=1.0 if asked.top_p is None else asked.top_p,
            min_p=asked.min_p or 0.0,
            typical_p=1.0 if asked.typical_p is None else asked.typical_p,
            repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
            frequency_penalty=asked.frequency_penalty or 0.0,
            seed=None if asked.seed is None or asked.seed < 0 else asked.seed,
            stop=tuple(each for each in stops if each),  # an empty one ends nothing
            grammar=_grammar(asked.grammar) if asked.grammar else grammar,
        )
        if self.settings.require_guarantee:
            self._claimable(sampling)
        return Generation(prompt, sampling, length, asked.top_n_tokens or 0)

    def _claimable(self, sampling: Sampling) -> None:
        """Raise Rejected where no answer could claim a guarantee."""
        claim = self.purifier.claim(sampling)
        if claim.guarantee == "none":
            way = "ask for a sampled answer (`do_sample`, or a temperature above 0) without a `seed`"
            raise Rejected(422, f"no guarantee would hold for this answer: {claim.reason}; {way}", "refused")

    def _length(self, prompt: Prompt, name: str) -> int:
        """How many tokens a prompt has, which leave room for one more; `name` is what it is called."""
        try:
            length = len(self.encode(prompt))
        except TooLongError as error:
            length = error.length
        if length >= self.max_total_tokens:
            raise too_long(self.max_total_tokens, length, name)
        return length

    @property
    def tokenises(self) -> bool:
        """Whether the SLM tells how it reads a prompt; a remote one may not."""
        return self.purifier.slm.inner.encodes

    def encode(self, prompt: Prompt) -> Sequence[int]:
        """The prompt's token ids as the SLM reads them. Raises Rejected when it does not say."""
        if not self.tokenises:
            raise unsupported("truncate", "the SLM does not tell its tokens")
        return self.purifier.slm.inner.encode(prompt)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the ids of `encode` spell."""
        return self.purifier.slm.inner.vocabulary

    def _truncated(self, text: str, most: int) -> str:
        """The text of its last `most` tokens."""
        if not 0 < most <= self.max_input_tokens:
            limit = self.max_input_tokens
            raise invalid(f"`truncate` must be strictly positive and less than {limit}. Given: {most}")
        tokens = self._whole(text)
        return self.vocabulary.spell(tokens[-most:]).decode(errors="ignore") if len(tokens) > most else text

    def _whole(self, text: str) -> Sequence[int]:
        """All of a text's tokens, however many: a model's limit is for what it is given to read."""
        tokenizer = self.purifier.slm.inner.tokenizer
        return list(tokenizer(text)["input_ids"]) if tokenizer else self.encode(text)


def _samples(asked: Parameters) -> bool:
    """Whether TGI would sample: `do_sample`, or anything that only sampling can heed."""
    shaping = (asked.temperature, asked.top_p, asked.typical_p)
    warmed = any(value not in (None, 1.0) for value in shaping) or bool(asked.min_p)
    return bool(asked.do_sample) or warmed or (asked.top_k or 0) > 0


def _one_answer(asked: ChatRequest | CompletionRequest, *names: str) -> None:
    """Refuse what asks for several answers."""
    for name in names:
        if getattr(asked, name) not in (None, 1):
            raise unsupported(name, "each request gets one answer, and one certificate")


def _openai(asked: ChatRequest | CompletionRequest, tokens: int | None) -> Parameters:
    """OpenAI's options, and what vLLM adds to them, by TGI's names.

    Temperature 0 is greedy, as it was meant; a limit of -1 is none.
    """
    return Parameters(
        temperature=None if asked.temperature == 0 else asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        typical_p=asked.typical_p,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        max_new_tokens=None if tokens == -1 else tokens,
        stop=asked.stop,
        seed=asked.seed,
    )


def prompts_of(prompt: Any) -> Sequence[str | Sequence[int]]:
    """A lone prompt is a batch of one."""
    alone = isinstance(prompt, str) or any(isinstance(each, int) for each in prompt[:1])
    return [prompt] if alone else prompt


def _check(asked: Parameters, names: OptionNames) -> None:
    """TGI's own validation, in its order and names; a value that changes nothing is fine, though."""
    if asked.temperature is not None and asked.temperature <= 0:
        raise invalid("`temperature` must be strictly positive", "temperature")
    if asked.repetition_penalty is not None and asked.repetition_penalty <= 0:
        raise invalid("`repetition_penalty` must be strictly positive", "repetition_penalty")
    if asked.frequency_penalty is not None and abs(asked.frequency_penalty) > 2:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0", "frequency_penalty")
    for name in ("top_p", "typical_p"):
        if (value := getattr(asked, name)) is not None and not 0 < value <= 1:
            raise invalid(f"`{name}` must be > 0.0 and <= 1.0", name)
    if asked.top_k is not None and asked.top_k < -1:
        raise invalid("`top_k` must be strictly positive, or 0 or -1 for all", "top_k")
    if asked.min_p is not None and not 0 <= asked.min_p <= 1:
        raise invalid("`min_p` must be >= 0.0 and <= 1.0", "min_p")
    if asked.max_new_tokens == 0:
        raise invalid(f"`{names.tokens}` must be strictly positive", names.tokens)
    if (asked.top_n_tokens or 0) > names.most:
        said = f"`{names.shown}` must be >= 0 and <= {names.most}. Given: {asked.top_n_tokens}"
        raise invalid(said, names.shown)


def answer_grammar(asked: TextFormat | ObjectFormat | Format | None) -> Grammar | None:
    """What `response_format` makes of an answer: nothing, any object, or a grammar of TGI's."""
    if asked is None or isinstance(asked, TextFormat):
        return None
    if isinstance(asked, ObjectFormat):
        asked = JsonFormat(type="json", value=asked.value or {"type": "object"})
    return _grammar(asked, "response_format")


def _grammar(asked: Format, name: str = "grammar") -> Grammar:
    """A grammar as the core takes it; `name` is the option that asks for it."""
    try:
        if isinstance(asked, RegexFormat):
            return Grammar("regex", asked.value)
        if isinstance(asked, JsonFormat):
            text = asked.value if isinstance(asked.value, str) else json.dumps(asked.value)
            return Grammar("json_schema", text)
        named = asked.value or asked.json_schema
        if named is None:
            raise invalid(f"{name} is not valid: the type json_schema needs a `json_schema`", name)
        return Grammar("json_schema", json.dumps(named.schema_))
    except ConfigError as error:
        raise invalid(f"{name} is not valid: {error}", name) from error
