"""From what a client sends to what the purifier is asked: every option honoured, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.rejections import Rejected, invalid, unsupported
from purify_adapters.gateway.schemas import (
    Call,
    ChatRequest,
    CompletionRequest,
    Format,
    JsonFormat,
    Message,
    ObjectFormat,
    Parameters,
    RegexFormat,
    TextFormat,
)
from purify_plugins.errors import ConfigError
from purify_plugins.types import Chat, Grammar, Prompt, Sampling, Vocabulary

if TYPE_CHECKING:
    from purify_adapters.gateway.settings import Settings
    from purify_plugins.purifier import Purifier

TOP, OPENAI_TOP = 5, 20
"""The most tokens of a row that TGI shows unless it is told otherwise, and that OpenAI does."""
ROOM = 4096
"""Tokens, prompt and answer together, where neither model says what it can read."""
FOREIGN = ("presence_penalty", "logit_bias", "functions", "function_call", "audio")
"""Options of OpenAI's chats that would change an answer, and that fusion does not have."""


@dataclass(frozen=True)
class Ask:
    """One answer, as it is asked of the purifier.

    `input_length` counts the prompt's tokens as the SLM reads them; 0 where it does not tell. `top` is how
    many of each fused row's likeliest tokens are shown; `told` whether log-probabilities are, on
    `/v1/completions`.
    """

    prompt: Prompt
    sampling: Sampling
    input_length: int
    characters: int = 0
    top: int = 0
    told: bool = False


class Asking:
    """Checks requests against what this pair of models can do. Raises Rejected, with TGI's words."""

    def __init__(self, purifier: Purifier, settings: Settings) -> None:
        self.purifier, self.settings = purifier, settings
        lengths = [each.context_length for each in (purifier.llm, purifier.slm) if each.context_length]
        self.max_total_tokens = settings.max_total_tokens or min(lengths, default=ROOM)

    @property
    def max_input_tokens(self) -> int:
        return self.max_total_tokens - 1

    def generation(self, inputs: str, asked: Parameters) -> Ask:
        """A request to `/generate` and its like."""
        for name in ("watermark", "decoder_input_details", "adapter_id"):
            if getattr(asked, name):
                raise unsupported(name)
        if asked.best_of not in (None, 1):
            raise unsupported("best_of", "choosing among answers spends a budget that no certificate counts")
        if not inputs:
            raise invalid("`inputs` cannot be empty")
        prompt = inputs if asked.truncate is None else self._truncated(inputs, asked.truncate)
        return self._ask(prompt, asked, _samples(asked), len(inputs))

    def chat(self, asked: ChatRequest, prompt: Chat | None = None, grammar: Grammar | None = None) -> Ask:
        """A request to `/v1/chat/completions`; `prompt` is the chat if tools have changed it."""
        _refuse_foreign(asked, FOREIGN, ("n",))
        limit = asked.max_tokens if asked.max_tokens is not None else asked.max_completion_tokens
        drawn = _openai(asked, limit)
        chat = prompt or Chat(tuple(map(message, asked.messages)))
        if not chat.messages:
            raise invalid("`messages` cannot be empty")
        drawn.top_n_tokens = asked.top_logprobs if asked.logprobs else None
        grammar = _format(asked.response_format) or grammar
        return self._ask(chat, drawn, asked.temperature != 0, _characters(chat), grammar, OPENAI_TOP)

    def completions(self, asked: CompletionRequest) -> list[Ask]:
        """A request to `/v1/completions`: one answer for each of its prompts."""
        if asked.suffix is not None:
            said = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Rejected(422, said, "suffix not supported")
        given = several(asked.prompt)
        if len(given) > self.settings.max_batch:
            said = f"Number of prompts exceeds the maximum allowed batch size of {self.settings.max_batch}"
            raise Rejected(422, said, "batch size exceeded")
        _refuse_foreign(asked, ("presence_penalty", "logit_bias", "echo"), ("n", "best_of"))
        drawn = _openai(asked, asked.max_tokens)
        drawn.top_n_tokens = asked.logprobs
        if not given or not all(given):
            raise invalid("`prompt` cannot be empty")
        samples, told = asked.temperature != 0, asked.logprobs is not None
        asks = [
            self._ask(self._prompt(each), drawn, samples, len(each), most_shown=OPENAI_TOP) for each in given
        ]
        return [replace(ask, told=told) for ask in asks]

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

    def _ask(
        self,
        prompt: Prompt,
        asked: Parameters,
        samples: bool,
        characters: int,
        grammar: Grammar | None = None,
        most_shown: int = TOP,
    ) -> Ask:
        _check(asked, self.settings.max_stop_sequences, most_shown)
        length = len(self.encode(prompt)) if self.tokenises else 0
        sampling = Sampling(
            max_tokens=self._room(length, asked.max_new_tokens),
            temperature=(1.0 if asked.temperature is None else asked.temperature) if samples else 0.0,
            top_k=max(asked.top_k or 0, 0),
            top_p=1.0 if asked.top_p is None else asked.top_p,
            min_p=asked.min_p or 0.0,
            typical_p=1.0 if asked.typical_p is None else asked.typical_p,
            repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
            frequency_penalty=asked.frequency_penalty or 0.0,
            seed=asked.seed,
            stop=tuple(asked.stop or ()),
            grammar=_grammar(asked.grammar) if asked.grammar else grammar,
        )
        return Ask(prompt, sampling, length, characters, asked.top_n_tokens or 0)

    def _room(self, length: int, wanted: int | None) -> int:
        """How many tokens the answer may have."""
        most = self.max_total_tokens
        if wanted is not None and length + wanted > most:
            raise invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {most}. "
                f"Given: {length} `inputs` tokens and {wanted} `max_new_tokens`"
            )
        if length > self.max_input_tokens:
            raise invalid(f"`inputs` must have less than {most} tokens. Given: {length}")
        return most - length if wanted is None else wanted

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


