"""The form of a provenance card, which is also its JSON schema."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from purify_plugins.canonical_json import model_digest

FORMAT = "purify-card/1"
Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Parameters = Annotated[int, Field(ge=1)]


class CardPart(BaseModel):
    """A part of a card; nothing that its schema does not name may stand in it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CardModel(CardPart):
    """The model that a card is of, as certificates name it."""

    name: Said
    sha256: Digest = Field(description="Of its files: `purify verify --slm-digest` takes it.")
    files: Annotated[dict[str, Digest], Field(min_length=1)] = Field(description="SHA-256 of each, by name.")
    vocabulary: Digest = Field(description="The fingerprint of its tokenizer's vocabulary.")
    parameters: Parameters | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if model_digest(self.files) != self.sha256:
            raise ValueError("sha256 is not the digest of files; write what `purify slm card` says")
        return self

    def differing(self, files: Mapping[str, str]) -> list[str]:
        """The names of the files that are not the card's, or missing."""
        return sorted(name for name in {*files, *self.files} if files.get(name) != self.files.get(name))


class CardLicence(CardPart):
    """Under what terms the model may be used."""

    name: Said = Field(description="An SPDX identifier such as Apache-2.0, or the licence's name.")
    source: Said = Field(description="Where that stands: a file of the model, a URL, a contract.")


class CardData(CardPart):
    """A data set that the model was trained on."""

    name: Said
    origin: Said = Field(description="Where it is from: a URL, a file with its SHA-256, who gave it.")
    licence: Said = Field(description="On what terms it was used: a licence, public domain, a contract.")


def _day(text: str) -> str:
    """Raise ValueError for what is no day."""
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a day, such as 2026-11-29") from None
    return text


class CardCheck(CardPart):
    """Something that was looked at, what was found, and by whom."""

    what: Said
    found: Said
    by: Said
    on: Said = Field(description="The day, such as 2026-11-29.")
    _on = field_validator("on")(_day)


class CardAuthor(CardPart):
    """Who says all this, and answers for it."""

    name: Said
    contact: Said
    on: Said = Field(description="The day, such as 2026-11-29.")
    _on = field_validator("on")(_day)


class CardForm(CardPart):
    """A provenance card: what a model was trained on, under which licence, what was checked, by whom."""

    format: Literal["purify-card/1"]
    model: CardModel
    licence: CardLicence
    training_data: Annotated[list[CardData], Field(min_length=1)]
    checks: Annotated[list[CardCheck], Field(min_length=1)]
    vouched_by: CardAuthor
    notes: str = ""


def card_schema() -> dict[str, Any]:
    """The JSON schema of a card."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **CardForm.model_json_schema()}
