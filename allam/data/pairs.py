"""What is measured of a translation beside its source: length, language, loops, words left in the source's language, numbers lost (paper §2.1).

Pure functions, no thresholds; docs/data.md shows the distributions on real pairs.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from allam.data.spans import prose

LONGEST_LOOP = 12  # words of the phrase that a loop repeats
ROUNDS = 4  # a phrase that stands so often in a row is a loop: real text says a word twice or three times for emphasis
_WORD_LOOP = re.compile(r"([^\W\d_]{1,8}?)\1{7,}")  # inside one word: بابابابابابابابا
_LETTER = re.compile(r"[^\W\d_]")
_ORDINARY = re.compile(r"(?<![\w.\-/])(?![ivxlc]+\b)[a-z]{2,}+(?:['’][a-z]++)?(?![\w/]|[.\-]\w)")
_THOUSANDS = re.compile(r"(?<=\d)[,٬،'’](?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?<![A-Za-z_])\d++(?![A-Za-z_])")
LONGEST_NUMBER = 1000  # digits
SPELLED_OUT = 12  # numbers up to here are as often written in words

def loop_share(text: str) -> float:
    """Share of words that stand in a phrase of up to LONGEST_LOOP words said ROUNDS times or more in a row, or that repeat themselves within."""
    words = [word for word in text.split() if _LETTER.search(word)]
    if not words:
        return 0.0
    known: dict[str, int] = {}
    ids = np.array([known.setdefault(word, len(known)) for word in words])
    looped = np.array([len(word) >= 8 and _WORD_LOOP.search(word) is not None for word in known])[ids]
    for size in range(1, min(LONGEST_LOOP, len(ids) // ROUNDS) + 1):
        edges = np.diff(np.concatenate([[0], ids[size:] == ids[:-size], [0]]).astype(np.int8))
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            if end - start >= size * (ROUNDS - 1):
                looped[start: end + size] = True
    return float(looped.mean())


def ordinary_words(text: str) -> Counter[str]:
    """Words in small Latin letters outside code and addresses: names and acronyms, which may stay as they are, begin with capital letters."""
    return Counter(_ORDINARY.findall(prose(text)))


def numbers(text: str) -> Counter[str]:
    """The numbers above SPELLED_OUT outside code and addresses, as plain digits: `1,000`, `١٬٠٠٠` and `1000` are one; `1970s` and `3D` are none."""
    found = (_plain(digits) for digits in _NUMBER.findall(_THOUSANDS.sub("", prose(text))))
    return Counter(digits for digits in found if len(digits) > 2 or int(digits) > SPELLED_OUT)


def _plain(digits: str) -> str:
    """ASCII digits without leading zeros. Python refuses to read numbers of more than 4,300 digits, so long ones are read piece by piece."""
    read = "".join(str(int(digit)) for digit in digits) if len(digits) > LONGEST_NUMBER else str(int(digits))
    return read.lstrip("0") or "0"


def missing(wanted: Counter[str], there: Counter[str]) -> Counter[str]:
    """Those of `wanted` that are not `there`."""
    return wanted - there
