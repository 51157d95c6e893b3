"""Keys and tokens of services, and what stands after `password =` and the like."""

from __future__ import annotations

import re
from collections.abc import Iterator

from purify_hooks.private.finders.context import ReadText, beginnings, matches
from purify_hooks.private.finders.finder import CHECKED, Hit

BEFORE, AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9_])"
WRAPPED = r"(?:[A-Za-z0-9_-]{16,200}\r?\n[ \t>]{0,4}){0,40}"
"""Whole lines of a token that a terminal or a mail has broken."""
TOKENS = {
    "aws_key": rf"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|AIPA)[A-Z2-7]{{16}}{AFTER}",
    "github_token": rf"(?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_[A-Za-z0-9_]{{22,255}}){AFTER}",
    "slack_token": (
        r"(?:xox[abceoprs]-(?:[0-9]-)?[A-Za-z0-9]{4,}(?:-[A-Za-z0-9]{4,255}){1,6}|xapp-[0-9]-[A-Za-z0-9-]{20,255}"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,255})"
    ),
    "google_key": (
        r"(?:AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,64}|ya29\.[A-Za-z0-9_-]{20,2048}"
        r"|1//0[A-Za-z0-9_-]{40,255})"
    ),
    "sk_key": r"sk-(?:ant-|proj-|svcacct-|admin-|or-v1-|lf-)?[A-Za-z0-9_-]{20,512}",
    "stripe_key": r"(?:[srp]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{24,128})",
    "jwt": (
        rf"eyJ{WRAPPED}[A-Za-z0-9_-]{{8,8192}}\.{WRAPPED}[A-Za-z0-9_-]{{0,65536}}\.[A-Za-z0-9_-]{{0,8192}}"
        r"(?:\.[A-Za-z0-9_-]{0,65536}\.[A-Za-z0-9_-]{8,512})?"
    ),
    "service_token": (
        r"(?:glpat-[A-Za-z0-9_-]{20,64}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,512}|hf_[A-Za-z0-9]{30,64}"
        r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}|(?:SK|AC)[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
        r"|do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|key-[0-9a-f]{32}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"
        r"|sq0(?:atp|csp)-[A-Za-z0-9_-]{22,64}|EAA[A-Za-z0-9]{60,512}|AccountKey=[A-Za-z0-9+/]{86}=="
        r"|lin_api_[A-Za-z0-9]{40}|gsk_[A-Za-z0-9]{40,64}|r8_[A-Za-z0-9]{37}|xai-[A-Za-z0-9]{60,96}"
        r"|secret_[A-Za-z0-9]{43}|ATATT[A-Za-z0-9_=-]{60,512})"
    ),
}
"""How the keys of services begin and go on, as their makers and secret scanners say; by kind."""
PATTERNS = {
    kind: re.compile((r"(?<![A-Za-z0-9_-])" if kind == "jwt" else BEFORE) + pattern)
    for kind, pattern in TOKENS.items()
}
STARTS = (
    "AKIA ASIA ABIA ACCA AROA AIDA AGPA ANPA AIPA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ xox xapp- hooks.slack "
    "AIza GOCSPX- ya29. 1//0 sk- sk_ rk_ pk_ whsec_ eyJ glpat- npm_ pypi- hf_ SG. SK AC shp doo_ dop_ dor_ "
    "dapi key- sq0 EAA Acc lin_api_ gsk_ r8_ xai- secret_ ATATT"
)
DIGITS = "|".join(f"{digit}(?=[0-9]{{7,9}}:AA)" for digit in range(10))
BEGINNINGS = re.compile(f"{beginnings(STARTS.split()).pattern}|{DIGITS}")
"""How these begin: one search of a text in place of one for each."""
BEGIN = re.compile(r"-{2,8}BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-{2,8}|PuTTY-User-Key-File-[0-9]")
END = re.compile(r"-{2,8}END [A-Z0-9 ]{0,40}-{2,8}|Private-MAC: [0-9a-f]{40,64}")
BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.>*#|_-]{0,16384}")
AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
AWS_NEAR = re.compile(r"aws|secret|AKIA|ASIA|amazon|s3|boto", re.IGNORECASE)


class Keys:
    """Keys and tokens that their beginnings tell, private keys in PEM or PuTTY's format, AWS's secrets."""

    def hits(self, read: ReadText) -> Iterator[Hit]:
        text = read.text
        places = [match.start() for match in BEGINNINGS.finditer(text)]
        for kind, pattern in PATTERNS.items() if places else ():
            for match in matches(pattern, text, places):
                if kind not in ("sk_key", "slack_token") or _random(match[0]):
                    yield Hit(*match.span(), kind, CHECKED)
        yield from _private_keys(text)
        for match in AWS_SECRET.finditer(text):
            near = text[max(0, match.start() - 80) : match.start()] + text[match.end() : match.end() + 60]
            if _mixed(match[0]) and AWS_NEAR.search(near):
                yield Hit(*match.span(), "aws_secret", CHECKED)


def _random(text: str) -> bool:
    """Whether a text holds a digit and a letter, as no name of words joined by dashes does."""
    return any(each.isdigit() for each in text) and any(each.isalpha() for each in text)


def _mixed(text: str) -> bool:
    """Whether a text has capitals, small letters and digits, and many different characters."""
    return (
        len(set(text)) > 14
        and any(each.isupper() for each in text)
        and any(each.islower() for each in text)
        and any(each.isdigit() for each in text)
    )


def _private_keys(text: str) -> Iterator[Hit]:
    """From each beginning to the end after it; without one, as far as characters of a key go."""
    begins = [*BEGIN.finditer(text)]
    ends = iter([*END.finditer(text)] if begins else [])
    end = next(ends, None)
    for at, begin in enumerate(begins):
        while end and end.start() < begin.end():
            end = next(ends, None)
        limit = begins[at + 1].start() if at + 1 < len(begins) else len(text)
        if end and end.start() < limit:
            yield Hit(begin.start(), end.end(), "private_key", CHECKED)
        else:
            body = BODY.match(text, begin.end(), limit)
            stop = body.end() if body else begin.end()
            yield Hit(
                begin.start(),
                begin.start() + len(text[begin.start() : stop].rstrip()),
                "private_key",
                CHECKED,
            )
