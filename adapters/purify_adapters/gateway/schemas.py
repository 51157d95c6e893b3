"""Schemas of requests: TGI's and OpenAI's field names, types and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from purify_adapters.gateway.unsupported_options import refuse_foreign

U32 = Annotated[int, Field(ge=0, lt=2**32)]
U64 = Annotated[int, Field(ge=0, lt=2**64)]
OrNone = Annotated[int, Field(ge=-1, lt=2**63)]
"""A number, or -1 for none."""
I64 = Annotated[int, Field(ge=-(2**63), lt=2**64)]
"""A seed; negative: none."""
Ids = list[U32]
"""A prompt as token ids."""
I32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
F32 = Annotated[float, Field(ge=-3.4e38, le=3.4e38)]
Strings = list[str]
Stops = str | Strings
"""One stop string, or several."""


class Body(BaseModel):
    """A request's body; strict: a number in quotes is refused."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Options(Body):
    """A body whose unknown fields are refused by name, not ignored; see `unsupported_options`."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _own(self) -> Self:
        refuse_foreign(self.model_extra or {}, [*type(self).model_fields])
        return self


class NamedSchema(Body):
    name: str | None = None
    schema_: Any = Field(alias="schema")


class JsonFormat(Body):
    """TGI's JSON schema format, by either of its names."""

    type: Literal["json", "json_object"]
    value: Any


class ChatJsonFormat(JsonFormat):
    """The same in a chat, where `json_object` is OpenAI's."""

    type: Literal["json"]


class ObjectFormat(Body):
    """OpenAI's: any JSON object. TGI's: the schema in `value`."""

    type: Literal["json_object"]
    value: Any = None


class TextFormat(Body):
    type: Literal["text"]


class RegexFormat(Body):
    type: Literal["regex"]
    value: str


class SchemaFormat(Body):
    type: Literal["json_schema"]
    value: NamedSchema | None = None
    json_schema: NamedSchema | None = None


Format = Annotated[JsonFormat | RegexFormat | SchemaFormat, Field(discriminator="type")]
ChatFormat = Annotated[
    TextFormat | ObjectFormat | ChatJsonFormat | RegexFormat | SchemaFormat, Field(discriminator="type")
]


class Parameters(Options):
    best_of: U64 | None = None
    temperature: F32 | None = None
    repetition_penalty: F32 | None = None
    frequency_penalty: F32 | None = None
    top_k: I32 | None = None
    top_p: F32 | None = None
    typical_p: F32 | None = None
    min_p: F32 | None = None
    do_sample: bool | None = False
    max_new_tokens: U32 | None = None
    return_full_text: bool | None = None
    stop: Stops | None = Field(default_factory=list)
    truncate: U64 | None = None
    watermark: bool | None = False
    details: bool | None = False
    decoder_input_details: bool | None = False
    seed: I64 | None = None
    top_n_tokens: U32 | None = None
    grammar: Format | None = None
    adapter_id: str | None = None


def _sampling() -> Parameters:
    """TGI's default for a request without `parameters`."""
    return Parameters(do_sample=True)


class GenerateRequest(Options):
    inputs: str
    parameters: Parameters = Field(default_factory=_sampling)


class CompatGenerateRequest(GenerateRequest):
    stream: bool = False


class ContentPart(Body):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    name: str
    arguments: Any = None


class MessageCall(Body):
    id: str | None = None
    type: str | None = "function"
    function: FunctionCall


class Message(Body):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageCall] | None = None
    tool_call_id: str | None = None


class Function(Body):
    name: str
    description: str | None = None
    parameters: Any = Field(default=None, alias="parameters")


class Tool(Body):
    type: Literal["function"] = "function"
    function: Function


class StreamOptions(Body):
    include_usage: bool | None = False


class ChatRequest(Options):
    messages: list[Message]
    model: str | None = None
    user: str | None = None
    frequency_penalty: F32 | None = None
    logprobs: bool | Literal[0] | None = None
    top_logprobs: U32 | None = None
    max_tokens: OrNone | None = None
    max_completion_tokens: OrNone | None = None
    n: U32 | None = None
    stop: Stops | None = None
    stream: bool | None = False
    seed: I64 | None = None
    temperature: F32 | None = None
    top_p: F32 | None = None
    top_k: I32 | None = None
    min_p: F32 | None = None
    typical_p: F32 | None = None
    repetition_penalty: F32 | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    tool_prompt: str | None = None
    response_format: ChatFormat | None = None
    stream_options: StreamOptions | None = None


class ResponseItemPart(Body):
    type: str
    text: str | None = None


class ResponseItem(Body):
    """A turn of a conversation on `/v1/responses`: a message, a call, a call's result, or reasoning."""

    type: str = "message"
    role: str | None = None
    content: str | list[ResponseItemPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[ResponseItemPart] | None = None


class TextOptions(Options):
    format: Any = None
    verbosity: str | None = None


class ResponseRequest(Options):
    input: str | list[ResponseItem]
    model: str | None = None
    seed: I64 | None = None
    user: str | None = None
    instructions: str | None = None
    max_output_tokens: OrNone | None = None
    temperature: F32 | None = None
    top_p: F32 | None = None
    top_k: I32 | None = None
    min_p: F32 | None = None
    repetition_penalty: F32 | None = None
    top_logprobs: U32 | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None


class CompletionRequest(Options):
    prompt: str | Strings | Ids | list[Ids]
    model: str | None = None
    user: str | None = None
    max_tokens: OrNone | None = None
    temperature: F32 | None = None
    top_p: F32 | None = None
    top_k: I32 | None = None
    min_p: F32 | None = None
    typical_p: F32 | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    seed: I64 | None = None
    suffix: str | None = None
    repetition_penalty: F32 | None = None
    frequency_penalty: F32 | None = None
    stop: Stops | None = None
    n: U32 | None = None
    best_of: U32 | None = None
    logprobs: U32 | None = None
