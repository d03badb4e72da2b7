"""What the filters measure of a text (paper §2.1): its words, its spam ratio, its stop-word ratio. Pure functions, no thresholds.

The paper names the ratios and gives neither definition nor threshold; these are ours, calibrated on real text in docs/data.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from allam.data.spam import furniture
from allam.text.forms import without_marks
from allam.text.stop_words import STOP_WORDS

_LINK = re.compile(r"(?:https?:|ftp:|www\.)|^[@#]\w|^\S+@\S+\.\S+$|^(?:[\w-]+\.)+(?:com|net|org|info|biz|sa|ly|me|co|tv|gl|io)(?:/|$)", re.IGNORECASE)
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u00ad"
_EDGES = "".join(chr(c) for c in range(33, 127) if not chr(c).isalnum() and chr(c) not in "#@") + "،؛؟«»“”‘’…–—•ـ" + _INVISIBLE
MIN_REPEATS = 4  # a content word that stands less often is not over-used, however short the text
MIN_SHARE = 0.05  # nor one with a smaller share: 99% of good prose has less than 10% of its words in such words, mostly none


@dataclass(frozen=True, slots=True)
class Measures:
    """`words`: split at white space. The ratios are shares of those words, from 0 to 1; `most_used` is the most frequent over-used word."""

    words: int
    spam_ratio: float
    stop_word_ratio: float
    most_used: str


def measure(text: str, language: str) -> Measures:
    """All measures of a text."""
    view = comparable(without_marks(text))
    return measure_words(view, view.split(), language)


def comparable(text: str) -> str:
    """A text without marks as `measure_words` wants it; it has as many words as before."""
    return text.lower().replace("’", "'")


def measure_words(text: str, words: list[str], language: str) -> Measures:
    """All measures of a text that is `comparable`, and its words, split at white space.

    Spam is the share of words that are links, addresses, mentions or hashtags, or furniture of a page or repetitions (`allam.data.spam`), or
    over-used: content words (no stop word, at least three letters) that stand MIN_REPEATS times or more and make MIN_SHARE of the words or
    more. A word counts once. Words are looked at once for each different word, since most of a text's words are repetitions of a few.
    """
    if not words:
        return Measures(0, 0.0, 0.0, "")
    counts, total, stop_words = Counter(words), len(words), STOP_WORDS[language]
    least = max(MIN_REPEATS, math.ceil(MIN_SHARE * total))
    stops, links, over_used = _kinds(counts, stop_words, least)
    marks = furniture(text, words, counts)
    spam = 0
    if marks is not None:
        spam = sum(marks)
        _, links, over_used = _kinds(Counter(word for word, mark in zip(words, marks, strict=True) if not mark), stop_words, least)
    spam += links + sum(over_used.values())
    most_used = min(over_used, key=lambda word: (-over_used[word], word)) if over_used else ""
    return Measures(total, spam / total, stops / total, most_used)


def _kinds(counts: Mapping[str, int], stop_words: frozenset[str], least: int) -> tuple[int, int, dict[str, int]]:
    """(stop words, links and the like, content words that stand at least `least` times), each with how often they stand."""
    stops = links = 0
    content: dict[str, int] = {}
    for word, count in counts.items():
        if word.isalnum():  # four of five words: no punctuation to strip, and no link
            bare = word
        else:
            bare = word.strip(_EDGES)
            if not bare.isalnum() and _LINK.search(bare):
                links += count
                continue
        if bare in stop_words:
            stops += count
        else:
            content[bare] = content.get(bare, 0) + count
    return stops, links, {word: count for word, count in content.items() if count >= least and sum(map(str.isalpha, word)) >= 3}
