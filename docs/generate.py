"""Write what the code knows best into the pages: `python docs/generate.py`.

A page marks a place with `<!-- generated: NAME -->` and `<!-- end -->`; what stands between them is
written here, and says of a hook, a policy, an option or an error what its own docstring says.
`tests/test_docs.py` fails while a page is stale.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from purify_adapters.activation.clients import CLIENTS, ENGINES, UNSEEN
from purify_hooks.evaluation.eval import questions
from purify_hooks.local.loading import file_digests
from purify_hooks.policies import POLICIES
from purify_hooks.stages import purify_stages
from purify_hooks.suggest.catalogue import read_catalogue
from purify_plugins import errors
from purify_plugins.certificates import LIMITS, MEANING, model_digest
from purify_plugins.certificates.coverage import COVERED, STAGED_COVERED, WAYS
from purify_plugins.configuration.config import ActivationConfig, Config, WatermarkConfig
from purify_plugins.configuration.signing import CertificateOptions
from purify_plugins.plugin import hookspecs
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.sampling import Sampling
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.threat import TRUST
from purify_plugins.vouching.options import VouchingOptions

HERE = Path(__file__).parent
REGION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
REQUIRED = "required"


# What the code says of itself


def sentence(thing: Any) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join(paragraphs(thing)[0].split())


def paragraphs(thing: Any) -> list[str]:
    """Its own docstring's paragraphs, without examples; one empty one if it has none."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    return [part for part in doc.split("\n\n") if not part.startswith(">>>")]


def field_docs(kind: type[Any]) -> dict[str, str]:
    """What stands under each field of a dataclass, as in `Sampling`."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found


def hooks() -> dict[str, FunctionType]:
    """Every hook specification, in the order of the file."""
    found = {name: value for name, value in vars(hookspecs).items() if name.startswith("purify_")}
    return {name: value for name, value in found.items() if isinstance(value, FunctionType)}


def example(hook: FunctionType) -> str:
    """A hook's example, without prompts."""
    sources = [each.source for each in doctest.DocTestParser().get_examples(hook.__doc__ or "")]
    return "\n\n".join(sources)


def error_kinds() -> dict[str, type[errors.PurifyError]]:
    """Every error raised on purpose, in the order of the file."""
    found = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    return {name: value for name, value in found.items() if issubclass(value, errors.PurifyError)}


def sources() -> dict[str, Callable[..., Any]]:
    """Every bundled way to reach a model."""
    return load_plugins(()).offers("purify_sources")


# Markdown and TOML


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fence(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def code(text: str) -> str:
    return f"`{text}`"


def together(*parts: str) -> str:
    """Blocks with an empty line between them."""
    return "\n\n".join(parts)


def toml(value: Any) -> str:
    """A default as purify.toml spells it."""
    if isinstance(value, ActivationConfig | WatermarkConfig):
        value = {key: said for key, said in options(type(value)).items() if said is not None}
    if dataclasses.is_dataclass(value):
        value = {"name": value.name, **options(type(value))}  # type: ignore[union-attr]  # a policy
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, tuple | list) else str(value)


def options(kind: type[Any]) -> dict[str, Any]:
    """A dataclass's options and defaults; fields hidden from its repr are too long to show, or derived."""
    return {field.name: default(field) for field in dataclasses.fields(kind) if field.repr}


def default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def type_name(annotation: Any) -> str:
    """A type as one would write it; of a choice, the choices."""
    if get_origin(annotation) is Literal:
        return " or ".join(code(toml(choice)) for choice in get_args(annotation))
    if annotation in (dict[str, Any], ActivationConfig):
        return "table"
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return code(re.sub(r"\b\w+\.", "", written))  # the name, not the module it comes from


def linked(text: str) -> str:
    """The text with arXiv numbers as links."""
    return re.sub(r"\b(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", text)


# The regions


def policies() -> str:
    rows = [[f"[{name}](#{name})", sentence(kind), code(kind().guarantee)] for name, kind in POLICIES.items()]
    return together(table(["policy", "what it does", "guarantee"], rows), *map(policy_section, POLICIES))


