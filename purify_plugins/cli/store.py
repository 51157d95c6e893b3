"""`purify store`: what was recorded of certificates; listed, checked, exported, erased."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import AsJson, ConfigFile, contents, spread
from purify_plugins.errors import ConfigError, StoreError
from purify_plugins.utils.files import make_folder, write_whole

if TYPE_CHECKING:
    from purify_plugins.store.record import StoreRecord
    from purify_plugins.store.records import Query, Records

store = typer.Typer(add_completion=False, no_args_is_help=True, help="What was recorded of certificates.")
Digest = Annotated[str, typer.Argument(metavar="SHA256", help="Of a certificate, or of an answer.")]
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")


@dataclass(frozen=True)
class StorePlace:
    """Which store."""

    store: Annotated[
        str | None,
        typer.Option("--store", metavar="sqlite:FILE|DIR", help="The store. [[certificate] store]"),
    ] = None
    config: ConfigFile = None

    def opened(self) -> Records:
        """The store's records. Raises ConfigError, StoreError."""
        from purify_plugins.store.places import records_at

        if self.store is not None:
            return records_at(self.store, new=False)
        from purify_plugins.configuration.config import read_config

        table: Any = read_config(self.config).certificate
        if "store" not in table:
            raise ConfigError("the configuration names no store; give --store sqlite:FILE or --store DIR")
        return records_at(str(table["store"]), table.folder, new=False)


@dataclass(frozen=True)
class Filters:
    """Which answers; all that are given must hold."""

    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Issued then or later, such as 2026-11-29, in UTC.")
    ] = None
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Issued before that.")] = None
    model: Annotated[
        str | None, typer.Option(metavar="SHA256", help="By this LLM or SLM; `purify check` prints both.")
    ] = None
    policy: Annotated[str | None, typer.Option(help="Under this policy.")] = None
    guarantee: Annotated[str | None, typer.Option(help="With this guarantee, such as passage.")] = None
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None
    answer: Annotated[str | None, typer.Option(metavar="FILE", help="Of this very text.")] = None
    answer_digest: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Of the text with this digest.")
    ] = None

    def query(self) -> Query:
        """The query. Raises ConfigError, UnreadableError."""
        from purify_plugins.store.records import Query, answer_digests
        from purify_plugins.verifying.wanted import level

        if None not in (self.answer, self.answer_digest):
            raise ConfigError("give --answer or --answer-digest, not both: an answer has one digest")
        answers = None if self.answer is None else answer_digests(contents(self.answer))
        answers = answers if self.answer_digest is None else {digest_of(self.answer_digest)}
        return Query(
            since=moment(self.since, "--since"),
            until=moment(self.until, "--until"),
            model=digest_of(self.model) if self.model is not None else None,
            policy=self.policy,
            guarantee=level(self.guarantee, "--guarantee"),
            tenant=self.tenant,
            answers=answers,
        )


def digest_of(text: str) -> str:
    """A SHA-256 in small letters. Raises ConfigError."""
    from purify_plugins.verifying.wanted import SHA256

    if not SHA256.fullmatch(found := text.strip().lower()):
        raise ConfigError(f"a digest is a SHA-256, 64 hexadecimal digits, not {text!r}")
    return found


def moment(text: str | None, name: str) -> str | None:
    """A time as records have it, or the beginning of one. Raises ConfigError."""
    if text is not None and not MOMENT.fullmatch(text):
        raise ConfigError(
            f"{name} is a date such as 2026-11-29, or a time such as 2026-11-29T08:30:00Z, not {text!r}"
        )
    return text


@store.command("list")
@spread
def list_(place: StorePlace, filters: Filters, as_json: AsJson = False) -> None:
    """List the answers that were recorded, the oldest first."""
    found = place.opened().search(filters.query())
    if as_json:
        typer.echo(json.dumps([_told(each) for each in found]))
        return
    for each in found:
        facts = each.facts
        typer.echo(
            f"{each.number:>8}  {facts['issued']}  {each.certificate}  {facts['guarantee']:<8}"
            f"{facts['policy']:<12}{float(facts['log_ratio']):>9.2f} nats  {facts['tenant']}".rstrip()
        )


@store.command()
@spread
def show(
    digest: Digest,
    place: StorePlace,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="The certificate itself, where those are kept.")
    ] = False,
) -> None:
    """Show what was recorded of a certificate, or of every answer of a text."""
    records = place.opened()
    found = list(_of(records, digest_of(digest)))
    if not found:
        raise StoreError(f"the store has no record of {digest}; `purify store list` shows what it has")
    if not certificate:
        typer.echo(json.dumps([_with_event(each, records) for each in found], indent=2))
        return
    for each in found:
        if each.document is None:
            raise StoreError(f"of {digest} the store has its digests alone; see [certificate] keep")
        typer.echo(each.document)


