"""Render a model's chat template, an untrusted program, with limits on its time and output.

Jinja's sandbox keeps a template from Python's internals but does not limit its work. Here every loop
iteration, call, filter, operator and output is counted, and operations whose result may be much larger than
their input are measured first. The names and filters are those that transformers offers to templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from purify_plugins.tokenizers.template_cost import (
    Exhausted,
    bounded,
    budgeted,
    check_call,
    check_format,
    check_operator,
    length,
    numbers,
    replacing,
    spend,
    spent,
    weigh,
    written,
)

NODES = 20_000
"""The most syntax nodes of a template; the largest published have a few thousand."""
TEXT = re.compile(
    "capitalize|casefold|count|endswith|find|format|index|isalnum|isalpha|isascii|isdecimal|isdigit|"
    "islower|isnumeric|isspace|istitle|isupper|join|lower|lstrip|partition|removeprefix|removesuffix|"
    "replace|rfind|rindex|rpartition|rsplit|rstrip|split|splitlines|startswith|strip|swapcase|title|"
    "upper"
)
"""Methods of str whose output is measured."""
FILTERS = re.compile(
    "abs|attr|batch|capitalize|count|d|default|dictsort|e|escape|first|float|forceescape|format|groupby|"
    "indent|int|items|join|last|length|list|lower|map|max|min|reject|rejectattr|replace|reverse|round|"
    "safe|select|selectattr|slice|sort|string|sum|title|tojson|trim|truncate|unique|upper|wordcount"
)
"""Filters that published templates use; the output of each is bounded before it is applied."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message's reasoning; like transformers, templates get the first two, whichever was given."""


def render(template: str, messages: Sequence[Mapping[str, Any]], tools: Any, names: Mapping[str, Any]) -> str:
    """The chat as text; `names` are the tokenizer's special tokens, by name.

    Raises what the template raises, and Exhausted.
    """
    with budgeted():
        said = [_spoken(message) for message in messages]
        made = _compiled(template).generate(
            messages=said, tools=_plain(tools), documents=None, add_generation_prompt=True, **names
        )
        return "".join(written(piece) for piece in made)


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as transformers passes it to a template: no key without a value, all names of reasoning."""
    said = {key: _plain(value) for key, value in message.items() if value is not None}
    thought = next((said[name] for name in REASONING if name in said), None)
    return {"thinking": thought, **said, "reasoning_content": thought} if thought is not None else said


def _plain(value: Any) -> Any:
    """A value as plain JSON types; anything else becomes an empty text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else ""


# The instrumented sandbox


class _Metered(NodeTransformer):
    """Passes every loop, literal and joined text of a template through a counting filter."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_each")
        return node

    def _literal(self, node: Any) -> Any:
        self.generic_visit(node)
        return _filtered(node, "_made") if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Dict = visit_Tuple = _literal

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filtered(_constant(each), "_written") for each in node.nodes]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        if node.node is None:  # of a {% filter %} block
            return node
        return self.generic_visit(node)


def _constant(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with every step counted."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        if sum(1 for _ in parsed.find_all(nodes.Node)) > NODES:
            raise Exhausted("the template has too many parts")
        metered: nodes.Template = _Metered().visit(parsed)
        return metered

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        spend()
        check_operator(operator, left, right)
        return spent(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        spend()
        check_call(obj, args, kwargs)
        return spent(super().call(context, obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        spend()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        spend()
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes) and callable(value) and not TEXT.fullmatch(attr):
            return False
        return bool(super().is_safe_attribute(obj, attr, value))


def _each(values: Any) -> Iterator[Any]:
    """The values of a loop, each counted."""
    for value in values:
        spend()
        yield value


def _joined(values: Sequence[Any]) -> str:
    spent(values)
    return "".join(map(str, values))


def _filter(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted, and whose output is bounded before it is applied."""

    @wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        spend()
        plain = [list(_each(each)) if _is_lazy(each) else each for each in args]
        given = [each for each in (*plain, *kwargs.values()) if _is_value(each)]
        weight, most = weigh(given), numbers(given)
        if name in ("indent", "tojson", "batch", "slice", "format"):
            bounded(weight * max(most, 1))
            check_format(next(iter(given), None) if name == "format" else None)
        if name == "replace":
            texts = [each for each in given if isinstance(each, str)]
            replacing(*[*texts, "", "", ""][:3])
        if name == "join":
            parts = given[0] if given else ()
            bounded(weight + sum(len(each) for each in given[1:] if isinstance(each, str)) * length(parts))
        if name == "sum" and any(not isinstance(each, str | int | float) for each in given[1:]):
            raise Exhausted("the template adds up what are no numbers")
        spend(weight // 16)
        made = original(*plain, **kwargs)
        return made if _is_lazy(made) else spent(made)

    return counted


def _is_lazy(value: Any) -> bool:
    return isinstance(value, Iterator)


def _is_value(value: Any) -> bool:
    return isinstance(value, str | bytes | int | float | list | tuple | dict | set | range | Namespace)


class _Space(Namespace):
    """Jinja's namespace, without names that begin with an underscore, as transformers has it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        found = dict(*given, **kwargs)
        for name in found:
            _plain_name(name)
        Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        spend()
        super().__setitem__(name, value)


def _plain_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a chat template cannot set {name!r}")


class _Generation(Extension):
    """The tag around an assistant's text, which only training uses."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers: without HTML escapes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise TemplateError(str(message)[:1000])


def _now(pattern: str) -> str:
    check_format(pattern)
    return datetime.now().strftime(pattern[:1000])


def _range(*bounds: int) -> range:
    numbers(bounds)
    return range(*bounds)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    kept = {name: _filter(name, each) for name, each in made.filters.items() if FILTERS.fullmatch(name)}
    ours = {"_each": _each, "_made": spent, "_written": written, "_joined": _joined}
    made.filters = {**kept, **{name: pass_context(_without_context(each)) for name, each in ours.items()}}
    made.globals = {
        "range": _range,
        "dict": _dict,
        "namespace": _Space,
        "raise_exception": _refuse,
        "strftime_now": _now,
        "cycler": made.globals["cycler"],
        "joiner": made.globals["joiner"],
    }
    return made.from_string(template)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _without_context(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A filter that Jinja's compiler does not fold into constants, where it would not be counted."""
    return lambda context, value: function(value)