def policy_section(name: str) -> str:
    """One policy: its docstring, its options, and how purify.toml names it."""
    kind = POLICIES[name]
    level = kind().guarantee
    lines = [
        f'name = "{name}"',
        *(f"{key} = {toml(value)}" for key, value in options(kind).items() if value is not None),
    ]
    return together(
        f"## {name}",
        *map(linked, paragraphs(kind)),
        options_table(kind),
        *(f"`{field}`: {text}" for field, text in field_docs(kind).items()),
        f"Its guarantee at these defaults is `{level}`: {MEANING[level]}.",
        fence("toml", "[policy]\n" + "\n".join(lines)),
    )


def stages() -> str:
    found = purify_stages()  # not by entry points: an installation may be older than the checkout
    rows = [[f"[{name}](#{name})", sentence(kind)] for name, kind in found.items()]
    return together(table(["stage", "what it does"], rows), *(stage_section(*each) for each in found.items()))


def stage_section(name: str, kind: Any) -> str:
    """One stage: its docstring and its options."""
    return together(f"### {name}", *map(linked, paragraphs(kind)), options_table(kind))


def options_table(kind: type[Any]) -> str:
    types = get_type_hints(kind)
    rows = [
        [code(field.name), type_name(types[field.name]), unless_none(default(field))]
        for field in dataclasses.fields(kind)
        if field.init
    ]
    return table(["option", "type", "default"], rows) if rows else "It has no options."


def hook_sections() -> str:
    rows = [[f"[{name}](#{name})", sentence(hook)] for name, hook in hooks().items()]
    return together(table(["hook", "what for"], rows), *map(hook_section, hooks()))


def hook_section(name: str) -> str:
    """One hook: its signature, what its docstring says and its example."""
    hook = hooks()[name]
    signature = f"{name}{inspect.signature(hook)}".replace("'", "")
    first = " The first answer counts." if hook.purify_spec["firstresult"] else ""  # type: ignore[attr-defined]  # pluggy's mark
    said, *more = [" ".join(each.split()) for each in paragraphs(hook)]
    return together(
        f"## {name}", fence("text", signature), said + first, *more, fence("python", example(hook))
    )


def configuration() -> str:
    return keys_table(Config)


def activation() -> str:
    return keys_table(ActivationConfig)


def watermark() -> str:
    return keys_table(WatermarkConfig)


def certificate() -> str:
    return keys_table(CertificateOptions)


def vouching() -> str:
    return keys_table(VouchingOptions)


def keys_table(kind: type[Any]) -> str:
    """The keys of a table of `purify.toml`."""
    docs, types = field_docs(kind), get_type_hints(kind)
    rows = [
        [code(name), type_name(types[name]), unless_none(value), docs.get(name, "")]
        for name, value in options(kind).items()
    ]
    return table(["key", "type", "default", "what it says"], rows)


def clients() -> str:
    """What activation refuses by import name, and what it cannot see."""
    listed = (*CLIENTS, *ENGINES)
    rows = [[code(each.module), names(each.writes.replace("?", "").split())] for each in listed]
    unseen = f"`status` names these where they are imported, for they are not looked at: {names(UNSEEN)}."
    return together(table(["module", "what is refused"], rows), unseen)


def names(known: Iterable[str]) -> str:
    return ", ".join(map(code, known))


def source_sections() -> str:
    return together(*(source_section(name, factory) for name, factory in sources().items()))


def source_section(name: str, factory: Callable[..., Any]) -> str:
    """A source's keys: its factory's arguments, with the factory's docstring."""
    rows = [
        ["others", "", "that source's own"]
        if each.kind is each.VAR_KEYWORD
        else [code(each.name), type_name(each.annotation), argument(each)]
        for each in inspect.signature(factory).parameters.values()
    ]
    keys = table(["key", "type", "default"], rows)
    return together(f'### `source = "{name}"`', *paragraphs(factory), keys)


def argument(parameter: inspect.Parameter) -> str:
    """A factory argument's default."""
    return REQUIRED if parameter.default is parameter.empty else unless_none(parameter.default)


def unless_none(value: Any) -> str:
    """A default, where None is what TOML cannot say."""
    if value is dataclasses.MISSING:
        return REQUIRED
    return "unset" if value is None else code(toml(value))


def sampling() -> str:
    return together(*paragraphs(Sampling), keys_table(Sampling))


def error_sections() -> str:
    _, tree, *_ = inspect.cleandoc(errors.__doc__ or "").split("\n\n")
    return together(fence("text", tree), *(error_section(*each) for each in error_kinds().items()))


