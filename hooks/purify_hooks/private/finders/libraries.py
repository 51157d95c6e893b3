"""Other libraries' detectors, of the extra `privacy`: imported only when they are named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from purify_hooks.private.finders.finder import CHECKED, CONTEXT, Hit
from purify_plugins.errors import ConfigError, ours
from purify_plugins.utils.extras import packages

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PRESIDIO_KINDS = {
    "CREDIT_CARD": "card",
    "CRYPTO": "bitcoin",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "MAC_ADDRESS": "mac",
    "PHONE_NUMBER": "phone",
    "UK_NHS": "nhs",
    "US_PASSPORT": "passport",
    "US_SSN": "ssn",
}
"""Presidio's names of our kinds; its other entities are kinds in small letters."""
LEAST = 0.4
"""The least of Presidio's scores that counts: a shape alone, such as any 9 digits, has 0.05."""
PUBLIC = frozenset({"URL", "DATE_TIME", "NRP"})
"""Entities of Presidio that are no one's alone."""


class PhoneNumbers:
    """Telephone numbers by Google's `phonenumbers`: international ones, and those of one region if given."""

    def __init__(self, region: str = "") -> None:
        try:
            import phonenumbers
        except ImportError as error:
            raise ConfigError(_missing("phonenumbers")) from error
        if region and region not in phonenumbers.SUPPORTED_REGIONS:
            raise ConfigError(f"finder: phonenumbers has no region {region!r}; two letters, such as 'GB'")
        self.region = region or None

    def hits(self, text: str) -> Iterator[Hit]:
        from phonenumbers import PhoneNumberMatcher

        for match in PhoneNumberMatcher(
            text, self.region, max_tries=sys.maxsize
        ):  # its own limit ends in silence
            yield Hit(match.start, match.end, "phone", CHECKED)


class Presidio:
    """Microsoft Presidio's recognisers that need no model, in English, without the network.

    They get a spaCy pipeline that only splits words, so names are a tagger's; `tldextract`, with which
    Presidio checks domains, is held to the list of suffixes that it ships.
    """

    def __init__(self) -> None:
        with ours(lambda error: ConfigError(f"{_missing('presidio')} ({error})")):
            self.engine = _engine()

    def hits(self, text: str) -> Iterator[Hit]:
        found: Any = self.engine.analyze(text, language="en", score_threshold=LEAST)
        for each in found:
            if each.entity_type not in PUBLIC:
                yield Hit(each.start, each.end, _kind(each.entity_type, text[each.start : each.end]), CONTEXT)


def _kind(entity: str, text: str) -> str:
    if entity == "IP_ADDRESS":
        return "ipv6" if ":" in text else "ipv4"
    return PRESIDIO_KINDS.get(entity, entity.lower())


def _engine() -> AnalyzerEngine:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from tldextract import tldextract

    # presidio#1205: its first look at an address would fetch the list of public suffixes
    tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    words = spacy.blank("en")
    words.max_length = sys.maxsize
    engine: Any = SpacyNlpEngine()
    engine.nlp = {"en": words}
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])


def _missing(package: str) -> str:
    needed = " ".join(packages("privacy"))
    return f"finder: library {package!r} is not installed, or not whole; run pip install {needed}"


def library(name: str) -> PhoneNumbers | Presidio:
    """The detector of a library: "phonenumbers", "phonenumbers:GB", "presidio". Raises ConfigError."""
    package, _, region = name.partition(":")
    if package == "phonenumbers":
        return PhoneNumbers(region)
    if name == "presidio":
        return Presidio()
    raise ConfigError(f"finder: unknown library {name!r}; there is 'phonenumbers' and 'presidio'")
