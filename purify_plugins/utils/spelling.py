"""Spellings that are one: case, accents, look-alike letters, punctuation and white space are folded away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

UNREAD = "\ufffd"
"""What stands in a text for bytes that are no character; it is like no letter."""
JOINING = "'’‘ʼ＇`´\u00ad"
"""Apostrophes and the soft hyphen: they stand inside a word."""
UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What is not printed, beside format characters (Cf): joiners, fillers and variation selectors, which Unicode
has as marks or letters (Default_Ignorable_Code_Point)."""
PLAIN = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"}
"""Letters that Unicode does not decompose, as they are written without their keys."""
LOOK_ALIKE: Final = {
    # Cyrillic
    **dict(zip("авекмнорстухіјѕԁһӏԛԝѵь", "abekmhopctyxijsdhlqwvb", strict=True)),
    # Greek
    **dict(zip("αβγεηικμνορτυχω", "abyenikuvoptuxw", strict=True)),
    # Armenian
    **dict(zip("հոսօ", "hnuo", strict=True)),
    # Latin letters with a hook or no dot, and small capitals
    **dict(zip("ɑɡɩʋƒꞵᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "agivfbabcdefghijklmnoprstuvwyz", strict=True)),
}
"""Letters that are read as another one, in lower case: Latin ones stand for all."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""The first words of the Unicode names of letters that are written without spaces between words."""


class _Folded(dict[int, str]):
    """What each character is folded to, by its number, found when it is first asked for."""

    def __missing__(self, number: int) -> str:
        return self.setdefault(number, _fold(chr(number)))


def _fold(character: str) -> str:
    if character in JOINING or unicodedata.category(character) == "Cf" or UNSEEN.match(character):
        return ""
    found = ""
    for each in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold()):
        if unicodedata.combining(each):
            continue  # an accent
        kept = each.isalnum() or each == UNREAD or unicodedata.category(each)[0] == "M"
        found += PLAIN.get(each, LOOK_ALIKE.get(each, each)) if kept else " "
    return found


_FOLDED = _Folded()


def spelling(text: str) -> str:
    """The text's letters and digits without case and accents; every other run of characters is one space.

    Letters of other alphabets that look like Latin ones count as these. Apostrophes and what is not printed
    (zero-width characters, soft hyphens) are dropped. A character is folded by itself, so a text's spelling
    is that of its parts, but for spaces that meet.
    """
    found = text.translate(_FOLDED)
    while "  " in found:
        found = found.replace("  ", " ")
    return found


def spaced(text: str) -> bool:
    """Whether spaces stand between the words of a script: the one that the text's first letter is of."""
    return not unicodedata.name(text[:1] or " ", "").startswith(UNSPACED)


def beginning_words(names: Iterable[str]) -> set[str]:
    """The spellings of names, with a space before those that begin where a word does.

    A name is found so at the beginning of a word, and where words are not parted anywhere.
    """
    spelled = {spelling(name).strip() for name in names} - {""}
    return {f" {each}" if spaced(each) else each for each in spelled}
