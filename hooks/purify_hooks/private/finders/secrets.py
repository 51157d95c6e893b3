"""What stands after `password =`, `token:`, `my PIN is` and the like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CONTEXT, Hit

PASSWORD = (
    "password passwd passphrase passcode pwd passwort kennwort mot_de_passe mdp contraseña contrasena "
    "clave senha wachtwoord hasło haslo lösenord adgangskode passord salasana parola şifre пароль 密码 "
    "密碼 パスワード 비밀번호"
)
KEY = (
    "secret token credential credentials connection_string api_key access_key secret_key private_key "
    "auth_key app_key encryption_key signing_key account_key master_key storage_key shared_key license_key "
    "session_id sessionid auth_code client_secret cookie x-api-key hmac_key webhook_secret geheimnis jeton "
    "令牌 密钥"
)
PIN = (
    "pin pin_code pincode otp one-time_code verification_code security_code cvv cvc cvv2 cvc2 csc geheimzahl"
)


def _any(words: str) -> str:
    return "|".join(r"[\s_.-]{0,2}".join(map(re.escape, word.split("_"))) for word in words.split())


SAYS = (
    r"(?:>(?=[^<\s]{3,64}</)|\s{0,2}\((?!\))|\s{0,2}\|\s{0,2}|\s{0,4}(?:[:=]{1,3}>?|->|：|＝)"
    r"|\s{1,2}(?:is|was|are|ist|lautet|est|es|é|è|jest|är|er|on)(?:\s(?:now|still))?(?=\s)[:=]?"
    r"|是|は|[ \t]{1,2}(?=\S{0,24}[0-9]))"
)
GIVEN = re.compile(
    rf"(?:(?P<password>{_any(PASSWORD)}|(?<![a-z])pass)|(?P<key>{_any(KEY)})|(?<![a-z])(?P<pin>{_any(PIN)}))"
    rf"(?:\s(?:for|of|to|für|pour|para|do)\s[\w .@-]{{1,32}}?)?[\"'`*\])]{{0,3}}(?P<says>{SAYS})"
    r"[ \t*]{0,4}\r?\n?[ \t>]{0,8}"
    r"(?:[\"“”„«](?P<double>[^\"\n“”„«»]{3,256})[\"“”»]|'(?P<single>[^'\n]{3,256})'"
    r"|[`‘](?P<tick>[^`\n’]{3,256})[`’]|(?P<bare>[^\s\"`“”„«»，。；、！？（）「」]{3,512}))"
)
BEARER = re.compile(
    r"(?<![a-z])(?:bearer|basic|authorization[\"']?\s{0,2}[:=]\s{0,2}[\"']?token)\s{1,2}(?=[A-Za-z0-9+/=._~-]{12})"
)
CREDENTIAL = re.compile(r"[A-Za-z0-9+/=._~-]{12,4096}")
PHRASE = re.compile(
    r"(?:seed|recovery|mnemonic|backup)[\s_-]{0,2}(?:phrase|words|key)?[\"']?\s{0,3}(?:[:=]|is)\s{0,3}[\"'`]?"
    r"(?P<value>(?:(?:[0-9]{1,2}[.)]\s?)?[a-z]{3,8}[\s,]{1,3}){11,23}(?:[0-9]{1,2}[.)]\s?)?[a-z]{3,8})"
)
PASSPHRASE = re.compile(
    r"pass[ _-]?phrase[\"'*]{0,3}\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"'`]?"
    r"(?P<value>(?:[a-z]{2,12}[ -]){3,9}[a-z]{2,12})"
)
PATH = re.compile(
    r"[A-Za-z_$][\w$]*(?:(?:\.|::|->)[A-Za-z_$][\w$]*|\[[^\]]*\]?|\(.*)+[;,)]*|[A-Za-z_]\w*\(\)?.*"
)
REMARKS = (
    "none null nil true false undefined string str int integer number bool boolean bytes any object "
    "optional required hidden secretstr secret password passwd token text varchar char void unknown "
    "invalid empty missing wrong correct incorrect expired needed not stored hashed encrypted self this "
    "function return await async const default redacted masked example placeholder field input type value "
    "key name"
)
NONE = frozenset(REMARKS.split())
"""Words after "password:" that are types, values or remarks of a program or its manual."""


class Secrets:
    """Values after the names of secrets.

    A quoted value counts, and one with digits or marks among its letters; a plain word only right after
    `password=` or at the end of a `password:` line. Variables, types and placeholders of programs do not.
    """

    def hits(self, read: ReadText) -> Iterator[Hit]:
        text = read.text
        for match in read.said(GIVEN):
            start, end = match.span(match.lastgroup or 0)
            after = text[end : end + 1]
            size = (_bare if match["bare"] else _quoted)(text[start:end], match, after)
            if size:
                yield Hit(start, start + size, "secret", CONTEXT)
        for match in read.said(BEARER):
            credential = CREDENTIAL.match(text, match.end())
            if credential and _strong(credential[0]):
                yield Hit(*credential.span(), "secret", CONTEXT)
        for match in chain(read.said(PHRASE), read.said(PASSPHRASE)):
            yield Hit(*match.span("value"), "secret", CONTEXT)


def _quoted(value: str, match: re.Match[str], after: str) -> int:
    """How many characters of a quoted value are secret."""
    if match["pin"]:
        return len(value) if value.isdigit() and 3 <= len(value) <= 8 else 0
    if _placeholder(value) or (" " in value and not _strong(value)):
        return 0
    if match["password"]:
        return len(value) if len(value) >= 4 else 0
    return len(value) if len(value) >= 8 and _strong(value) else 0


def _bare(value: str, match: re.Match[str], after: str) -> int:
    value = re.split(r"[,;!?](?=[^\x00-\x7f])|</?[a-z]*>?$", value)[0].rstrip(".,;:?)]}*>\\|")
    value = re.split("[&,;]", value)[0] if "=" in match["says"] and not match["password"] else value
    if match["pin"]:
        digits = re.match(r"[0-9]{3,8}(?![0-9A-Za-z.])", value)
        return len(digits[0]) if digits and (len(digits[0]) > 3 or "c" in match["pin"]) else 0
    if _placeholder(value) or PATH.fullmatch(value):
        return 0
    least = (5, 8) if match["says"].strip() else (6, 16)  # "password: x1", and "password x1"
    if _strong(value) and len(value) >= least[not match["password"]]:
        return len(value)
    plain = match["password"] and len(value) >= 5 and value.isalpha()
    tight = match["says"] == "=" and match.end("says") == match.start("bare") and after in " \n&;"
    line = ":" in match["says"] and after in "\n"
    return len(value) if plain and (tight or line) else 0


def _strong(value: str) -> bool:
    """Whether a value mixes letters with digits or marks, as names of variables and words do not."""
    letters = any(each.isalpha() for each in value)
    digits = any(each.isdigit() for each in value)
    marks = any(not each.isalnum() and each not in "._-/:\\[]{}()<>=,'" for each in value)
    return (digits and letters) or (marks and (letters or digits)) or (value.isdigit() and len(value) >= 6)


def _placeholder(value: str) -> bool:
    low = value.lower()
    return (
        low in NONE
        or low.startswith(
            ("$", "<", "{", "%(", "process.env", "os.", "env.", "your", "my_", "...", "http://", "https://")
        )
        or len(set(low) - set("*x.-_••")) == 0
    )
