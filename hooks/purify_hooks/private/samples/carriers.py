"""Prompts around a private value: letters, chats, forms, JSON, Markdown, code, tool results, URLs."""

from __future__ import annotations

import json
from random import Random
from string import digits

NAMES = {
    "aadhaar": ("Aadhaar", "aadhaar number"),
    "ahv": ("AHV", "AHV-Nummer"),
    "aws_key": ("aws_access_key_id", "AWS key"),
    "aws_secret": ("aws_secret_access_key", "AWS secret"),
    "bank_account": ("account number", "bank account"),
    "birth_date": (
        "date of birth",
        "DOB",
        "Geburtsdatum",
        "fecha de nacimiento",
        "date de naissance",
        "born",
    ),
    "bitcoin": ("wallet", "BTC address"),
    "bsn": ("BSN", "burgerservicenummer"),
    "card": ("card", "Visa", "credit card number"),
    "codice_fiscale": ("codice fiscale", "CF"),
    "cpf": ("CPF",),
    "dni": ("DNI", "NIE", "documento"),
    "email": ("email", "E-Mail", "mail"),
    "ethereum": ("ETH address", "wallet"),
    "fodselsnummer": ("fødselsnummer", "personnummer"),
    "github_token": ("GITHUB_TOKEN", "token"),
    "google_key": ("GOOGLE_API_KEY", "key"),
    "hetu": ("henkilötunnus", "HETU"),
    "iban": ("IBAN", "account"),
    "imei": ("IMEI",),
    "ipv4": ("ip", "host", "server"),
    "ipv6": ("ip", "address"),
    "jwt": ("token", "id_token"),
    "mac": ("MAC", "device"),
    "nhs": ("NHS number", "NHS no"),
    "nino": ("National Insurance number", "NI no"),
    "nir": ("numéro de sécurité sociale", "NIR"),
    "passport": ("passport number", "passport no", "Reisepass"),
    "personnummer": ("personnummer",),
    "pesel": ("PESEL",),
    "phone": ("phone", "Tel", "mobile", "Telefon", "móvil"),
    "private_key": ("key", "ssh key"),
    "resident_id": ("身份证号", "ID number"),
    "rijksregister": ("rijksregisternummer", "numéro national"),
    "secret": ("password", "Passwort", "api_key", "DB_PASSWORD", "contraseña"),
    "service_token": ("token", "TOKEN"),
    "sin": ("SIN", "social insurance number"),
    "sk_key": ("OPENAI_API_KEY", "key"),
    "slack_token": ("SLACK_TOKEN", "bot"),
    "ssn": ("SSN", "social security number"),
    "steuer_id": ("Steuer-ID", "IdNr"),
    "stripe_key": ("STRIPE_KEY", "stripe"),
    "tckn": ("T.C. kimlik no", "TCKN"),
    "tfn": ("TFN", "tax file number"),
    "vat": ("VAT", "USt-IdNr.", "TVA"),
}
"""What people call a value of each kind."""
BARE = (
    ("Hi, can you help me write to the office? My {name} is {value}", ", thanks.\nBest, A."),
    (
        "Summarise this for the file. {name}: {value}",
        "\nThe rest of the letter is about the garden and the fence.",
    ),
    ("- name: A. Quill\n- {name}: {value}", "\n- city: Utrecht\n"),
    ("| field | value |\n|---|---|\n| {name} | {value}", " |\n"),
    ("**{name}**: `{value}", "` please check it"),
    ("<p>{name}: {value}", "</p>"),
    ("{name} ({value}", ") was wrong in the last mail"),
    ("{name}={value}", "\nregion=eu\n"),
    ('config = dict(name="{name}", {key}="{value}', '")\nprint(config)'),
    ('Please translate into French: "My {name} is {value}', '."'),
    ("> {name}:\n> {value}", "\n>\nOn Monday you wrote"),
    ("{name}：{value}", "，谢谢"),
)
"""Carriers of a value as it is; `{value}` ends the first part."""


def carried(kind: str, value: str, random: Random) -> tuple[str, str, str]:
    """What stands before a value, the value as it is written there, and what stands after it."""
    if kind == "url_credentials":
        return _split(random.choice(URLS), kind, value)
    name = random.choice(NAMES[kind])
    draw = random.random()
    if draw < 0.15:
        return _in_json(name, value, random)
    if draw < 0.25 and kind == "email":
        return (
            "[write me](mailto:",
            value.replace("@", "%40").replace('"', "%22").replace(" ", "%20"),
            "?subject=Hi)",
        )
    before, after = random.choice(BARE)
    written = value if draw < 0.8 else _disguised(value, random)
    filled = before.replace("{name}", name).replace("{key}", name.replace(" ", "_").replace(".", "_"))
    return filled.replace("{value}", ""), written, after


URLS = (
    "DATABASE_URL=postgres://{value}@db.example.org:5432/app\n",
    "git clone https://{value}@git.example.org/a/b.git",
    "see `amqp://{value}@10.0.0.7/` please",
    '{"proxy": "http://{value}@proxy.example.org:8080"}',
)


def _split(carrier: str, kind: str, value: str) -> tuple[str, str, str]:
    before, _, after = carrier.partition("{value}")
    return before, value, after


MARK = "<value>"


def _in_json(name: str, value: str, random: Random) -> tuple[str, str, str]:
    """A tool's result or a call's arguments; or JSON in a string of JSON."""
    body = json.dumps({"user": {"id": random.randrange(100), name.replace(" ", "_"): MARK, "active": True}})
    written = json.dumps(value, ensure_ascii=random.random() < 0.5)[1:-1]
    if random.random() < 0.3:
        body, written = json.dumps(body), json.dumps(written)[1:-1]
    before, _, after = body.partition(MARK)
    return before, written, after


def _disguised(value: str, random: Random) -> str:
    """A value with a zero-width character, digits of full width, other dashes and spaces, or entities."""
    return random.choice((_zero_width, _full_width, _typeset, _entities))(value, random)


def _zero_width(value: str, random: Random) -> str:
    at = random.randrange(1, len(value))
    return value[:at] + random.choice("\u200b\u200d\u2060\ufeff\u00ad") + value[at:]


def _full_width(value: str, random: Random) -> str:
    return value.translate(str.maketrans(digits, "０１２３４５６７８９"))


def _typeset(value: str, random: Random) -> str:
    return value.replace("-", random.choice("‐‑–")).replace(" ", random.choice("\u00a0\u202f\u2009"))


def _entities(value: str, random: Random) -> str:
    return value.replace("@", "&#64;").replace(" ", "&nbsp;")
