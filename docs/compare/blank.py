"""Presidio's analyzer without a language model: its own patterns and checksums, and the operator's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine

# Its email recogniser would fetch the public suffixes from the network: issue 1205 of Presidio.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
tldextract.extract = partial(tldextract.tldextract.TLD_EXTRACTOR)


class Blank(SpacyNlpEngine):  # type: ignore[misc]
    """spaCy's English tokenizer; no model that tags names could be had from pip's index."""

    def __init__(self, languages: Sequence[str] = ("en",)) -> None:
        super().__init__()
        self.nlp = {each: spacy.blank(each) for each in languages}

    def load(self) -> None:
        """Nothing: it is loaded."""


def analyzer(own: str) -> Any:
    """An analyzer with the operator's pattern as CUSTOMER."""
    registry = RecognizerRegistry()
    engine = Blank()
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    registry.add_recognizer(PatternRecognizer("CUSTOMER", patterns=[Pattern("customer", own, 1.0)]))
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
