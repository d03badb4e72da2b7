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
    """All measures of a text.

    Spam is the share of words that are links, addresses, mentions or hashtags, or stand in a line that stood before, or are occurrences of
    the most frequent content word (no stop word, at least three letters) if it stands MIN_REPEATS times or more. A word counts once.
    Words are looked at once for each different word, since most of a text's words are repetitions of a few.
    """
    text = without_marks(text).lower().replace("’", "'")
    counts = Counter(text.split())
    words = counts.total()
    if not words:
        return Measures(0, 0.0, 0.0, "")
    lines = Counter(line.strip() for line in text.splitlines())
    repeated = 0
    bare = {word: word.strip(_EDGES) for word in counts}
    stops = sum(count for word, count in counts.items() if bare[word] in STOP_WORDS[language])
    if any(count > 1 for line, count in lines.items() if line):
        counts = Counter(" ".join(lines).split())
        repeated = words - counts.total()
    content: Counter[str] = Counter()
    links = 0
    for word, count in counts.items():
        if any(mark in word for mark in _LINK_MARKS) and _LINK.search(word):
            links += count
        else:
            content[bare[word]] += count
    most_used, most = _most_used(content, STOP_WORDS[language])
    return Measures(words, (repeated + links + most) / words, stops / words, most_used)


def _most_used(counts: Counter[str], stop_words: frozenset[str]) -> tuple[str, int]:
    """The most frequent content word and its number, the alphabet deciding between equals; ("", 0) if none is frequent."""
    frequent = [(-count, word) for word, count in counts.items() if count >= MIN_REPEATS and word not in stop_words and sum(map(str.isalpha, word)) >= 3]
    if not frequent:
        return "", 0
    count, word = min(frequent)
    return word, -count
