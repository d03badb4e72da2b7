"""MinHash: a text as 128 numbers, of which two texts share about the share that is the Jaccard similarity of their word runs (paper §2.1).

A run is `shingle_words` words in a row, without case, signs, marks and the variants of Arabic letters (`comparison_words`); a shorter text is one
run. Estimated from 128 numbers, a similarity of 0.8 has a standard error of 0.035.

To find pairs without comparing all, the numbers are cut into bands: two texts are compared where one band is the same (locality-sensitive hashing). The
bands are as long as they may be for a pair of the wanted similarity to share one with a probability of 0.99 or more: at 0.8 that is 21 bands of 6, which
such a pair shares with 0.998, one of similarity 0.5 with 0.28, one of 0.3 with 0.015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

HASHES = 128
SEED = 20240722
RUNS_AT_ONCE = 1024  # times 128 numbers of 8 bytes: what stays in a core's cache
MIN_PROBABILITY = 0.99

Numbers = npt.NDArray[np.uint32]
Wide = npt.NDArray[np.uint64]
_FACTORS: Wide = np.random.Generator(np.random.PCG64(SEED)).integers(0, 2**63, HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
_STEP, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def minhash(words: Sequence[str], shingle_words: int) -> Numbers:
    """Shape (128,): of each of 128 hash functions the least value over the text's runs of words. `words` must not be empty."""
    runs = _runs(words, shingle_words)
    least = np.full(HASHES, 2**32 - 1, np.uint64)
    for first in range(0, len(runs), RUNS_AT_ONCE):
        hashed = _FACTORS[:, None] * runs[None, first: first + RUNS_AT_ONCE]
        np.minimum(least, (hashed >> np.uint64(32)).min(axis=1), out=least)
    return least.astype(np.uint32)


def _runs(words: Sequence[str], shingle_words: int) -> Wide:
    """A hash of each run of words."""
    hashes = np.fromiter((xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))
    count, runs = max(1, len(words) - shingle_words + 1), np.zeros(1, np.uint64)
    for i in range(min(shingle_words, len(words))):
        runs = _mixed(runs * _STEP + hashes[i: i + count])
    return runs


def _mixed(values: Wide) -> Wide:
    values = (values ^ (values >> np.uint64(30))) * _MIX
    return values ^ (values >> np.uint64(31))


def bands(similarity: float) -> tuple[int, int]:
    """(bands, numbers of each) for finding pairs of this similarity."""
    for length in range(HASHES, 1, -1):
        if 1 - (1 - similarity**length) ** (HASHES // length) >= MIN_PROBABILITY:
            return HASHES // length, length
    return HASHES, 1


def band_hashes(numbers: Numbers, similarity: float) -> Wide:
    """Shape (rows, 128) to (rows, bands): a hash of each band, never 0."""
    count, length = bands(similarity)
    cut = numbers[:, : count * length].reshape(-1, count, length).astype(np.uint64)
    hashes = np.zeros(cut.shape[:2], np.uint64)
    for i in range(length):
        hashes = _mixed(hashes * _STEP + cut[:, :, i])
    return np.maximum(hashes, np.uint64(1))
