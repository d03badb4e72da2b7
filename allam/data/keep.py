"""The common end of dedup and translate: with all decisions made, each shard is written without what is dropped, in parallel tasks.

The decisions about a shard travel to its task through files in `work/`, so that their number costs no memory and no copying.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from allam.data.drops import Drops, Shards, drops_folder, read_drops
from allam.data.tables import (
    TableWriter,
    add_counts,
    count_rows,
    dropped_line,
    dropped_path,
    funnel,
    publish,
    read_notes,
    read_tables,
    text_bytes,
    write_dropped,
    write_notes,
)
from allam.data.tasks import Meter, run_tasks


def write_kept(out: Path, shards: Shards, sources: tuple[str, ...], drops: Drops) -> dict[str, Any]:
    """Writes the stage's outputs; returns its metrics."""
    work = out / "work"
    drops.flush()
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
            if note["dropped"]:
                publish(dropped_path(made), dropped_path(out / "dropped" / source / made.name))
            add_counts(dropped, note["dropped"])
        leaving = sum(note["out"] for note in notes)
        rows[source] = funnel(sum(note["in"] for note in notes), leaving, dropped, {})
        sizes[source] = {"documents": leaving, "bytes": sum(note["bytes"] for note in notes)}
    return {"funnel": rows, "sources": sizes}


def _write_shard(shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Leaves the shard's kept documents, the dropped ones and the counts. A shard that loses nothing is linked: written again it would be the same."""
    source, path = shards[task]
    made, drops = work / "shards" / source / path.name, read_drops(work, task)
    if not drops_folder(work, task).exists():
        publish(path, made)
        count, size = count_rows(path), sum(text_bytes(table) for table in read_tables(path, ["text"]))
        write_notes(made.with_suffix(".json"), {"in": count, "out": count, "bytes": size, "dropped": {}})
        meter.add(count)
        return
    start, size, dropped, reasons = 0, 0, [], {}  # type: ignore[var-annotated]
    drop = next(drops, None)
    with TableWriter(made) as writer:
        for table in read_tables(path):
            keep = np.ones(table.num_rows, dtype=bool)
            while drop is not None and drop[0] < start + table.num_rows:
                row, reason, detail = drop
                keep[row - start] = False
                dropped.append(dropped_line(table.slice(row - start, 1).to_pylist()[0], reason, detail))
                add_counts(reasons, {reason: 1})
                drop = next(drops, None)
            start += table.num_rows
            kept = table.filter(pa.array(keep))
            writer.write(kept)
            size += text_bytes(kept)
            meter.add(table.num_rows)
    write_dropped(dropped_path(made), dropped)
    write_notes(made.with_suffix(".json"), {"in": start, "out": writer.rows, "bytes": size, "dropped": reasons})
