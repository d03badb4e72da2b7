"""What the filter stage counts of a shard's documents, and the sums over a source's shards: funnel, sizes, distributions."""

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


class Tally:
    """The counts of one shard."""

    def __init__(self) -> None:
        self.entering = self.leaving = self.bytes = 0
        self.dropped: dict[str, int] = {}
        self._values: dict[str, list[float]] = {name: [] for name in EDGES}

    def add(self, reason: str | None, measured: Mapping[str, float]) -> None:
        """Counts one document, with the reason why it is dropped, if it is."""
        self.entering += 1
        for name, value in measured.items():
            self._values[name].append(value)
        if reason is not None:
            add_counts(self.dropped, {reason: 1})

    def keep(self, table: pa.Table) -> None:
        """Counts documents that leave the filter."""
        self.leaving += table.num_rows
        self.bytes += text_bytes(table)

    def notes(self) -> dict[str, Any]:
        """What a task notes for its stage, as JSON."""
        return {"in": self.entering, "out": self.leaving, "bytes": self.bytes, "dropped": self.dropped,
                "histograms": {name: _counts(name, found) for name, found in self._values.items()}}


def _counts(name: str, values: list[float]) -> list[int]:
    """Documents a bin; values beyond the last edge count in the last bin."""
    edges = np.array(EDGES[name], dtype=np.float32)  # a score of 0.95 in fastText's precision belongs to the bin that begins at 0.95
    return np.histogram(np.minimum(np.array(values, dtype=np.float32), edges[-1]), edges)[0].tolist()


def sum_up(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all shards of a source: its row of the funnel, its size, and {measure: {"edges", "counts"}} of the documents that were measured."""
    dropped: dict[str, int] = {}
    for note in notes:
        add_counts(dropped, note["dropped"])
    leaving = sum(note["out"] for note in notes)
    return {
        "funnel": funnel(sum(note["in"] for note in notes), leaving, dropped, {}),
        "size": {"documents": leaving, "bytes": sum(note["bytes"] for note in notes)},
        "statistics": {name: {"edges": edges, "counts": np.sum([note["histograms"][name] for note in notes], axis=0).tolist()}
                       for name, edges in EDGES.items()},
    }
