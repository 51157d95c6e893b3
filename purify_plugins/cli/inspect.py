"""`purify policies` and `plugins`: what is offered. What a loaded pair would run, for `purify check`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.certificates.explain import assignments, said
from purify_plugins.cli.chain import chain
from purify_plugins.cli.options import AsJson, ConfigFile, in_use
from purify_plugins.errors import PurifyError
from purify_plugins.plugin.manager import Plugins

if TYPE_CHECKING:
    from rich.table import Table

    from purify_plugins.purifier import Purifier


def policies(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the fusion policies, or tell all about one."""
    loaded = in_use(config)
    offers = loaded.offers("purify_policies")
    if name is not None:
        loaded.require_offered("purify_policies", name)
    chosen = {name: offers[name]} if name else offers
    described = {each: _describe(factory, loaded) for each, factory in chosen.items()}
    if as_json:
        typer.echo(json.dumps(described[name] if name else described))
    elif name:
        _print_policy(name, described[name])
    else:
        print_table(_policy_table(described))


def _describe(factory: Callable[..., Any], loaded: Plugins) -> dict[str, Any]:
    """A policy's docstring, and its guarantee and fields at their defaults."""
    from purify_plugins.canonical_json import options
    from purify_plugins.foreign import adapted_policy

    about = inspect.getdoc(factory) or ""
    fields: dict[str, Any] = dict.fromkeys(inspect.signature(factory).parameters)
    try:
        policy = adapted_policy(factory())
    except TypeError:  # a field without a default
        return {"about": about, "guarantee": "depends on its fields", "fields": fields}
    except PurifyError as error:  # one that cannot be made must not hide the others
        return {"about": about, "guarantee": f"none at its defaults: {error}", "fields": fields}
    return {"about": about, "guarantee": policy.guarantee, "fields": options(policy, loaded.name_of)}


def _print_policy(name: str, described: Mapping[str, Any]) -> None:
    typer.echo(f"{name}\n\n{described['about']}\n\nguarantee: {described['guarantee']}")
    typer.echo(f"fields: {assignments(described['fields']) or 'none'}")


def _policy_table(described: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (name, facts["about"].partition("\n")[0], facts["guarantee"], assignments(facts["fields"]))
        for name, facts in described.items()
    ]
    return as_table(("policy", "what it does", "guarantee", "fields"), rows)


