"""Finds the items of benchmarks in text by runs of words: exact, in memory that follows the benchmarks and not the corpus.

An item is looked for by each run of 13 words of its question, as GPT-3 did (Brown et al. 2020, appendix C) and most have done since, or by the whole
question where that is shorter. A question of fewer than 8 words, GPT-3's lower bound, is taken together with its right answer; what is shorter
than that even so can't be told from plain speech and is left out, by name. Words are letters and digits without case, in the comparison form with
all variants of Arabic letters folded.

All runs begin with at least 8 words, so a text is first searched for these heads: a rolling hash over the numbers of its words, looked up in a bit
table. Only what passes is compared, word by word. Words that no benchmark has end a run, which leaves few places to hash at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.items import Item
from allam.text.forms import comparison_words

Numbers = npt.NDArray[np.int32]  # words by their number in the benchmarks' vocabulary; 0 is any other word
_BASE = np.uint64(0x9E3779B97F4A7C15)
CHARACTERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Hit:
    """A run of words of an item that stands in a text."""

    text: int
    benchmark: str
    item: str
    words: str


class ItemIndex:
    """The runs of words of all items. `untold` counts the items of each benchmark that are too short to be looked for."""

    def __init__(self, items: Iterable[tuple[str, Item]], ngram_words: int, min_words: int) -> None:
        self.ngram_words, self.min_words = ngram_words, min_words
        self.names: list[tuple[str, str]] = []
        self.looked_for: dict[str, int] = {}
        self.untold: dict[str, int] = {}
        self._vocabulary: dict[str, int] = {}
        pieces: list[Numbers] = []
        for benchmark, item in items:
            words = comparison_words(item.question)
            if len(words) < min_words:
                words += comparison_words(item.answer_text)
            counts = self.untold if len(words) < min_words else self.looked_for
            counts[benchmark] = counts.get(benchmark, 0) + 1
            if len(words) >= min_words:
                self.names.append((benchmark, item.id))
                pieces.append(np.array([self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in words], np.int32))
        self._words: Numbers = np.concatenate([np.empty(0, np.int32), *pieces])
        self._begins = np.cumsum([0, *map(len, pieces)])
        self._spelt = ["", *self._vocabulary]
        self._add_runs()

    def _add_runs(self) -> None:
        """Sorts the runs by the hash of their head; several may share one."""
        lengths = np.diff(self._begins)
        runs = [np.arange(begin, begin + max(1, length - self.ngram_words + 1)) for begin, length in zip(self._begins.tolist(), lengths.tolist(), strict=False)]
        starts = np.concatenate([np.empty(0, np.int64), *runs])
        owners = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
        heads = self._hash(self._words, starts)
        order = np.argsort(heads, kind="stable")
        self._heads, self._starts, self._owners = heads[order], starts[order], owners[order]
        self._run_lengths = np.minimum(lengths, self.ngram_words)[self._owners]
        self._bits = np.uint64(64 - max(16, len(heads).bit_length() + 4))
        self._table = np.zeros(1 << (64 - int(self._bits)), dtype=bool)
        self._table[self._heads >> self._bits] = True

    def _hash(self, words: Numbers, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Of the head that begins at each start."""
        hashes = np.zeros(len(starts), np.uint64)
        for i in range(self.min_words):
            hashes = (hashes + words[starts + i].astype(np.uint64)) * _BASE
            hashes ^= hashes >> np.uint64(29)
        return hashes * _BASE

    def numbers(self, text: str) -> Numbers:
        """The words of a text by number. A very long text is cut at white space, so that its words don't all stand in memory as text."""
        pieces, begin = [], 0
        while begin < len(text):
            end = len(text) if len(text) - begin <= CHARACTERS_AT_ONCE else text.find(" ", begin + CHARACTERS_AT_ONCE)
            piece = text[begin: end if end >= 0 else len(text)]
            pieces.append(np.fromiter(map(self._vocabulary.get, comparison_words(piece), repeat(0)), np.int32))
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int32), *pieces])

    def search(self, texts: list[str]) -> Iterator[Hit]:
        """For each text and each item that stands in it, the first run that says so, in the order in which they stand."""
        if not self.names:
            return
        pieces: list[Any] = [piece for text in texts for piece in (self.numbers(text), np.zeros(1, np.int32))]  # a 0 ends each text
        words = np.concatenate([np.zeros(1, np.int32), *pieces, np.zeros(self.min_words, np.int32)])
        ends = np.cumsum([1, *(len(piece) for piece in pieces)])[2::2]
        seen: set[tuple[int, int]] = set()
        places, first_runs = self._places(words)
        for place, text, run in zip(places.tolist(), np.searchsorted(ends, places, side="right").tolist(), first_runs.tolist(), strict=True):
            for owner, start, length in self._runs_at(words, place, run):
                if (text, owner) not in seen:
                    seen.add((text, owner))
                    yield Hit(text, *self.names[owner], " ".join(self._spelt[number] for number in self._words[start: start + length]))

    def _places(self, words: Numbers) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where runs may begin, and the first run with the head that stands there."""
        unknown = np.flatnonzero(words == 0)
        gaps = np.diff(unknown) - self.min_words  # heads that fit between two unknown words
        long = np.flatnonzero(gaps > 0)
        counts = gaps[long]
        starts = np.repeat(unknown[long] + 1 - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        hashes = self._hash(words, starts)
        passing = self._table[hashes >> self._bits]
        starts, hashes = starts[passing], hashes[passing]
        at = np.minimum(np.searchsorted(self._heads, hashes), len(self._heads) - 1)
        found = self._heads[at] == hashes
        return starts[found], at[found]

    def _runs_at(self, words: Numbers, place: int, run: int) -> Iterator[tuple[int, int, int]]:
        """(item, start, length) of the runs that stand at a place of a text; `run` is the first with the head that stands there."""
        head = self._heads[run]
        while run < len(self._heads) and self._heads[run] == head:
            start, length = int(self._starts[run]), int(self._run_lengths[run])
            if np.array_equal(words[place: place + length], self._words[start: start + length]):
                yield int(self._owners[run]), start, length
            run += 1
