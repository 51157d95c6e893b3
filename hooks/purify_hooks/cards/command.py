"""`purify slm card`: begin a model's provenance card, or check one that was filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import AsJson, disable_progress_bars
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_bytes, require_new, require_writable, write_whole

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource


def card(
    model: Annotated[str | None, typer.Argument(help="The model: a directory or a GGUF file.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write a card to be filled in.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A card: is it filled, and of MODEL if that is given?")
    ] = None,
    source: Annotated[str, typer.Option(help="The source that loads the model, such as ngram.")] = "local",
    force: Annotated[bool, typer.Option("--force", help="Replace a card that is there.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of cards.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write down where a model comes from: its training data, licence, what was checked, and by whom.

    The card is begun with what the model's files say, and names them by their digests.
    """
    if [schema, check is not None, out is not None].count(True) != 1:
        raise ConfigError("give one of --out FILE, to begin a card; --check FILE, to check one; or --schema")
    if schema:
        from purify_plugins.vouching.card_form import card_schema

        typer.echo(json.dumps(card_schema(), indent=2, ensure_ascii=False))
    elif check is not None:
        _check(check, model, source, as_json)
    elif out is not None:
        if not force:
            require_new(out)
        _begin(out, model, source, as_json)


def _begin(out: Path, model: str | None, source: str, as_json: bool) -> None:
    """Write a skeleton."""
    from purify_hooks.cards.skeleton import skeleton

    if model is None:
        raise ConfigError("which model is the card of? give its directory or GGUF file before --out")
    require_writable(out)
    loaded, place = _loaded(model, source)
    if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
        raise ConfigError(
            "a card cannot lie among the files whose digests it names; write it outside of the model's "
            "directory"
        )
    made = skeleton(loaded, place)
    write_whole(out, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    empty = _wrong(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "model": made["model"], "to_fill": empty}))
        return
    typer.echo(f"{out}: the card of {made['model']['name']}, files {made['model']['sha256']}. To fill in:")
    for each in empty:
        typer.echo(f"  {each}")


def _check(file: Path, model: str | None, source: str, as_json: bool) -> None:
    """Say whether a card is filled, and of the model; raises ConfigError or ModelError if not."""
    from purify_plugins.vouching.card import read_card

    if wrong := _wrong(file):
        if as_json:
            typer.echo(json.dumps({"valid": False, "wrong": wrong}))
        raise ConfigError(f"the card {str(file)!r} is not filled: {'; '.join(wrong)}")
    found = read_card(read_bytes(file), str(file))
    if model is not None:
        found.require_model(_loaded(model, source)[0], repr(model))
    if as_json:
        told: dict[str, Any] = {"valid": True, "sha256": found.sha256, "model": found.form.model.sha256}
        typer.echo(json.dumps({**told, "compared": model is not None}))
        return
    of = f"and it is of {model}" if model is not None else "give the model too, to compare its files"
    typer.echo(f"{file}: filled; SHA-256 {found.sha256}; {of}.")


def _wrong(file: Path) -> list[str]:
    from purify_plugins.vouching.card import examine_card

    return examine_card(read_bytes(file), str(file))[1]


def _loaded(model: str, source: str) -> tuple[LogitSource, Path]:
    """The model, and where its files are. Raises PurifyError."""
    from purify_plugins.configuration.preflight import foreseen
    from purify_plugins.plugin.manager import load_plugins
    from purify_plugins.vouching.vouched import require_files

    disable_progress_bars()
    plugins, table = load_plugins(), {"source": source, "model": model}
    place = require_files(foreseen(plugins, table).place, repr(model))
    return plugins.source(table), place
