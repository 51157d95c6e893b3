"""`purify slm suggest`: candidates for an LLM's anchor, from its tokenizer and the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.suggest.candidates import Candidate
    from purify_hooks.suggest.llm import UntrustedModel

MEETS = {
    "tokens": "in the LLM's tokens (one tokenizer)",
    "bytes": "in bytes (two tokenizers)",
    "unknown": "not known here; in bytes, unless the two tokenizers are the same",
}


def suggest(
    llm: Annotated[str, typer.Argument(help="A model's directory, a hub id in the cache, or a GGUF file.")],
    as_json: AsJson = False,
) -> None:
    """Name small models to purify an LLM with: licence, training data, tokenizer, memory and cost.

    Nothing is fetched, and no weights are read.
    """
    from purify_hooks.suggest.candidates import candidates
    from purify_hooks.suggest.llm import look_at

    model = look_at(llm)
    found = candidates(model)
    if as_json:
        said = {"llm": model._asdict(), "candidates": [each.json() for each in found]}
        typer.echo(json.dumps(said, ensure_ascii=False))
        return
    for line in _lines(model, found):
        typer.echo(line)


def _lines(model: UntrustedModel, found: list[Candidate]) -> Iterator[str]:
    size = f"{model.parameters:,} parameters" if model.parameters else "parameters not known here"
    yield f"{model.name}: {model.tokens:,} tokens, {size}"
    for each in found:
        yield ""
        yield from _about(each)
    if not found:
        yield "No model of the catalogue is smaller than this LLM."
    mixed = "; mix it with one of the above" if found else ""
    yield ""
    yield f"your own text: purify slm build TEXTS --tokenizer {quote(model.name)} --out anchor"
    yield f"  meets it      in the LLM's tokens; takes milliseconds a row{mixed}"


def _about(each: Candidate) -> Iterator[str]:
    model = each.published
    context = f"{model.context:,} tokens of context" if model.context else "context not seen"
    cost = "" if each.relative_cost is None else f"; about {each.relative_cost:.2g} of the LLM's time a token"
    yield f"{model.model}: {model.parameters / 1e6:,.0f} M parameters, {context}, {model.languages}"
    yield f"  licence       {model.licence}"
    yield f"  trained on    {model.data} ({model.provenance})"
    yield f"  meets it      {MEETS[each.meets]}"
    memory = {name: f"{size / 1e9:.1f} GB in {name}" for name, size in each.memory.items()}
    yield f"  memory        {', '.join(memory.values())}{cost}"
    yield f"  note          {model.note}"
    yield f"  facts from    {model.checked}"
    if each.at_hand:
        yield f"  at hand       {each.at_hand}"
