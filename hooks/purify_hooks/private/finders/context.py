"""Words near a value that say what it is, in the languages of the countries that issue it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache

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


@cache
def _pattern(words: str) -> re.Pattern[str]:
    """The words at the beginnings of words or of their humps (`userBsn`); long ones may begin a compound."""
    spelled = [
        r"[\W_]{0,3}".join(map(re.escape, word.split("_"))) for word in words.split() if word.strip("_")
    ]
    ends = [f"{each}(?![a-zß-ÿ])" if len(each) < 6 and each.isascii() else each for each in spelled]
    return re.compile(rf"(?:(?<![^\W_])|(?<=[a-z])(?=[A-Z]))(?i:{'|'.join(ends)})")


class Nearby:
    """The words of a text that say what a value near them is; each kind's are looked for once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.places: dict[str, list[int]] = {}

    def names(self, kind: str) -> Sequence[int]:
        """Where the text's words for a kind begin."""
        if kind not in self.places:
            self.places[kind] = [match.start() for match in _pattern(WORDS[kind]).finditer(self.text)]
        return self.places[kind]

    def __call__(self, kind: str, start: int, end: int, before: int = BEFORE, after: int = AFTER) -> bool:
        """Whether a word of a kind begins at most so many characters before a value, or after it."""
        places = self.names(kind)
        at = bisect_left(places, start - before)
        return at < len(places) and places[at] <= end + after