def _of(records: Records, digest: str) -> Iterator[StoreRecord]:
    """The records of a digest, and what is left of those that were dropped."""
    from purify_plugins.store.records import Query

    return (
        each for each in records.records() if each.certificate == digest or Query(digest=digest).matches(each)
    )


def _told(record: StoreRecord) -> dict[str, Any]:
    """A record for its reader, without the certificate."""
    facts = {name: value for name, value in record.facts.items() if name != "salt"}
    return {"number": record.number, "certificate": record.certificate, **facts}


def _with_event(record: StoreRecord, records: Records) -> dict[str, Any]:
    """A record for its reader, with the event that dropped it."""
    dropped = (each.facts for each in records.records() if each.number == record.dropped)
    return _told(record) if record.dropped is None else {**_told(record), "dropped": next(dropped, None)}


@store.command()
@spread
def verify(
    place: StorePlace,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A public key that must have sealed it; repeatable: all must."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="SHA256", help="A head that you noted before: it must be there.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="An export, of which records may be withheld.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that no record was edited, removed or dropped untold."""
    from purify_plugins.store.checking import check
    from purify_plugins.verifying.examine import public_keys

    keys = public_keys(key or (), contents)
    found = check(place.opened().records(), keys, None if head is None else digest_of(head), partial)
    if keys and not found.sealed:
        raise StoreError("the store has no seal; it is sealed where [certificate] names a key and a store")
    told = {**vars(found), "events": dict(found.events), "answers": found.answers}
    typer.echo(json.dumps(told) if as_json else "\n".join(_sentences(told)))


def _sentences(told: dict[str, Any]) -> Iterator[str]:
    yield f"The store is as it was written: {told['records']} records, {told['answers']} of answers."
    if told["documents"]:
        yield f"Certificates kept whole: {told['documents']}."
    if told["dropped"]:
        yield f"Dropped, and told by an event: {told['dropped']}."
    if told["withheld"]:
        yield f"Withheld from this export: {told['withheld']}."
    for event, count in sorted(told["events"].items()):
        yield f"Events: {event}, {count}."
    if told["sealed"]:
        seals = told["seals"]
        yield f"Sealed by the key: the first {told['sealed']} records."
        yield (
            f"Seals: {len(seals)}, from {seals[0]} to {seals[-1]}. If the service had its key before the "
            "first of them, somebody removed seals."
        )
    if told["unsealed_drops"]:
        yield f"Dropped by an event that no seal is over, so perhaps not by you: {told['unsealed_drops']}."
    if told["unfinished"]:
        yield f"Not finished: {len(told['unfinished'])} records are still to be dropped; do it again."
    yield f"Head: {told['head']}. Note it elsewhere: with --head it shows that nothing before was rewritten."


@store.command()
@spread
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory, itself a store.")],
    place: StorePlace,
    filters: Filters,
) -> None:
    """Write a store as files, for who has to check it; answers beyond the filters are withheld."""
    from purify_plugins.signing.chain import now
    from purify_plugins.store.folder import exported

    records, query = place.opened(), filters.query()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} is there already; name a new directory")
    make_folder(folder)
    lines, shown = exported(records.records(), query)
    write_whole(folder / f"{now()[:10]}.jsonl", lines)
    typer.echo(f"{shown} answers; check it with purify store verify --partial --store {folder}")


@store.command()
@spread
def erase(
    digest: Digest,
    place: StorePlace,
    why: Annotated[
        str | None, typer.Option(help="Why, such as a ticket's number; it stays, so name no person.")
    ] = None,
) -> None:
    """Erase what was recorded of a certificate, or of every answer of a text; the digest stays."""
    from purify_plugins.store.store import erase as erased

    wanted = digest_of(digest)
    if not why or not why.strip():
        raise ConfigError("--why is missing; say why it is erased, such as --why 'request 123'")
    records = place.opened()
    if count := erased(records, wanted, why):
        typer.echo(f"erased: {count} of {wanted}")
        return
    if any(_of(records, wanted)):
        raise StoreError(f"{wanted} was erased or has expired already; its digest is all there is")
    raise StoreError(f"the store has no record of {wanted}; `purify store list` shows what it has")


@store.command()
@spread
def expire(
    place: StorePlace,
    older_than: Annotated[
        str | None, typer.Option(metavar="DAYS", help="Such as 184d. [[certificate] retention]")
    ] = None,
) -> None:
    """Erase what is older than its retention, as a service does by itself once a day."""
    from purify_plugins.configuration.signing import retention_days
    from purify_plugins.store.store import expire as expired

    if older_than is None:
        from purify_plugins.configuration.config import read_config

        older_than = read_config(place.config).certificate.get("retention")
    if older_than is None:
        raise ConfigError("--older-than is missing, and the configuration has no retention; give 184d, say")
    days = retention_days(str(older_than), "--older-than")
    typer.echo(f"expired: {expired(place.opened(), days)} older than {days} days")
