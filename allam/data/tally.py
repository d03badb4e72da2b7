"""What the filter stage counts of a shard's documents, and the sums over a source's shards: funnel, sizes, distributions, and what each
filter costs, also among short texts: of 40 words or 4, a user must see what language identification takes before deciding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from allam.data.tables import add_counts, funnel, text_bytes

RATIO_EDGES = [round(i * 0.05, 2) for i in range(21)]
EDGES: dict[str, list[float]] = {
    "language_score": [*(i / 20 for i in range(19)), 0.95, 0.96, 0.97, 0.98, 0.99, 1.0],
    "words": [0, 1, 3, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000, 100_000],
    "spam_ratio": RATIO_EDGES,
    "stop_word_ratio": RATIO_EDGES,
}
LENGTHS = {"under 5 words": 0, "5 to 29 words": 5, "30 words or more": 30}  # by the fewest words


class Tally:
    """The counts of one shard."""

    def __init__(self) -> None:
        self.entering = self.leaving = self.bytes = 0
        self.dropped: dict[str, int] = {}
        self.replaced: dict[str, int] = {}
        self.by_length: dict[str, dict[str, int]] = {length: {"in": 0, "identified": 0} for length in LENGTHS}
        self._values: dict[str, list[float]] = {name: [] for name in EDGES}

    def add(self, reason: str | None, measured: Mapping[str, float]) -> None:
        """Counts one document, with the reason why it is dropped, if it is."""
        self.entering += 1
        for name, value in measured.items():
            self._values[name].append(value)
        found = {"in": 1, "identified": int("language_score" in measured)} | ({} if reason is None else {reason: 1})
        length = next(length for length, fewest in reversed(LENGTHS.items()) if measured["words"] >= fewest)
        add_counts(self.by_length[length], found)
        if reason is not None:
            add_counts(self.dropped, {reason: 1})

    def replace(self, replaced: Mapping[str, int]) -> None:
        """Counts personal data that was replaced in one document."""
        if replaced:
            add_counts(self.replaced, {**replaced, "documents": 1})

    def keep(self, table: pa.Table) -> None:
        """Counts documents that leave the filter."""
        self.leaving += table.num_rows
        self.bytes += text_bytes(table)

    def notes(self) -> dict[str, Any]:
        """What a task notes for its stage, as JSON."""
        return {"in": self.entering, "out": self.leaving, "bytes": self.bytes, "dropped": self.dropped,
                "anonymised": self.replaced, "by_length": self.by_length,
                "histograms": {name: _counts(name, found) for name, found in self._values.items()}}


def _counts(name: str, values: list[float]) -> list[int]:
    """Documents a bin; values beyond the last edge count in the last bin."""
    edges = np.array(EDGES[name], dtype=np.float32)  # a score of 0.95 in fastText's precision belongs to the bin that begins at 0.95
    return np.histogram(np.minimum(np.array(values, dtype=np.float32), edges[-1]), edges)[0].tolist()


def sum_up(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all shards of a source: its row of the funnel, its size, {measure: {"edges", "counts"}} of the documents that were measured, the personal
    data replaced by kind, and for each class of length the documents that came in, those whose language was identified, and those that each filter dropped."""
    dropped, anonymised = dict[str, int](), dict[str, int]()
    by_length: dict[str, dict[str, int]] = {length: {} for length in LENGTHS}
    for note in notes:
        add_counts(dropped, note["dropped"])
        add_counts(anonymised, note["anonymised"])
        for length, counts in note["by_length"].items():
            add_counts(by_length[length], counts)
    leaving = sum(note["out"] for note in notes)
    return {
        "funnel": funnel(sum(note["in"] for note in notes), leaving, dropped, {}),
        "size": {"documents": leaving, "bytes": sum(note["bytes"] for note in notes)},
        "anonymised": anonymised,
        "by_length": by_length,
        "statistics": {name: {"edges": edges, "counts": np.sum([note["histograms"][name] for note in notes], axis=0).tolist()}
                       for name, edges in EDGES.items()},
    }
