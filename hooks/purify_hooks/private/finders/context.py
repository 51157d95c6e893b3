"""Words near a value that say what it is, in the languages of the countries that issue it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from string import ascii_letters

BEFORE, AFTER = 48, 24
"""How many characters before and after a value are searched for such a word."""
WORDS: Mapping[str, str] = {
    "aadhaar": "aadhaar aadhar uidai uid आधार",
    "ahv": "ahv avs oasi sozialversicherungsnummer",
    "bank_account": (
        "account_number account_no acct a/c account_# bank_account account sort_code routing kontonummer "
        "compte conto cuenta rekening konto 账号 口座"
    ),
    "bitcoin": "bitcoin btc wallet",
    "bsn": "bsn burgerservicenummer sofinummer sofi citizen_service",
    "card": (
        "card visa mastercard amex american_express discover maestro diners jcb unionpay credit debit "
        "kreditkarte karte carte_bancaire carte tarjeta cartão cartao carta_di creditcard kreditkort karta "
        "cvv cvc карта 卡号 カード"
    ),
    "cpf": "cpf cadastro contribuinte",
    "codice_fiscale": "codice_fiscale cod_fiscale cod_fisc c.f. cf",
    "dni": "dni nie nif documento identidad",
    "ethereum": "ethereum eth wallet ether",
    "fodselsnummer": "fødselsnummer fodselsnummer personnummer fnr d-nummer",
    "hetu": "hetu henkilötunnus henkilotunnus sotu personbeteckning",
    "imei": "imei device_id handset",
    "nhs": "nhs national_health patient health_number hospital_number",
    "nino": "nino national_insurance ni_number ni_no",
    "nir": "nir insee sécurité_sociale securite_sociale sécu secu vitale",
    "passport": (
        "passport reisepass passnummer passeport pasaporte passaporto paspoort paszport passaporte pass_no "
        "pass_nr паспорт 护照 旅券 여권"
    ),
    "pesel": "pesel",
    "personnummer": "personnummer personnr samordningsnummer pnr",
    "phone": (
        "phone phones telephone tel tel. mobile cell cellphone call calling text_me sms whatsapp signal fax "
        "dial reach ring contact hotline telefon telefonnummer handy handynummer mobil "
        "mobilnummer rufnummer durchwahl téléphone telephone portable appelez móvil movil celular "
        "teléfono telefono llámame cellulare chiama telefone telemóvel ligue telefoon mobiel bel "
        "komórka komórkowy zadzwoń puhelin телефон тел позвоните мобильный 电话 手机 電話 携帯 전화 휴대폰 "
        "هاتف جوال"
    ),
    "resident_id": "身份证 居民身份 id_number id_card identity_card",
    "rijksregister": "rijksregister registre_national numéro_national nationaal_nummer insz niss",
    "sin": "sin social_insurance nas assurance_sociale",
    "ssn": "ssn ss# social social_security soc_sec itin tin taxpayer",
    "steuer_id": "steuer_id steueridentifikationsnummer steuerliche idnr tin tax_id steuernummer",
    "tckn": "tckn t.c. kimlik",
    "tfn": "tfn tax_file",
    "vat": (
        "vat ust ust-id ustid ust-idnr umsatzsteuer uid tva iva btw moms mwst nip nif cif siren mva alv "
        "partita_iva p.iva numéro_de_tva tax_number tax_id ндс"
    ),
}
"""By kind; `_` stands for what is between two words of one name."""


SAID = (
    "password passwd passphrase passcode pwd passwort kennwort mot mdp contraseña contrasena clave senha "
    "wachtwoord hasło haslo lösenord adgangskode passord salasana parola şifre пароль 密码 密碼 パスワード "
    "비밀번호 pass- pass_ secret token credential connection api access private auth app encryption signing "
    "account master storage shared license session cookie x-api hmac webhook client geheimnis jeton 令牌 "
    "密钥 pin otp one time verification security cvv cvc csc geheimzahl bearer basic authorization seed "
    "recovery mnemonic backup"
)
"""How the words that a secret stands after begin."""
BORN = (
    "date birth born dob d.o b-d bday ur. né geb fech f. nat data nasc nac nací urodz föd fød synty doğum "
    "naroz szület родил дата 生年 生ま 出生 生日 생년 تار"
)
"""How words of birth begin."""
STARTS = r"(?:(?<![^\W_])|(?<=[a-z])(?=[A-Z]))"
"""Where a word or a hump of one (`userBsn`) begins."""
HEAD = 4
"""The most characters of a word that the first search looks at."""


def _words(kind: str) -> list[str]:
    return [word for word in WORDS[kind].split() if word.strip("_")]


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """A kind's words at the beginnings of words or of their humps; long ones may begin a compound."""
    spelled = [r"[\W_]{0,3}".join(map(re.escape, word.split("_"))) for word in _words(kind)]
    ends = [f"{each}(?![a-zß-ÿ])" if len(each) < 6 and each.isascii() else each for each in spelled]
    return re.compile(rf"{STARTS}(?i:{'|'.join(ends)})")


