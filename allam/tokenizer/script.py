"""What counts as Arabic script: the Unicode blocks of its letters, marks, digits, punctuation and presentation forms (paper §2.2).

Joiners and direction marks (U+200C to U+200F) and the byte order mark stand in English text and code too, and are left out.
"""

from __future__ import annotations

import re

# Arabic; Supplement; Extended-B, -A; Presentation Forms-A (its last 16 are variation selectors' block) and -B; Rumi numerals; Extended-C; mathematical
ARABIC = ("\u0600-\u06ff\u0750-\u077f\u0870-\u089f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc"
          "\U00010e60-\U00010e7f\U00010ec0-\U00010eff\U0001ee00-\U0001eeff")
# What a word is made of: no punctuation, no digits, no signs
_LETTERS = ("\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06e8\u06ea-\u06ef\u06fa-\u06fc\u06ff"
            "\u0750-\u077f\u0870-\u0887\u0889-\u088e\u0897-\u089f\u08a0-\u08e1\u08e3-\u08ff")

ANY_ARABIC = re.compile(f"[{ARABIC}]")
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
