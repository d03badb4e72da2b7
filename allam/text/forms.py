"""Forms of a text that are for looking at only, never for keeping: without vowel marks for language ID, normalised for comparing.

Vowel marks and tatweel carry no content that two copies of a text must share, and fastText's language model was trained on text without
them: of 1,000 fully vocalised Arabic lines 3 reach a score of 0.95 as they stand and 689 once stripped (paper §2.1 asks for 0.95).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, get_args

# Harakat, tanwin, shadda, sukun and other combining marks, superscript alef, Quranic marks (not the signs U+06DD, U+06DE, U+06E9,
# which are no marks on letters), extended marks, and tatweel.
_MARK_CLASS = "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u08ca-\u08e1\u08e3-\u08ff\u0640"
_MARKS = re.compile(f"[{_MARK_CLASS}]+")
INVISIBLE = "\u200b-\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\u00ad"  # for a class: marks of direction and joining, soft hyphens, a file's first mark
_UNSEEN = re.compile(f"[{_MARK_CLASS}{INVISIBLE}]+")
_WORD = re.compile(r"\w+")

Fold = Literal["alef", "hamza", "ya", "ta_marbuta"]
ALL_FOLDS: tuple[Fold, ...] = get_args(Fold)
# Letters that writers take for each other. A seat of hamza becomes the bare hamza: مسؤول and مسئول are one word.
FOLDS: dict[Fold, tuple[tuple[str, str], ...]] = {
    "alef": (("أ", "ا"), ("إ", "ا"), ("آ", "ا"), ("ٱ", "ا")),
    "hamza": (("ؤ", "ء"), ("ئ", "ء")),
    "ya": (("ى", "ي"), ("ی", "ي")),
    "ta_marbuta": (("ة", "ه"),),
}
_DIGITS = tuple((chr(zero + i), str(i)) for zero in (0x0660, 0x06F0) for i in range(10))


def without_marks(text: str) -> str:
    """The text without Arabic diacritics and tatweel."""
    return text if text.isascii() else _MARKS.sub("", text)


def comparison_form(text: str, folds: Iterable[Fold] = ()) -> str:
    """NFKC (which folds presentation forms), without diacritics, tatweel and what nobody sees, white space as single spaces.

    `folds` names the letters whose variants are taken for one, too.
    """
    if not text.isascii():
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))  # returns at once what is normal already
        for fold in folds:
            text = _replaced(text, FOLDS[fold])
    return " ".join(text.split())


def comparison_words(text: str) -> list[str]:
    """The words of a text for finding quotations: letters and digits alone, without case, all variants of Arabic letters and digits folded."""
    return _WORD.findall(_replaced(comparison_form(text, ALL_FOLDS), () if text.isascii() else _DIGITS).casefold())


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for variant, letter in pairs:  # str.replace finds nothing in a tenth of the time that a translation table takes
        text = text.replace(variant, letter)
    return text