@cache
def _heads() -> re.Pattern[str]:
    """Where a word may begin that any detector looks for: one search of a text in place of one for each."""
    words = [word.split("_")[0] for kind in WORDS for word in _words(kind)]
    return beginnings(each[:HEAD] for each in (*words, *SAID.split(), *BORN.split()))


def beginnings(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds the first character of each of some texts, also of those that overlap."""
    tails: dict[str, set[str]] = {}
    for text in texts:
        tails.setdefault(text[0], set()).add(text[1:])
    # One character and then what may follow: `re` skips to the first of these characters by itself.
    return re.compile("|".join(f"{re.escape(first)}(?={_any(ends)})" for first, ends in tails.items()))


def matches(pattern: re.Pattern[str], text: str, places: Iterable[int]) -> Iterator[re.Match[str]]:
    """What `pattern` finds in a text, if all that it finds begins at some of `places`, which are in order."""
    end = 0
    for at in places:
        if at >= end and (match := pattern.match(text, at)):
            yield match
            end = match.end()


def _any(texts: Iterable[str]) -> str:
    """An expression for one of the texts, one character a level."""
    tree: dict[str, set[str]] = {}
    for text in texts:
        if not text:
            return ""
        tree.setdefault(text[0], set()).add(text[1:])
    return f"(?:{'|'.join(re.escape(first) + _any(ends) for first, ends in sorted(tree.items()))})"


@cache
def _kinds() -> Mapping[str, Sequence[str]]:
    """The kinds of which a word begins with a letter of ASCII."""
    found: dict[str, list[str]] = {letter: [] for letter in ascii_letters}
    for kind in WORDS:
        for initial in {word[0] for word in _words(kind)} & {*ascii_letters}:
            found[initial].append(kind)
            found[initial.upper()].append(kind)
    return found


class ReadText:
    """A plain text as detectors read it: also in small letters, with the words that tell of what is near."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def low(self) -> str:
        """The text in small letters, as long as before."""
        low = self.text.lower()
        return low if len(low) == len(self.text) else "".join(each.lower()[0] for each in self.text)

    @cached_property
    def heads(self) -> Sequence[int]:
        """Where a word may begin that any detector looks for, in order."""
        low = self.low
        if not low.isascii():
            low = low.replace("ſ", "s").replace("ı", "i")  # which `re` takes for s and i
        return [match.start() for match in _heads().finditer(low)]

    def said(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """What `pattern` finds in the text in small letters, if it begins with words of `SAID` or `BORN`."""
        return matches(pattern, self.low, self.heads)

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        """Where the text's words for each kind begin; none in another one of its kind."""
        places: dict[str, list[int]] = {kind: [] for kind in WORDS}
        ends = dict.fromkeys(WORDS, 0)
        for at in self.heads:
            # Another character may be a letter's other case, as the long s is.
            for kind in _kinds().get(self.text[at], WORDS):
                if at >= ends[kind] and (word := _pattern(kind).match(self.text, at)):
                    places[kind].append(at)
                    ends[kind] = word.end()
        return places

    @cached_property
    def named(self) -> frozenset[str]:
        """The kinds that the text has a word for."""
        return frozenset(kind for kind, places in self._places.items() if places)

    def near(self, kind: str, start: int, end: int, before: int = BEFORE, after: int = AFTER) -> bool:
        """Whether a word of a kind begins at most so many characters before a value, or after it."""
        places = self._places[kind]
        at = bisect_left(places, start - before)
        return at < len(places) and places[at] <= end + after
