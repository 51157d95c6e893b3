"""The schema of a certificate, checked before its content is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from purify_plugins.certificates.ledger import Role
from purify_plugins.decode.strategies import Strategy
from purify_plugins.errors import NoCertificateError
from purify_plugins.utils.wording import must_be

Number = Annotated[str, StringConstraints(pattern=r"^(-?(0|[1-9][0-9]*)\.[0-9]{9}|-?inf)$")]
"""One spelling a number, so that a certificate has one canonical form: no leading zeros, ASCII digits."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TokenId = Annotated[int, Field(ge=0)]
StepRow = tuple[TokenId, Number, Number, Number, Number, Number, bool, Number]
Level = Literal["none", "mean", "window", "passage", "path"]


ABSENCES = {"missing": "is missing"}
"""pydantic's errors about a key itself, in words that follow the key's name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def check(cls, body: Any) -> Self:
        """The parsed body. Raises NoCertificateError, naming the first error."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            if first["type"] == "extra_forbidden":
                raise NoCertificateError(
                    f"the certificate has an unknown field {where!r}; nothing may be added to one, so keep "
                    "notes in a file beside it"
                ) from error
            why = ABSENCES.get(first["type"]) or must_be(first)
            raise NoCertificateError(f"the certificate is malformed at {where}, which {why}") from error


class AnswerFields(_Strict):
    sha256: Sha256
    bytes: int
    finish_reason: Literal["eos", "stop", "length"]
    limit: Annotated[int, Field(ge=1)]
    limited_by: Literal["max_tokens", "context", "plugin", "engine"]


class ContextFields(_Strict):
    id: str
    sha256: Sha256


class PluginFields(_Strict):
    name: str
    distribution: str
    version: str


class CalibrationFields(_Strict):
    sample: str
    text: Sha256
    tokens: Annotated[int, Field(ge=1)]
    llm: Sha256 | Literal[""]
    slm: Sha256 | Literal[""]
    llm_perplexity: float
    slm_perplexity: float
    limited: Annotated[float, Field(ge=0, le=1)]
    version: str


class ConfigurationFields(_Strict):
    sha256: Sha256


class MethodFields(_Strict):
    policy: str
    parameters: dict[str, Any]
    sampling: dict[str, Any]
    mode: Literal["sampled", "greedy", "slm-only"]
    walk: Strategy | Literal["in-engine"]
    llm_asked: Literal[False] = cast("Literal[False]", None)  # absent where it was asked
    constraints: Annotated[list[dict[str, Any]], Field(min_length=1)] = cast(
        "list[dict[str, Any]]", None
    )  # absent, where there are none
    plugins: list[PluginFields]
    edits: list[str]
    calibration: CalibrationFields = cast(
        "CalibrationFields", None
    )  # absent, where there is none: never null
    configuration: ConfigurationFields = cast("ConfigurationFields", None)  # absent, where none is recorded
    draws: Literal["system", "keyed"]
    claimed: Level
    guarantee: Level
    adversary: Literal["none", "weights", "engine"]
    reason: str
    meaning: str
    version: str


class MemberFields(BaseModel):
    """A member of a mixture: its identity, and its weight at the beginning."""

    model_config = ConfigDict(extra="allow", strict=True)

    weight: float
    name: str
    kind: str
    files: dict[str, Sha256] = {}


class ModelFields(BaseModel):
    """A source's identity, and what every certificate adds to it."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    kind: str
    engine: Literal["in-process", "trusted", "untrusted"]
    trusted: bool
    files: dict[str, Sha256] = {}
    alphabet: dict[str, Any] = {}
    members: dict[str, MemberFields] = {}
    share: float | int | None = None


class ModelsFields(_Strict):
    llm: ModelFields
    slm: ModelFields


class TotalsFields(_Strict):
    tokens: int
    log_ratio: Number
    kl: Number
    largest_step: Number
    largest_peak: Number
    surprisal: Number
    least_revealed: Number
    slm_only: int
    most_hidden: Number


class CertificateBody(_Strict):
    format: Literal["purify-certificate/2"]
    answer: AnswerFields
    prompt: list[int]
    context: list[ContextFields]
    models: ModelsFields
    vocabulary: Sha256
    method: MethodFields
    columns: list[str]
    steps: list[Annotated[StepRow, Field(strict=False)]]
    totals: TotalsFields
    limits: list[str]
    digest: Sha256


class StageFields(_Strict):
    name: str
    parameters: dict[str, Any]
    distribution: str
    version: str
    choices: Annotated[int, Field(ge=1)] | None


class DraftFields(_Strict):
    role: Role
    after: Annotated[int, Field(ge=0)]
    shown: Sha256 | None
    redo: Annotated[int, Field(ge=0)]
    redone: Annotated[int, Field(ge=0)]
    allowed: Number
    certificate: CertificateBody


class DraftSegmentFields(_Strict):
    kind: Literal["drawn", "restored"]
    name: str
    draft: Annotated[int, Field(ge=0)] | None
    start: Annotated[int, Field(ge=0, alias="from")]
    end: Annotated[int, Field(ge=0, alias="to")]


class OperatorSegmentFields(_Strict):
    kind: Literal["operator"]
    name: str
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class CheckFields(_Strict):
    name: str
    window: float | Literal["inf"]
    redo: Annotated[int, Field(ge=0)]
    judged: dict[str, Any]


class LedgerFields(_Strict):
    calls: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    most_calls: Annotated[int, Field(ge=1)]
    choices: Annotated[int, Field(ge=1)]
    read: Number
    added: Number
    spent: Number
    bound: Number | None
    reason: str


class ClaimFields(_Strict):
    guarantee: Level
    adversary: Literal["none", "weights", "engine"]
    reason: str
    meaning: str


class StagedAnswerFields(_Strict):
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    finish_reason: Literal["eos", "stop", "length", "refused"]


class StagedBody(_Strict):
    """The certificate of an answer that stages made."""

    format: Literal["purify-certificate/3"]
    answer: StagedAnswerFields
    stages: Annotated[list[StageFields], Field(min_length=1)]
    drafts: list[DraftFields]
    segments: list[DraftSegmentFields | OperatorSegmentFields]
    checks: list[CheckFields]
    ledger: LedgerFields
    claim: ClaimFields
    scores: dict[str, Any]
    totals: TotalsFields
    limits: list[str]
    digest: Sha256
