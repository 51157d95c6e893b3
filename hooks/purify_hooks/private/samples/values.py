"""A value of each kind, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

from purify_hooks.private.finders import checksums
from purify_hooks.private.samples import drawing, machines
from purify_hooks.private.samples.drawing import dated, numbered
from purify_hooks.private.samples.machines import tokens
from purify_hooks.private.samples.wallets import bitcoin, ethereum

ALNUM, HEX = ascii_letters + digits, digits + "abcdef"
PLAIN, SPACED = ("20", ""), ("3 3 4", " ")
VALUES: Mapping[str, Callable[[Random], str]] = {
    "aadhaar": numbered(12, checksums.aadhaar, ("4 4 4", " "), PLAIN),
    "ahv": numbered(10, checksums.ahv, ("3 4 4 2", "."), PLAIN, head="756"),
    "aws_key": tokens(("AKIA", ascii_uppercase + "234567", 16), ("ASIA", ascii_uppercase + "234567", 16)),
    "aws_secret": tokens(("wJ4", ascii_letters + digits + "/+", 37)),
    "bank_account": numbered(8, bool, PLAIN, ("4 4", " ")),
    "birth_date": drawing.birth_date,
    "bitcoin": bitcoin,
    "bsn": numbered(9, checksums.bsn, PLAIN, ("4 2", "."), ("3 3", " ")),
    "card": drawing.card,
    "codice_fiscale": drawing.codice_fiscale,
    "cpf": numbered(11, checksums.cpf, PLAIN, ("9", "-")),
    "dni": drawing.dni,
    "email": drawing.email,
    "ethereum": ethereum,
    "fodselsnummer": dated("%d%m%y", 5, checksums.fodselsnummer, "6", " "),
    "github_token": tokens(
        ("ghp_", ALNUM, 36),
        ("gho_", ALNUM, 36),
        ("github_pat_11", ALNUM, 20),
        ("github_pat_", ALNUM + "_", 82),
    ),
    "google_key": tokens(("AIza", ALNUM + "-_", 35), ("GOCSPX-", ALNUM, 28), ("ya29.", ALNUM + "-_", 120)),
    "hetu": drawing.hetu,
    "iban": drawing.iban,
    "imei": numbered(15, checksums.luhn, PLAIN, ("2 6 6", " ")),
    "ipv4": machines.ipv4,
    "ipv6": machines.ipv6,
    "jwt": machines.jwt,
    "mac": machines.mac,
    "nhs": numbered(10, checksums.nhs, SPACED, PLAIN),
    "nino": drawing.nino,
    "nir": drawing.nir,
    "passport": tokens(("C0", digits, 7), ("", digits, 9), ("X", digits, 8)),
    "personnummer": dated("%y%m%d", 4, checksums.personnummer, "6", "-"),
    "pesel": dated("%y%m%d", 5, checksums.pesel),
    "phone": drawing.phone,
    "private_key": machines.private_key,
    "resident_id": drawing.resident_id,
    "rijksregister": dated("%y%m%d", 5, checksums.rijksregister, "6 3", "-"),
    "secret": machines.secret,
    "service_token": tokens(
        ("glpat-", ALNUM, 20),
        ("npm_", ALNUM, 36),
        ("hf_", ascii_letters, 34),
        ("SG." + "a" * 22 + ".", ALNUM, 43),
    ),
    "sin": numbered(9, checksums.luhn, ("3 3", " "), ("3 3", "-"), PLAIN),
    "sk_key": machines.sk_key,
    "slack_token": tokens(
        ("xoxb-2401820384-2", digits + ascii_lowercase, 24),
        ("xapp-1-A0", ALNUM, 60),
        ("xoxp-1234-5", ALNUM, 30),
    ),
    "ssn": numbered(9, checksums.ssn, ("3 2", "-"), ("3 2", " "), PLAIN),
    "steuer_id": drawing.steuer_id,
    "stripe_key": tokens(("sk_live_", ALNUM, 24), ("rk_live_", ALNUM, 99), ("whsec_", ALNUM, 32)),
    "tckn": numbered(11, checksums.tckn, PLAIN),
    "tfn": numbered(9, checksums.tfn, ("3 3", " "), PLAIN),
    "url_credentials": machines.url_credentials,
    "vat": drawing.vat,
}