def _refuse_foreign(asked: Any, off: Sequence[str], single: Sequence[str]) -> None:
    """Options of OpenAI's that TGI ignores or bends: refused by name where they would change anything."""
    for name in off:
        if getattr(asked, name):
            raise unsupported(name)
    for name in single:
        if getattr(asked, name) not in (None, 1):
            raise unsupported(name, "each request gets one answer, and one certificate")


def _openai(asked: ChatRequest | CompletionRequest, tokens: int | None) -> Parameters:
    """OpenAI's options, and what vLLM adds to them, by TGI's names.

    Temperature 0 is greedy, as it was meant; a limit of -1 is none, and so is a seed below 0.
    """
    return Parameters(
        temperature=None if asked.temperature == 0 else asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        max_new_tokens=None if tokens == -1 else tokens,
        stop=[asked.stop] if isinstance(asked.stop, str) else asked.stop,
        seed=None if asked.seed is None or asked.seed < 0 else asked.seed,
    )


def several(prompt: Any) -> Sequence[str | Sequence[int]]:
    """A lone prompt is a batch of one."""
    alone = isinstance(prompt, str) or any(isinstance(each, int) for each in prompt[:1])
    return [prompt] if alone else prompt


def _check(asked: Parameters, stops: int, most_shown: int) -> None:
    """TGI's own validation, in its order and words; a value that changes nothing is fine, though."""
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
        raise invalid("`max_new_tokens` must be strictly positive")
    if (asked.top_n_tokens or 0) > most_shown:
        name = "top_n_tokens" if most_shown == TOP else "top_logprobs"
        raise invalid(f"`{name}` must be >= 0 and <= {most_shown}. Given: {asked.top_n_tokens}")
    if len(asked.stop or ()) > stops:
        raise invalid(f"`stop` supports up to {stops} stop sequences. Given: {len(asked.stop or ())}")


def _format(asked: TextFormat | ObjectFormat | Format | None) -> Grammar | None:
    """What `response_format` makes of an answer: nothing, any object, or a grammar of TGI's."""
    if asked is None or isinstance(asked, TextFormat):
        return None
    if isinstance(asked, ObjectFormat):
        return _grammar(JsonFormat(type="json", value=asked.value or {"type": "object"}))
    return _grammar(asked)


def _grammar(asked: Format) -> Grammar:
    """A grammar as the core takes it."""
    try:
        if isinstance(asked, RegexFormat):
            return Grammar("regex", asked.value)
        if isinstance(asked, JsonFormat):
            text = asked.value if isinstance(asked.value, str) else json.dumps(asked.value)
            return Grammar("json_schema", text)
        named = asked.value or asked.json_schema
        if named is None:
            raise invalid("grammar is not valid: a json_schema needs a `value`")
        return Grammar("json_schema", json.dumps(named.schema_))
    except ConfigError as error:
        raise invalid(f"grammar is not valid: {error}") from error


def message(said: Message) -> Mapping[str, Any]:
    """A message as chat templates read it. Raises Rejected for pictures and other parts without text."""
    if isinstance(said.content, list):
        if strange := [part.type for part in said.content if part.type != "text"]:
            raise unsupported(strange[0], "only text is read")
        content = "".join(part.text or "" for part in said.content)
    else:
        content = said.content or ""
    found: dict[str, Any] = {
        "role": "system" if said.role == "developer" else said.role,  # OpenAI's newer word for it
        "content": content,
        "name": said.name,
        "tool_call_id": said.tool_call_id,
    }
    calls = [_call(call) for call in said.tool_calls or ()]
    found |= {"tool_calls": calls or None}
    return {key: value for key, value in found.items() if value is not None}


def _call(call: Call) -> Mapping[str, Any]:
    """A call that was made before; its arguments as an object, which OpenAI puts into a string."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        arguments = arguments or "{}"
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise invalid(f"the arguments of the call {call.function.name!r} are no JSON") from None
    function = {"name": call.function.name, "arguments": {} if arguments is None else arguments}
    return {"id": call.id, "type": "function", "function": function}


def _characters(chat: Chat) -> int:
    return sum(len(said["content"]) for said in chat.messages)
