"""Detectors of private data in texts: what a stage keeps from the LLM's host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from purify_hooks.private.finders.births import Births, Passports
from purify_hooks.private.finders.contact import Emails, Phones
from purify_hooks.private.finders.finder import Detector, Finder, JoinedFinder, Span
from purify_hooks.private.finders.keys import Keys
from purify_hooks.private.finders.lettered import Lettered
from purify_hooks.private.finders.libraries import library
from purify_hooks.private.finders.network import Network
from purify_hooks.private.finders.numbers import Numbers
from purify_hooks.private.finders.plain import plain
from purify_hooks.private.finders.secrets import Secrets
from purify_hooks.private.finders.tagger import TokenTagger
from purify_hooks.private.finders.words import Patterns, WordList, entries
from purify_plugins.errors import UnknownNameError
from purify_plugins.utils.files import read_text

__all__ = ["GROUPS", "KINDS", "Finder", "Span", "finder", "plain"]

GROUPS = {
    "key": [
        *("aws_key", "aws_secret", "github_token", "slack_token", "google_key", "sk_key", "stripe_key"),
        *("service_token", "jwt", "private_key"),
    ],
    "ip": ["ipv4", "ipv6"],
    "national_id": [
        *(
            "aadhaar",
            "ahv",
            "bsn",
            "codice_fiscale",
            "cpf",
            "dni",
            "fodselsnummer",
            "hetu",
            "nhs",
            "nino",
            "nir",
        ),
        *("pesel", "personnummer", "resident_id", "rijksregister", "sin", "ssn", "steuer_id", "tckn", "tfn"),
    ],
    "crypto": ["bitcoin", "ethereum"],
}
"""Kinds that can be named together."""
ALONE = (
    *("bank_account", "birth_date", "card", "email", "iban", "imei", "mac", "passport", "phone", "secret"),
    *("url_credentials", "vat"),
)
KINDS = tuple(sorted({*ALONE, *(kind for group in GROUPS.values() for kind in group)}))
"""The kinds that need neither a model nor a list."""


def finder(
    kinds: Sequence[str] | None = None,
    patterns: Mapping[str, str] | None = None,
    words: Sequence[str] | str | Path = (),
    tagger: str | Path | None = None,
    libraries: Sequence[str] = (),
) -> Finder:
    """A finder of private data.

    `kinds` are names of kinds or groups of them, all if not given; `patterns` are regular expressions by the
    kind they find, `words` a list of texts or the file that holds one a line (kind "word"), `tagger` is the
    directory of a transformers token classifier, `libraries` are "phonenumbers" (":GB" after it adds a
    region's national numbers) and "presidio". Of what is named all kinds count. Raises ConfigError and
    ModelError.
    """
    given = words if not isinstance(words, str | Path) else _lines(words)
    own = (Emails(), Phones(), Network(), Keys(), Secrets(), Numbers(), Lettered(), Births(), Passports())
    named: list[Detector] = [WordList(given), Patterns.compiled(patterns or {}), *map(library, libraries)]
    if tagger:
        named.append(TokenTagger(Path(tagger)))
    return JoinedFinder(own, frozenset(_kinds(kinds)), tuple(named))


def _lines(file: str | Path) -> list[str]:
    """The entries of a word list's file; none for ""."""
    return entries(read_text(Path(file)).splitlines()) if str(file) else []


def _kinds(names: Sequence[str] | None) -> Iterator[str]:
    """The kinds that are named, alone or by their group; all for None. Raises UnknownNameError."""
    for name in KINDS if names is None else names:
        if name not in {*KINDS, *GROUPS}:
            raise UnknownNameError("kind of private data", name, {*KINDS, *GROUPS})
        yield from GROUPS.get(name, [name])
