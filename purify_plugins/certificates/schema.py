"""The schema of a certificate, checked before its content is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from purify_plugins.certificates.fields import Fields, Least, Most, Spelled
from purify_plugins.certificates.ledger import Role
from purify_plugins.decode.strategies import Strategy

Number = Annotated[str, Spelled(r"-?(0|[1-9][0-9]*)\.[0-9]{9}|-?inf", "a number with nine decimals")]
"""One spelling a number, so that a certificate has one canonical form: no leading zeros, ASCII digits."""
Sha256 = Annotated[str, Spelled("[0-9a-f]{64}", "a SHA-256")]
TokenId = Annotated[int, Least(0)]
StepRow = tuple[TokenId, Number, Number, Number, Number, Number, bool, Number]
Level = Literal["none", "mean", "window", "passage", "path"]
ABSENT: Any = None
"""The default of a field that may be left out, and is never null."""


class AnswerFields(Fields):
    sha256: Sha256
    bytes: int
    finish_reason: Literal["eos", "stop", "length"]
    limit: Annotated[int, Least(1)]
    limited_by: Literal["max_tokens", "context", "plugin", "engine"]


class ContextFields(Fields):
    id: str
    sha256: Sha256


class PluginFields(Fields):
    name: str
    distribution: str
    version: str


class CalibrationFields(Fields):
    sample: str
    text: Sha256
    tokens: Annotated[int, Least(1)]
    llm: Sha256 | Literal[""]
    slm: Sha256 | Literal[""]
    llm_perplexity: float
    slm_perplexity: float
    limited: Annotated[float, Least(0), Most(1)]
    version: str


class WatermarkFields(Fields):
    key: Annotated[str, Spelled("[0-9a-f]{32}", "a watermark's id")]
    context: Annotated[int, Least(1), Most(64)]
    tokens: Annotated[int, Least(0)]


class ConfigurationFields(Fields):
    sha256: Sha256


class MethodFields(Fields):
    policy: str
    parameters: dict[str, Any]
    sampling: dict[str, Any]
    mode: Literal["sampled", "greedy", "slm-only"]
    walk: Strategy | Literal["in-engine"]
    llm_asked: Literal[False] = ABSENT  # where it was asked
    constraints: Annotated[list[dict[str, Any]], Least(1)] = ABSENT  # where there are none
    watermark: WatermarkFields = ABSENT  # where no answer is marked
    plugins: list[PluginFields]
    edits: list[str]
    calibration: CalibrationFields = ABSENT  # where there is none
    configuration: ConfigurationFields = ABSENT  # where none is recorded
    draws: Literal["system", "keyed", "marked"]
    claimed: Level
    guarantee: Level
    adversary: Literal["none", "weights", "engine"]
    reason: str
    meaning: str
    version: str


class MemberFields(Fields, open=True):
    """A member of a mixture: its identity, and its weight at the beginning."""

    weight: float
    name: str
    kind: str
    files: dict[str, Sha256] = ABSENT


class CardFields(Fields):
    sha256: Sha256


class SignatureFields(Fields):
    sha256: Sha256
    key: Sha256


class ModelFields(Fields, open=True):
    """A source's identity, and what every certificate adds to it."""

    name: str
    kind: str
    engine: Literal["in-process", "trusted", "untrusted"]
    trusted: bool
    files: dict[str, Sha256] = ABSENT
    card: CardFields = ABSENT
    signature: SignatureFields = ABSENT
    alphabet: dict[str, Any] = ABSENT
    members: dict[str, MemberFields] = ABSENT
    share: float | int | None = None


class ModelsFields(Fields):
    llm: ModelFields
    slm: ModelFields


class TotalsFields(Fields):
    tokens: int
    log_ratio: Number
    kl: Number
    largest_step: Number
    largest_peak: Number
    surprisal: Number
    least_revealed: Number
    slm_only: int
    most_hidden: Number


class CertificateBody(Fields):
    format: Literal["purify-certificate/2"]
    answer: AnswerFields
    prompt: list[int]
    context: list[ContextFields]
    models: ModelsFields
    vocabulary: Sha256
    method: MethodFields
    columns: list[str]
    steps: list[StepRow]
    totals: TotalsFields
    limits: list[str]
    digest: Sha256


class StageFields(Fields):
    name: str
    parameters: dict[str, Any]
    distribution: str
    version: str
    choices: Annotated[int, Least(1)] | None


class DraftFields(Fields):
    role: Role
    after: Annotated[int, Least(0)]
    shown: Sha256 | None
    redo: Annotated[int, Least(0)]
    redone: Annotated[int, Least(0)]
    allowed: Number
    certificate: CertificateBody


class DraftSegmentFields(Fields):
    kind: Literal["drawn", "restored"]
    name: str
    draft: Annotated[int, Least(0)] | None
    from_: Annotated[int, Least(0)]
    to: Annotated[int, Least(0)]


class OperatorSegmentFields(Fields):
    kind: Literal["operator"]
    name: str
    sha256: Sha256
    bytes: Annotated[int, Least(0)]


class CheckFields(Fields):
    name: str
    window: float | Literal["inf"]
    redo: Annotated[int, Least(0)]
    judged: dict[str, Any]


class LedgerFields(Fields):
    calls: Annotated[int, Least(0)]
    failed: Annotated[int, Least(0)]
    most_calls: Annotated[int, Least(1)]
    choices: Annotated[int, Least(1)]
    read: Number
    added: Number
    spent: Number
    bound: Number | None
    reason: str


class ClaimFields(Fields):
    guarantee: Level
    adversary: Literal["none", "weights", "engine"]
    reason: str
    meaning: str


class StagedAnswerFields(Fields):
    sha256: Sha256
    bytes: Annotated[int, Least(0)]
    finish_reason: Literal["eos", "stop", "length", "refused"]


class StagedBody(Fields):
    """The certificate of an answer that stages made."""

    format: Literal["purify-certificate/3"]
    answer: StagedAnswerFields
    stages: Annotated[list[StageFields], Least(1)]
    drafts: list[DraftFields]
    segments: list[DraftSegmentFields | OperatorSegmentFields]
    checks: list[CheckFields]
    ledger: LedgerFields
    claim: ClaimFields
    scores: dict[str, Any]
    totals: TotalsFields
    limits: list[str]
    digest: Sha256
