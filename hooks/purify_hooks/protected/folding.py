"""Text as it is compared: letters and digits, in one case, without accents, spaces and punctuation.

Characters are folded one by one, whatever stands beside them, so that a text can be folded as it is written.
"""

from __future__ import annotations

import unicodedata
from typing import Final

BOUNDARY: Final = " "
"""What folds to no letter, and ends a word."""
LOOK_ALIKE: Final = {
    # Cyrillic
    **dict(zip("авекмнорстухіјѕԁһӏԛԝѵь", "abekmhopctyxijsdhlqwvb", strict=True)),
    # Greek
    **dict(zip("αβγεηικμνορτυχω", "abyenikuvoptuxw", strict=True)),
    # Armenian
    **dict(zip("հոսօ", "hnuo", strict=True)),
    # Letters of the Latin alphabet with a stroke, a hook or no dot, and small capitals
    **dict(zip("ıłøđħɑɡɩʋƒꞵᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "ilodhagivfbabcdefghijklmnoprstuvwyz", strict=True)),
}
"""Letters that are read as another one, in lower case: Latin ones stand for all."""
INSIDE: Final = frozenset("'\u2019\u2018\u02bc\u00b4`\uff07")
"""Apostrophes: they fold to nothing, and end no word."""


def _fold(character: str) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    letters = "".join(LOOK_ALIKE.get(each, each) for each in plain if each.isalnum())
    if letters:
        return letters
    inside = character in INSIDE or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf", "Cs")
    return "" if inside else BOUNDARY


class _Folding(dict[int, str]):
    """What each character folds to, by its code point: letters, a boundary, or nothing."""

    def __missing__(self, code: int) -> str:
        return self.setdefault(code, _fold(chr(code)))


FOLDED: Final = _Folding()
"""Characters by their code points: their letters (NFKD, case folded, accents dropped), " ", or ""."""
UNSPACED: Final = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32000))
"""Kana and Han, which are written without spaces: each character counts as a word."""


def letters_of(text: str) -> str:
    """The letters of a text, without spaces."""
    return text.translate(FOLDED).replace(BOUNDARY, "")


def words_of(text: str) -> list[str]:
    """The words of a text, as letters; of writing without spaces each character."""
    return [part for word in text.translate(FOLDED).split() for part in _parts(word)]


def _parts(word: str) -> list[str]:
    if word.isascii():
        return [word]
    spaced = "".join(f" {each} " if unspaced(ord(each)) else each for each in word)
    return spaced.split()


def unspaced(code: int) -> bool:
    """Whether a character is of a writing without spaces."""
    return any(low <= code < high for low, high in UNSPACED)