def error_section(name: str, kind: type[errors.PurifyError]) -> str:
    parent = kind.__bases__[0].__name__
    family = [f"A kind of [{parent}](#{parent.lower()})."] if parent in error_kinds() else []
    return together(f"## {name}", *paragraphs(kind), *family)


def meaning() -> str:
    return table(["guarantee", "meaning"], [[code(level), text] for level, text in MEANING.items()])


def staged_coverage() -> str:
    """Which check detects an edit of each field of a certificate with stages."""
    rows = [[code(path), WAYS[cover.way], cover.how] for path, cover in STAGED_COVERED.items()]
    return table(["field", "refused by", "how"], rows)


def coverage() -> str:
    """Of every field of a certificate, the check that refuses it when it alone was edited."""
    rows = [[code(path), WAYS[cover.way], cover.how] for path, cover in COVERED.items()]
    return table(["field", "refused by", "how"], rows)


def exits() -> str:
    """The codes that `purify verify` ends with, and why."""
    kinds = [kind for kind in error_kinds().values() if issubclass(kind, errors.CertificateError)]
    rows = [[code(str(kind.exit_code)), code(kind.__name__), sentence(kind)] for kind in kinds[1:]]
    return table(["code", "error", "why"], rows)


def packaged() -> str:
    """The digests of the models that come with the package."""
    models = {"purify_plugins.testbed.LLM": LLM, "SLM": SLM, "SLM_1024": SLM_1024}
    rows = [[code(name), code(model_digest(file_digests(place)))] for name, place in models.items()]
    return table(["model", "digest"], rows)


def trust() -> str:
    """Who is trusted with what."""
    return table(["who", "trusted with", "not trusted with"], [list(row) for row in TRUST])


def limits() -> str:
    return "\n".join(f"- {limit}" for limit in LIMITS)


def attacks() -> str:
    """The parts of `attacks.json`: each a table of its keys."""
    kinds = vars(questions).values()
    parts = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, questions.Part)]
    return together(*map(attacks_part, [kind for kind in parts if kind is not questions.Part]))


def attacks_part(kind: type[Any]) -> str:
    rows = [attacks_row(name, field) for name, field in kind.model_fields.items()]
    return together(f"**{kind.__name__}**: {sentence(kind)}", table(["key", "type", "default"], rows))


def attacks_row(name: str, field: Any) -> list[str]:
    """A key, its type without what only pydantic reads, and its default."""
    written = inspect.formatannotation(plain(field.annotation))
    shown = re.sub(r"\w+\.", "", written).replace(" | None", "")
    return [code(name), code(shown), REQUIRED if field.is_required() else code(json.dumps(field.default))]


def plain(annotation: Any) -> Any:
    """`list[Annotated[str, …]]` and a tuple of them as `list[str]`, which JSON has."""
    inside = [getattr(each, "__origin__", each) for each in get_args(annotation)]
    return list[inside[0]] if get_origin(annotation) in (list, tuple) else annotation  # type: ignore[valid-type]  # built here


def catalogue() -> str:
    """The small models that `purify slm suggest` names."""
    families, models = read_catalogue()
    rows = [
        [
            code(each.model),
            f"{each.parameters / 1e6:,.0f} M",
            families[each.tokenizer].name,
            f"{each.context:,}" if each.context else "not seen",
            each.licence,
            f"{each.data} ({each.provenance})",
            each.note,
            each.checked,
        ]
        for each in models
    ]
    head = ("model", "parameters", "tokenizer", "context", "licence", "trained on", "note", "facts from")
    return table(head, rows)


REGIONS: Mapping[str, Callable[[], str]] = {
    "policies": policies,
    "stages": stages,
    "hooks": hook_sections,
    "configuration": configuration,
    "activation": activation,
    "watermark": watermark,
    "certificate": certificate,
    "vouching": vouching,
    "clients": clients,
    "sources": source_sections,
    "sampling": sampling,
    "errors": error_sections,
    "meaning": meaning,
    "limits": limits,
    "trust": trust,
    "packaged": packaged,
    "coverage": coverage,
    "staged_coverage": staged_coverage,
    "exits": exits,
    "attacks": attacks,
    "catalogue": catalogue,
}


def render(page: str) -> str:
    """A page with every generated region as it should be."""
    return REGION.sub(lambda found: f"{found[1]}\n{REGIONS[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    for page in HERE.glob("*.md"):
        page.write_text(render(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
