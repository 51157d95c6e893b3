"""JSON schemas as pydantic writes them: what is written under them is what they describe."""

from __future__ import annotations

import re
from datetime import datetime, time
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import UUID4, Base64Bytes, BaseModel, StringConstraints, create_model

from purify_adapters.tool_calls import json_grammar
from purify_plugins import ConfigError, Grammar, Sampling
from purify_plugins.grammar import KEYS
from tests.adapters.gateways import stubs


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Typed(BaseModel):
    """Types whose schemas were refused, or led to answers that pydantic did not read."""

    id: UUID4
    at: datetime
    clock: time
    data: Base64Bytes
    by_colour: dict[Colour, int]
    by_word: dict[Literal["a", "b"], bool]
    by_pattern: dict[Annotated[str, StringConstraints(pattern="^k[0-9]$")], int]
    by_length: dict[Annotated[str, StringConstraints(min_length=1, max_length=2)], int]
    by_id: dict[UUID, int]


@pytest.mark.parametrize("name", Typed.model_fields)
def test_what_is_written_under_a_type_s_schema_is_of_that_type(name: str) -> None:
    field = create_model("Field", value=(Typed.model_fields[name].rebuild_annotation(), ...))
    purifier, grammar = stubs(), json_grammar(field.model_json_schema())
    answers = [
        purifier.generate("a", Sampling(max_tokens=600, seed=seed, grammar=grammar))[0] for seed in range(6)
    ]
    whole = [answer.text for answer in answers if answer.finish_reason == "eos"]
    assert whole
    for text in whole:
        field.model_validate_json(text)


def test_a_schema_that_is_no_object_and_overlapping_alternatives_are_refused_in_plain_words() -> None:
    with pytest.raises(ConfigError, match="a JSON schema is an object"):
        Grammar("json_schema", '["string"]')
    overlapping = {"oneOf": [{"type": "number"}, {"type": "integer"}]}
    with pytest.raises(ConfigError, match="no value fits two of its schemas; write anyOf"):
        Grammar.json_schema(overlapping)


@pytest.mark.parametrize("day", ["2024-02-29", "2000-02-29", "1999-12-31"])
def test_every_day_there_is_can_be_written(day: str) -> None:
    for format, text in {"date-time": f"{day}T00:00:00Z", "date": day}.items():
        pattern = KEYS[format]
        assert re.match(pattern, text)
        assert not re.match(pattern, text.replace("02-29", "02-30").replace("12-31", "11-31"))
    assert not re.match(KEYS["date"], "1900-02-29")
    assert not re.match(KEYS["date"], "2023-02-29")