def plugins(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the plugins that are installed, and which are in use."""
    from purify_plugins.plugin.listing import listing

    found = listing(in_use(config))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(each) for each in found]))
        return
    rows = [
        (
            each.name,
            f"{each.distribution} {each.version}",
            "yes" if each.active else "no",
            ", ".join(each.hooks),
        )
        for each in found
    ]
    print_table(as_table(("plugin", "from", "in use", "hooks"), rows))


def as_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def print_table(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def would_run(writer: Purifier) -> dict[str, Any]:
    """Everything a purifier is made of, as JSON."""
    from purify_plugins.canonical_json import jsonable, options

    engines = writer.llm.engine, writer.slm.engine
    return {
        "llm": model_facts(writer.llm.identity()),
        "slm": model_facts(writer.slm.identity()),
        "vocabulary": {
            "tokens": len(writer.vocabulary),
            "matched": matched(writer),
            **tokenizer_agreement(writer),
        },
        "policy": {
            "name": writer.plugins.name_of(writer.policy),
            **options(writer.policy, writer.plugins.name_of),
        },
        "guarantee": writer.policy.guarantee,
        "adversary": writer.claim().adversary,
        "engines": dict(zip(("llm", "slm"), engines, strict=True)),
        "sampling": jsonable(writer.sampling),
        "on_llm_failure": writer.on_llm_failure,
        **chain(writer.plugins, writer.stages, writer.request),
        **states(writer),
        "plugins": sorted(name for name, _ in writer.plugins.list_name_plugin()),
    }


def model_facts(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A model's identity with one digest for its files; of one that combines models, of each."""
    from purify_plugins.certificates import model_digest

    shown = {key: value for key, value in identity.items() if key != "files"}
    told = {key: model_facts(each) if isinstance(each, dict) else each for key, each in shown.items()}
    return {**told, "digest": model_digest(identity["files"])} if identity.get("files") else told


def matched(writer: Purifier) -> str:
    """How the two vocabularies were matched, in words."""
    if writer.llm.symbolic:
        symbols = writer.vocabulary
        return f"two tokenizers meet in {symbols.name}, {symbols.per_token:.2f} to a token of the LLM's"
    if writer.slm.rough:
        return "the LLM's tokens, rated roughly by an SLM with another tokenizer: nothing is guaranteed"
    shared, theirs, ours = writer.vocabulary, writer.llm.inner.vocabulary, writer.slm.inner.vocabulary
    if theirs.fingerprint == ours.fingerprint:
        return "identical"
    if ours.fingerprint != shared.fingerprint:
        return f"{len(shared)} tokens shared, of the LLM's {len(theirs)} and the SLM's {len(ours)}"
    return f"the SLM's ids, found among the LLM's {len(theirs)}"


def tokenizer_agreement(writer: Purifier) -> dict[str, str]:
    """Measured agreement of two tokenizers; {} where there is one."""
    from purify_plugins.tokenizers.cross.choose import agreement, trial

    if not writer.llm.symbolic:
        return {}
    found = agreement(writer.llm.inner, writer.slm.inner)
    theirs, ours = trial(writer.llm), trial(writer.slm)
    return {
        "coverage": f"{found.common} tokens in common, which are {found.covered:.0%} of the LLM's in a text",
        "disagreement": f"{found.disagreement:.2%} of boundaries",
        "calls": f"{theirs.calls:.2f} of the LLM and {ours.calls:.2f} of the SLM for each of its own tokens",
        "control tokens": f"up to {theirs.masked:.1%} of a row of the LLM, {ours.masked:.1%} of the SLM",
    }


def fact_text(value: Any) -> str:
    """A fact as text, without unset keys; nested values in parentheses."""
    if not isinstance(value, dict):
        return said(value)
    inside = {key: each for key, each in value.items() if each not in (None, [], {})}
    return ", ".join(f"{key} {_nested_text(each)}" for key, each in inside.items()) or "none"


def _nested_text(value: Any) -> str:
    return f"({fact_text(value)})" if isinstance(value, dict) else said(value)


# What is on and what is off when a pair writes, and why


def states(writer: Purifier) -> dict[str, Any]:
    """The state of KV caches, drafts, tree attention and attention kernels, as text."""
    llm, slm = writer.llm.reading, writer.slm.reading
    return {
        "KV cache": {"llm": llm.cache, "slm": slm.cache},
        "drafts": drafts(writer),
        "tree attention": {"llm": llm.trees, "slm": slm.trees, "used": tree_attention_used(writer)},
        "attention": {"llm": llm.attention, "slm": slm.attention},
    }


def drafts(writer: Purifier) -> str:
    """Whether drafts are verified several tokens a pass, and why or why not."""
    if writer.walk == "speculative":
        return "on: the SLM drafts, and the LLM reads a draft in one pass"
    if writer.walk == "readahead":
        return "on: the LLM's server drafts by itself, and is shown nothing"
    if writer.given_walk == "lockstep":
        return "off: walk 'lockstep' asks both models for every token"
    if writer.llm.engine == "untrusted":
        return "off: the LLM's server is untrusted, and could choose its rows by a draft it is shown"
    return "off: the LLM's server reads one token a request"


def tree_attention_used(writer: Purifier) -> str:
    """Whether tree attention is used: only where tokens are spelled in smaller symbols."""
    sides = (writer.llm, writer.slm)
    trees = [side.reading.trees for side in sides if side.symbolic]
    if not trees:
        return "no: both models read the same tokens"
    return "yes" if "on" in trees else "no: neither model can"
