"""Training byte-level BPE onward: from a base's own merges, more of them, learnt on words that the base has already cut (paper §2.2).

The `tokenizers` library can train from nothing only, and a second tokenizer's merges can't be put behind a base's: they join pieces that the base's
merges never leave behind. Here the words start as the base cuts them, and each new merge joins the two neighbours that stand side by side most often.

Three things follow from the order (the base's merges, then the new ones as they were learnt), and the gate measures them on the result:

- A new piece is made by one merge only and no earlier merge takes it as a part, so that encoding does just what training did.
- Each new piece is what its own text is cut into: in the word that it was learnt from no merge ran across its ends, and alone it has no neighbours.
- A piece that is made of Arabic script (`allowed`) can't be met in other text, whose ids therefore stay.

    merges = train({"ĠØ§ÙĦØ±": 12, ...}, cut, known, wanted=16_000, allowed=is_arabic_bytes_of)
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

from allam.progress import Progress

Merge = tuple[str, str]
Pair = tuple[int, int]
LEAST = 2  # times that a pair must stand somewhere to become a piece


def train(words: Mapping[str, int], cut: Callable[[str], Sequence[str]], known: Collection[str], wanted: int, allowed: Callable[[str], bool]) -> list[Merge]:
    """At most `wanted` merges in the order in which they were learnt; fewer where no allowed pair stands `LEAST` times.

    `words` are counted words as a byte-level tokenizer spells them; `cut` gives the base's pieces of one. A merge whose piece is among `known` (the base's
    vocabulary) or isn't `allowed` is passed over: those two pieces stay apart. Equal counts go by the pieces' spelling, so the result depends on `words` alone.
    """
    learner = _Learner(known, allowed)
    with Progress("words", len(words), what="cutting words as the base does") as progress:
        for word, count in words.items():
            learner.add(cut(word), count)
            progress.update()
    merges: list[Merge] = []
    with Progress("merges", wanted, what="training onward") as progress:
        while len(merges) < wanted and (best := learner.best()) is not None:
            merges.append(learner.merge(best))
            progress.update()
    return merges


class _Learner:
    """The words as they are cut so far, how often each pair of neighbours stands in them, and in which words."""

    def __init__(self, known: Collection[str], allowed: Callable[[str], bool]) -> None:
        self._known, self._allowed = set(known), allowed
        self._pieces: list[str] = []
        self._numbers: dict[str, int] = {}
        self._words: list[list[int]] = []
        self._counts: list[int] = []
        self._pairs: defaultdict[Pair, int] = defaultdict(int)
        self._where: defaultdict[Pair, list[int]] = defaultdict(list)  # a word may stand twice, or have lost the pair since
        self._heap: list[tuple[int, str, str, Pair]] | None = None
        self._open: dict[Pair, bool] = {}

    def add(self, pieces: Sequence[str], count: int) -> None:
        """One more word. Words without an allowed pair are forgotten: what is allowed depends on the pair alone."""
        numbers = list(map(self._number, pieces))
        found = [pair for pair in pairwise(numbers) if self._may(pair)]
        if not found:
            return
        for pair in found:
            self._pairs[pair] += count
            self._where[pair].append(len(self._words))
        self._words.append(numbers)
        self._counts.append(count)

    def best(self) -> Pair | None:
        """The most frequent allowed pair."""
        if self._heap is None:
            self._heap = [self._entry(pair, count) for pair, count in self._pairs.items()]
            heapq.heapify(self._heap)
        while self._heap:
            count, left, right, pair = heapq.heappop(self._heap)
            now = self._pairs.get(pair, 0)
            if left + right in self._known:  # made of two other parts since
                self._open[pair] = False
            elif now == -count:
                return pair if now >= LEAST else None
            elif 0 < now < -count:  # rarer than when it was put here
                heapq.heappush(self._heap, self._entry(pair, now))
        return None

    def merge(self, pair: Pair) -> Merge:
        """Joins the pair wherever it stands, from left to right."""
        assert self._heap is not None
        left, right = self._pieces[pair[0]], self._pieces[pair[1]]
        made = self._number(left + right)
        self._known.add(left + right)
        changes: defaultdict[Pair, int] = defaultdict(int)
        for place in self._where.pop(pair):
            self._join(place, pair, made, changes)
        self._pairs.pop(pair, None)
        for changed, change in changes.items():
            if changed == pair or not change:
                continue
            self._pairs[changed] += change
            if change > 0:
                heapq.heappush(self._heap, self._entry(changed, self._pairs[changed]))
        return left, right

    def _join(self, place: int, pair: Pair, made: int, changes: defaultdict[Pair, int]) -> None:
        old, count, new = self._words[place], self._counts[place], list[int]()
        at, last = 0, len(old) - 1
        while at <= last:
            if at < last and old[at] == pair[0] and old[at + 1] == pair[1]:
                new.append(made)
                at += 2
            else:
                new.append(old[at])
                at += 1
        if len(new) == len(old):
            return
        self._words[place] = new
        for gone in pairwise(old):
            if self._may(gone):
                changes[gone] -= count
        for come in pairwise(new):
            if self._may(come):
                changes[come] += count
                if made in come:
                    self._where[come].append(place)

    def _number(self, piece: str) -> int:
        number = self._numbers.get(piece)
        if number is None:
            number = self._numbers[piece] = len(self._pieces)
            self._pieces.append(piece)
        return number

    def _may(self, pair: Pair) -> bool:
        may = self._open.get(pair)
        if may is None:
            piece = self._pieces[pair[0]] + self._pieces[pair[1]]
            may = self._open[pair] = piece not in self._known and self._allowed(piece)
        return may

    def _entry(self, pair: Pair, count: int) -> tuple[int, str, str, Pair]:
        return -count, self._pieces[pair[0]], self._pieces[pair[1]], pair
