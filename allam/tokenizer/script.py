"""What counts as Arabic script: the Unicode blocks of its letters, marks, digits, punctuation and presentation forms (paper §2.2).

Joiners and direction marks (U+200C to U+200F) and the byte order mark stand in English text and code too, and are left out.
"""

from __future__ import annotations

import re
from functools import cache

# Arabic; Supplement; Extended-B, -A; Presentation Forms-A (its last 16 are variation selectors' block) and -B; Rumi numerals; Extended-C; mathematical
ARABIC = ("\u0600-\u06ff\u0750-\u077f\u0870-\u089f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc"
          "\U00010e60-\U00010e7f\U00010ec0-\U00010eff\U0001ee00-\U0001eeff")
# What a word is made of: no punctuation, no digits, no signs
_LETTERS = ("\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06e8\u06ea-\u06ef\u06fa-\u06fc\u06ff"
            "\u0750-\u077f\u0870-\u0887\u0889-\u088e\u0897-\u089f\u08a0-\u08e1\u08e3-\u08ff")

_LAST_ARABIC = 0x1EEFF
ANY_ARABIC = re.compile(f"[{ARABIC}]")
_ALL_ARABIC = re.compile(f"[{ARABIC}]+")
_PIECE = re.compile(f"▁*[{ARABIC}]+")
_WORD = re.compile(f"(?<!\\S)[{_LETTERS}]+(?!\\S)")


def is_arabic_piece(piece: str) -> bool:
    """Whether a piece is made of Arabic script alone, spaces (`▁`) before it aside."""
    return _PIECE.fullmatch(piece) is not None


def has_arabic(text: str) -> bool:
    """Whether any character of the text is of Arabic script."""
    return ANY_ARABIC.search(text) is not None


def arabic_words(text: str) -> list[str]:
    """The words between white space that are made of Arabic letters and marks alone."""
    return _WORD.findall(text)


def is_arabic_bytes(piece: bytes) -> bool:
    """Whether the bytes of a byte-level piece are spaces, then Arabic script alone: whole characters, and at the end perhaps the beginning of one.

    A beginning counts where no other script's characters begin so: D8 to DB do, EF AD doesn't, since Hebrew's U+FB4B begins with it too. A piece that begins
    within a character doesn't count, since that character may be any script's. So no text without Arabic script can hold such a piece.
    """
    text = piece.lstrip(b" ")
    try:
        return _ALL_ARABIC.fullmatch(text.decode()) is not None
    except UnicodeDecodeError as error:
        return text[error.start:] in _beginnings() and (not error.start or _ALL_ARABIC.fullmatch(text[:error.start].decode()) is not None)


def holds_arabic(piece: bytes) -> bool:
    """Whether a byte-level piece can stand in text with Arabic script only, whatever else it is made of; pieces that begin within a character don't count."""
    return not 0x80 <= piece[0] < 0xC0 and (is_arabic_bytes(piece) or has_arabic(piece.decode(errors="ignore")))


@cache
def _beginnings() -> frozenset[bytes]:
    """The first bytes of characters, as far as they tell that the character is of Arabic script."""
    arabic, other = set[bytes](), set[bytes]()
    for code in range(0x80, _LAST_ARABIC + 1):
        if not 0xD800 <= code < 0xE000:
            data = chr(code).encode()
            (arabic if ANY_ARABIC.match(chr(code)) else other).update(data[:length] for length in range(1, len(data)))
    return frozenset(arabic - other)
