"""The common end of dedup and translate: with all decisions made, each shard is written without what is dropped, in parallel tasks.

The decisions about a shard travel to its task through a small file in `work/`, so that their number costs no memory and no copying.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from allam.data.signatures import Rows
from allam.data.tables import (
    TableWriter,
    add_counts,
    count_rows,
    dropped_line,
    funnel,
    publish,
    read_notes,
    read_tables,
    text_bytes,
    write_dropped,
    write_notes,
    write_whole,
)
from allam.data.tasks import Meter, run_tasks

Shards = list[tuple[str, Path]]  # (source, file)


class Drops:
    """Which rows of which shard are dropped, why, and with what detail; the first reason given for a row stands."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.rows: list[dict[int, tuple[str, str]]] = [{} for _ in shards]
        self.starts = np.cumsum([0, *(count_rows(path) for _, path in shards)])

    def add(self, shard: int, row: int, reason: str, detail: str) -> None:
        """Drops one row."""
        self.rows[shard].setdefault(row, (reason, detail))

    def add_repeats(self, reason: str, repeats: list[Rows]) -> None:
        """Drops the rows that `find_repeats` found; the detail names the document that they repeat."""
        wanted = np.unique(np.concatenate([np.empty(0, np.int64), *(rows[rows >= 0] for rows in repeats)]))
        originals = dict(zip(wanted.tolist(), self._ids_at(wanted), strict=True))
        for shard, rows in enumerate(repeats):
            for row in np.flatnonzero(rows >= 0).tolist():
                self.add(shard, row, reason, f"as {originals[int(rows[row])]}")

    def _ids_at(self, wanted: Rows) -> list[str]:
        """The ids of the documents with these numbers over all shards (ascending)."""
        ids: list[str] = []
        for i, (_, path) in enumerate(self.shards):
            here = wanted[(wanted >= self.starts[i]) & (wanted < self.starts[i + 1])] - self.starts[i]
            row = 0
            for table in read_tables(path, ["id"]) if len(here) else ():
                ids += table["id"].take(pa.array(here[(here >= row) & (here < row + table.num_rows)] - row)).to_pylist()
                row += table.num_rows
        return ids

    def masks(self) -> list[npt.NDArray[np.bool_]]:
        """For each shard, which rows are dropped so far."""
        found = [np.zeros(end - start, dtype=bool) for start, end in zip(self.starts, self.starts[1:], strict=False)]
        for mask, rows in zip(found, self.rows, strict=True):
            mask[list(rows)] = True
        return found


def write_kept(out: Path, shards: Shards, sources: tuple[str, ...], drops: Drops) -> dict[str, Any]:
    """Writes the stage's outputs; returns its metrics."""
    work = out / "work"
    for i, decided in enumerate(drops.rows):
        write_notes(work / "drops" / f"{i:05d}.json", [[row, *decided[row]] for row in sorted(decided)])
    run_tasks(work, "write", partial(_write_shard, shards, work), len(shards), unit="documents", total=int(drops.starts[-1]),
              size=sum(path.stat().st_size for _, path in shards))
    rows: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for source in sources:
        own = [work / "shards" / source / path.name for name, path in shards if name == source]
        notes = [read_notes(made.with_suffix(".json")) for made in own]
        dropped: dict[str, int] = {}
        for made, note in zip(own, notes, strict=True):
            publish(made, out / "documents" / source / made.name)
            add_counts(dropped, note["dropped"])
        write_dropped(out / "dropped" / f"{source}.jsonl.zst", [made.with_suffix(".dropped.jsonl") for made in own])
        leaving = sum(note["out"] for note in notes)
        rows[source] = funnel(sum(note["in"] for note in notes), leaving, dropped, {})
        sizes[source] = {"documents": leaving, "bytes": sum(note["bytes"] for note in notes)}
    return {"funnel": rows, "sources": sizes}


def _write_shard(shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Leaves the shard's kept documents, the dropped ones and the counts."""
    source, path = shards[task]
    made, drops = work / "shards" / source / path.name, {row: (reason, detail) for row, reason, detail in read_notes(work / "drops" / f"{task:05d}.json")}
    start, size, dropped, reasons = 0, 0, [], {}  # type: ignore[var-annotated]
    with TableWriter(made) as writer:
        for table in read_tables(path):
            keep = np.ones(table.num_rows, dtype=bool)
            for row in (row for row in range(start, start + table.num_rows) if row in drops):
                reason, detail = drops[row]
                keep[row - start] = False
                dropped.append(dropped_line(table.slice(row - start, 1).to_pylist()[0], reason, detail))
                add_counts(reasons, {reason: 1})
            start += table.num_rows
            kept = table.filter(pa.array(keep))
            writer.write(kept)
            size += text_bytes(kept)
            meter.add(table.num_rows)
    write_whole(made.with_suffix(".dropped.jsonl"), b"".join(dropped))
    write_notes(made.with_suffix(".json"), {"in": start, "out": writer.rows, "bytes": size, "dropped": reasons})
