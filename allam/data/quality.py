"""What the filters measure of a text (paper §2.1): its words, its spam ratio, its stop-word ratio. Pure functions, no thresholds.

The paper names the ratios and gives neither definition nor threshold; these are ours, calibrated on real text in docs/data.md.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from allam.text.forms import without_marks
from allam.text.stop_words import STOP_WORDS

_LINK = re.compile(r"(?:https?:|ftp:|www\.)|^[@#]\w|^\S+@\S+\.\S+$|^(?:[\w-]+\.)+(?:com|net|org|info|biz|sa|ly|me|co|tv|gl|io)(?:/|$)", re.IGNORECASE)
_EDGES = "".join(chr(c) for c in range(33, 127) if not chr(c).isalnum() and chr(c) not in "#@") + "،؛؟«»“”‘’…–—•ـ"
_LINK_MARKS = ("#", "@", ".", ":")
MIN_REPEATS = 4  # a content word that stands less often is not over-used, however short the text


@dataclass(frozen=True, slots=True)
class Measures:
    """`words`: split at white space. The ratios are shares of those words, from 0 to 1; `most_used` is the most frequent content word."""

    words: int
    spam_ratio: float
    stop_word_ratio: float
    most_used: str


def count_words(text: str) -> int:
    """Words as the paper's minimum of 30 counts them: split at white space."""
    return len(text.split())


def measure(text: str, language: str) -> Measures:
    """All measures in one pass over the words.

    Spam is the share of words that are links, addresses, mentions or hashtags, or stand in a line that stood before, or are occurrences of
    the most frequent content word (no stop word, at least three letters) if it stands MIN_REPEATS times or more. A word counts once.
    """
    stop_words, counts = STOP_WORDS[language], Counter[str]()
    words = repeated = links = stops = 0
    seen_lines: set[str] = set()
    for line in without_marks(text).lower().replace("’", "'").splitlines():
        line_words = line.split()
        words += len(line_words)
        key = " ".join(line_words)
        if key in seen_lines:
            repeated += len(line_words)
            stops += sum(word.strip(_EDGES) in stop_words for word in line_words)
            continue
        if key:
            seen_lines.add(key)
        if any(mark in line for mark in _LINK_MARKS):
            line_links = sum(bool(_LINK.search(word)) for word in line_words if any(mark in word for mark in _LINK_MARKS))
            links += line_links
            line_words = [word for word in line_words if not _LINK.search(word)] if line_links else line_words
        counts.update([word.strip(_EDGES) for word in line_words])
    stops += sum(count for word, count in counts.items() if word in stop_words)
    most_used, most = _most_used(counts, stop_words)
    if not words:
        return Measures(0, 0.0, 0.0, "")
    return Measures(words, (repeated + links + most) / words, stops / words, most_used)


def _most_used(counts: Counter[str], stop_words: frozenset[str]) -> tuple[str, int]:
    for word, count in counts.most_common(len(stop_words)):
        if count < MIN_REPEATS:
            break
        if len(word) >= 3 and word not in stop_words and not word.isdecimal():
            return word, count
    return "", 0
