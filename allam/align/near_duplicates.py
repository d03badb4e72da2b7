"""Near duplicates by the Jaccard similarity of word shingles, found exactly: no hash collisions, no randomness (paper §3.1).

Two sets whose similarity is at least t must share one of their first `|x| - ceil(t |x|) + 1` elements when all sets are sorted alike (prefix
filtering, Chaudhuri et al. 2006). With the rarest shingles first, few candidates are left to compare.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

SHINGLE_WORDS = 3
SIMILARITY = 0.9  # "near-exact": at 0.8 two short questions about one fact, worded differently, already count as the same


def shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """Runs of three words; a shorter text is one shingle."""
    if len(words) < SHINGLE_WORDS:
        return frozenset([tuple(words)])
    return frozenset(tuple(words[i:i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


def near_duplicates(texts: Sequence[Sequence[str]], similarity: float = SIMILARITY) -> dict[int, int]:
    """Maps the number of each text (a list of words) that nearly repeats an earlier kept one to that one's number."""
    sets = [shingles(words) for words in texts]
    frequency = Counter(shingle for found in sets for shingle in found)
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    repeats: dict[int, int] = {}
    for number, found in enumerate(sets):
        ordered = sorted(found, key=lambda s: (frequency[s], s))
        prefix = ordered[:len(ordered) - math.ceil(similarity * len(ordered)) + 1]
        candidates = sorted({other for shingle in prefix for other in index[shingle]})
        original = next((other for other in candidates if _jaccard(found, sets[other]) >= similarity), None)
        if original is None:
            for shingle in prefix:
                index[shingle].append(number)
        else:
            repeats[number] = original
    return repeats


def _jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)
