"""Dates of birth, and numbers of passports: what only a word nearby tells."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, Hit

BORN = re.compile(
    r"date[\s_-]?of[\s_-]?birth|birth[\s_-]?(?:date|day)|(?<![a-z])(?:born|dob|d\.o\.b|b-?day|ur\."
    r"|né(?:e|\(e\))?\sle|date[\s_-]de[\s_-]naissance|geboren|geb\.|geburtsdatum|geburtstag|geboortedatum|nacid[oa]|nací|nació"
    r"|fecha[\s_-](?:de[\s_-])?nac|f\.\s?nac|nat[oa]\s(?:il|a)|data[\s_-]di[\s_-]nascita"
    r"|nascid[oa]|data[\s_-]de[\s_-]nascimento"
    r"|urodzon[ya]|data[\s_-]urodzenia|född|födelsedatum|født|fødselsdato|syntynyt|syntymäaika|doğum|narozen[ýa]?"
    r"|született|születési)|родил(?:ся|ась)|дата\sрождения|生年月日|生まれ|出生|生日|생년월일|تاريخ الميلاد"
)
MONTHS = (
    "jan feb mar apr may jun jul aug sep oct nov dec mär maer mai okt dez janv févr fevr avr juin juil "
    "août aout sept déc ene abr ago dic enero febrero marzo abril mayo junio julio agosto gen mag giu lug "
    "set ott fev abr mai out maart mei stycznia lutego marca kwietnia maja czerwca lipca sierpnia września "
    "października listopada grudnia января февраля марта апреля мая июня июля августа сентября октября "
    "ноября декабря"
)
MONTH = rf"(?:{'|'.join(sorted(set(MONTHS.split()), key=len, reverse=True))})[^\W\d_]{{0,9}}\.?"
DAY = r"[0-3]?[0-9](?:st|nd|rd|th|er|º|ª|\.)?"
YEAR = r"(?:(?:18|19|20)[0-9]{2}|'?[0-9]{2}(?![0-9]))"
SEPARATOR = r"\s{0,2}[/.\- ]\s{0,2}"
DATE = re.compile(
    r"(?<![0-9])(?:"
    rf"(?:18|19|20)[0-9]{{2}}{SEPARATOR}[01]?[0-9]{SEPARATOR}[0-3]?[0-9](?![0-9])"
    rf"|[0-3]?[0-9]{SEPARATOR}[0-3]?[0-9]{SEPARATOR}{YEAR}(?![0-9])"
    rf"|{DAY}[\s\-/]{{0,2}}(?:of\s|de\s|d')?{MONTH}(?:[\s,\-/]{{0,3}}(?:de\s|del\s)?{YEAR})?"
    r"|(?:18|19|20)[0-9]{2}\s?[年년]\s?[01]?[0-9]\s?[月월]\s?[0-3]?[0-9]\s?[日일]?"
    r"|(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9](?![0-9])|[0-3][0-9][01][0-9](?:18|19|20)[0-9]{2}(?![0-9]))"
    rf"|(?<![^\W_]){MONTH}[\s\-]{{0,2}}{DAY}(?![0-9])(?:[\s,\-]{{1,3}}{YEAR})?"
)
LATER, EARLIER = 48, 32
"""How many characters after a word of birth, or before it, its date may stand."""
MRZ = re.compile(
    r"[PIAC][A-Z<][A-Z]{3}[A-Z0-9<]{25,39}\s{0,3}[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{7}[MFX<][0-9]{7}[A-Z0-9<]{2,16}"
)
PASSPORT = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{1,2}[ ]?[0-9]{6,8}|[A-Z0-9]{9}|[0-9]{8,9}|[0-9]{2}[A-Z]{2}[0-9]{5})"
    r"(?![A-Za-z0-9])"
)


class Births:
    """Dates near words such as "born" or "Geburtsdatum", in a dozen languages and most formats."""

    def hits(self, read: ReadText) -> Iterator[Hit]:
        words = [match.span() for match in read.said(BORN)]
        for match in DATE.finditer(read.low) if words else ():
            at = bisect_left(words, (match.start(),))
            before = at > 0 and match.start() - words[at - 1][1] <= LATER
            if before or (at < len(words) and words[at][0] - match.end() <= EARLIER):
                yield Hit(*match.span(), "birth_date", CONTEXT)


class Passports:
    """Numbers of passports near a word for one, and their machine-readable lines."""

    def hits(self, read: ReadText) -> Iterator[Hit]:
        for match in PASSPORT.finditer(read.text):
            if any(each.isdigit() for each in match[0]) and read.near("passport", *match.span(), after=0):
                yield Hit(*match.span(), "passport", CONTEXT)
        for match in MRZ.finditer(read.text):
            yield Hit(*match.span(), "passport", CHECKED)
