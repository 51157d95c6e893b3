"""`Grammar`: a constraint on an answer's text, checked when it is made and compiled for llguidance.

JSON schemas are rewritten as far as llguidance can follow them; an error names the property it cannot follow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

from purify_plugins.errors import ConfigError
from purify_plugins.utils.wording import reason

LONGEST_GRAMMAR = 131_072
"""The most characters of a grammar: compiling a longer one takes seconds before the first token."""


@dataclass(frozen=True)
class Grammar:
    """A constraint on the whole text of an answer, enforced by llguidance.

    `kind` "json_schema" takes a JSON schema, "regex" a regular expression, "lark" a grammar in
    llguidance's dialect of Lark. Raises ConfigError for a grammar that cannot be followed.
    """

    kind: Literal["json_schema", "regex", "lark"]
    text: str

    def __post_init__(self) -> None:
        if self.kind not in ("json_schema", "regex", "lark"):
            raise ConfigError(f"grammar: kind must be 'json_schema', 'regex' or 'lark', not {self.kind!r}")
        if not isinstance(self.text, str):
            raise ConfigError(f"grammar: text must be text, not {type(self.text).__name__}")
        if not self.text.strip():
            raise ConfigError("grammar: text must not be empty")
        if len(self.text) > LONGEST_GRAMMAR:
            raise ConfigError(
                f"grammar: text has {len(self.text):,} characters, at most {LONGEST_GRAMMAR:,} are followed; "
                "simplify it"
            )
        check(self)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Self:
        """JSON that satisfies a schema; properties come in the schema's order."""
        return cls("json_schema", json.dumps(schema, ensure_ascii=False))

    @classmethod
    def of(cls, grammar: Mapping[str, Any]) -> Self:
        """The grammar whose fields a mapping gives; any other mapping is a JSON schema."""
        return cls(**grammar) if grammar.keys() == {"kind", "text"} else cls.json_schema(grammar)


FREE = '%llguidance {"no_forcing": true}\n'
"""Allows every tokenization of forced text, not only the canonical one."""


def lark(grammar: Grammar) -> str:
    """The grammar in llguidance's dialect of Lark."""
    if grammar.kind == "lark":
        return FREE + grammar.text
    if grammar.kind == "regex":
        from llguidance import regex_to_lark

        one_line = grammar.text.replace("\n", "\\n")
        return f"{FREE}start: /{regex_to_lark(one_line)}/"
    return f"{FREE}start: {json_rule(json.loads(grammar.text))}"


@lru_cache(maxsize=64)
def check(grammar: Grammar) -> None:
    """Raise ConfigError for a grammar that cannot be followed."""
    from llguidance import LLMatcher

    try:
        wrong, messages = LLMatcher.validate_grammar_with_warnings(lark(grammar))
    except RecursionError:
        wrong, messages = True, ["it is nested too deeply"]
    except (TypeError, ValueError) as error:  # the text is no JSON, or no JSON object
        wrong, messages = True, [str(error)]
    if wrong:
        advice = _advice(messages[0])
        if grammar.kind == "json_schema":
            raise refuse(grammar.text, advice)
        raise ConfigError(f"this {grammar.kind} grammar cannot be followed: {advice}; correct or simplify it")


def _advice(message: str) -> str:
    """llguidance's reason on one line, without the listing of what it was given."""
    told = re.split(r"\n\s*1 \| ", message)[0]
    return reason(re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", told))


SPACE = r"( |\n {0,24})?"
"""White space in JSON: enough to indent; without a bound an uncertain model writes nothing else."""
NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
"""Keywords whose values are mappings from names to schemas."""
LITERAL = ("enum", "const", "default", "examples")
"""Keywords whose values are plain JSON, not schemas."""


DAY = r"((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
LEAP = r"([1-9]\d(0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29"
DATE = rf"([1-9]\d{{3}}-{DAY}|{LEAP})"
CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
PATTERNS = {
    "date-time": rf"^{DATE}T{CLOCK}$",
    "time": rf"^{CLOCK}$",
    "base64": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    **{f"uuid{version}": UUID % version for version in range(1, 9)},
}
"""Formats as patterns: llguidance allows leap seconds, which Python cannot parse, and lacks uuid4."""
KEYS = {**PATTERNS, "date": f"^{DATE}$", "uuid": UUID % "[1-8]"}
"""Formats of the names of properties."""
SILENT = ("title", "description", "type", "examples", "default")
"""Keywords of a schema of property names that constrain nothing."""


def json_rule(schema: Any) -> str:
    """A rule's right-hand side, in Lark, for the JSON values that a schema describes. Raises ConfigError."""
    if not isinstance(schema, dict | bool):
        raise ConfigError(f"a JSON schema is an object, such as {{'type': 'object'}}, not {schema!r:.60}")
    return _rule({} if schema is True else supported(schema))


def _rule(schema: Any) -> str:
    return f"%json {json.dumps({'x-guidance': {'whitespace_pattern': SPACE}, **schema})}"


def supported(schema: Any) -> Any:
    """The schema as llguidance can follow it, without annotations that no grammar can follow.

    `format` is an annotation by JSON Schema's own rules (pydantic writes "path", "password", "binary"),
    and where llguidance does not know one it is left out. So is `uniqueItems`, which pydantic writes of
    a set: reading the array into a set makes its items unique. `propertyNames` becomes properties,
    or a pattern of them.
    """
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    return _supported(schema, definitions if isinstance(definitions, dict) else {})


def _supported(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_supported(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = _patterned(_named(schema, definitions))
    return {
        key: _inside(key, value, definitions) for key, value in schema.items() if not _annotates(key, value)
    }


def _inside(key: str, value: Any, definitions: Mapping[str, Any]) -> Any:
    if key in NAMED and isinstance(value, dict):
        return {name: _supported(part, definitions) for name, part in value.items()}
    return value if key in LITERAL else _supported(value, definitions)


def _patterned(schema: dict[str, Any]) -> dict[str, Any]:
    """A text's format as the pattern that is known of it, unless it has one of its own."""
    pattern = PATTERNS.get(str(schema.get("format")))
    if pattern is None or "pattern" in schema or schema.get("type") != "string":
        return schema
    return {**{key: value for key, value in schema.items() if key != "format"}, "pattern": pattern}


def _named(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """An object's `propertyNames`, which pydantic writes of a dict's keys, as properties or their pattern."""
    names = schema.get("propertyNames")
    if not isinstance(names, dict) or {"properties", "patternProperties"} & schema.keys():
        return schema
    names = definitions.get(str(names.get("$ref", "")).removeprefix("#/$defs/"), names)
    value = schema.get("additionalProperties", True)
    rest = {key: part for key, part in schema.items() if key not in ("propertyNames", "additionalProperties")}
    asked = {key: part for key, part in names.items() if key not in SILENT}
    if not asked:
        return {**rest, "additionalProperties": value}
    if asked.keys() <= {"enum", "const"}:
        listed = asked.get("enum", [asked.get("const")])
        found = {"properties": {str(name): value for name in listed}}
    elif asked.keys() <= {"minLength", "maxLength"}:
        least, most = asked.get("minLength", 0), asked.get("maxLength", "")
        found = {"patternProperties": {f"^.{{{least},{most}}}$": value}}
    elif asked.keys() == {"pattern"}:
        found = {"patternProperties": {asked["pattern"]: value}}
    elif asked.keys() == {"format"} and asked["format"] in KEYS:
        found = {"patternProperties": {KEYS[asked["format"]]: value}}
    else:
        return schema
    return {**rest, **found, "additionalProperties": False}


def _annotates(key: str, value: Any) -> bool:
    """Whether a keyword is an annotation that cannot be enforced and need not be."""
    if key == "format" and isinstance(value, str):
        return not followed({"type": "string", "format": value})
    return key == "uniqueItems" and value is True


def followed(schema: Any) -> bool:
    """Whether llguidance can follow a schema as it stands."""
    return _followed(_rule(schema))


@lru_cache(maxsize=256)
def _followed(rule: str) -> bool:
    from llguidance import LLMatcher

    wrong, _ = LLMatcher.validate_grammar_with_warnings(f"start: {rule}")
    return not wrong


def culprit(schema: Any) -> str:
    """The path of the innermost property that cannot be followed by itself; empty if there is none."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    definitions = definitions if isinstance(definitions, dict) else {}
    path: list[str] = []
    while found := _first(schema, definitions):
        name, schema = found
        path.append(name)
    return ".".join(path)


def _first(schema: Any, definitions: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The first part of a schema that cannot be followed by itself, and its name."""
    for name, part in _parts(schema):
        if not followed(supported({**part, "$defs": definitions})):
            return name, part
    return None


def _parts(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of an object's properties, of an array's items, and those it defines."""
    if not isinstance(schema, dict):
        return
    for keyword in ("properties", "$defs"):
        found = schema.get(keyword)
        named = found if isinstance(found, dict) else {}
        yield from ((name, part) for name, part in named.items() if isinstance(part, dict))
    if isinstance(schema.get("items"), dict):
        yield "items", schema["items"]


def refuse(text: str, messages: str) -> ConfigError:
    """The error for a schema (JSON) that cannot be followed: the property, and llguidance's reason."""
    try:
        field = culprit(json.loads(text))
    except (TypeError, ValueError, RecursionError):  # it is no JSON, or no schema
        field = ""
    return ConfigError(
        f"this json_schema grammar cannot be followed: {field + ': ' if field else ''}{messages}; "
        "correct or simplify it"
    )
