"""Raw files to the one document schema (paper §2.1): `documents/<source>/<shard>.parquet`, and `set_aside.jsonl` for what could not be read.

    allam stage ingest --recipe demo

Each part of a source (a file, mostly) is read once, in parallel, straight to its own shards; what an earlier artifact made of an unchanged file
is linked instead (allam/data/reuse.py). Then, with all parts there, documents whose id was met before are set aside: only shards that hold such
are written again, and `as_read/` keeps them whole for the next run. Neither the number of workers nor a restart changes a byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from allam import progress
from allam.data.config import IngestConfig
from allam.data.parts import SET_ASIDE, TAKEN_DOWN, Part, make_part, part_folder, part_ids, part_shard, parts_of, set_aside_line
from allam.data.readers import LEFT_OUT, SetAside
from allam.data.readers.records import NO_COLUMN
from allam.data.reuse import MadePart, find_earlier, write_parts
from allam.data.signatures import Repeats, Rows, save_array
from allam.data.tables import (
    TableWriter,
    add_counts,
    count_rows,
    funnel,
    publish,
    read_notes,
    read_tables,
    text_bytes,
    unique_temporary,
    write_notes,
    write_whole,
)
from allam.data.tasks import Meter, run_tasks
from allam.documents import shard_path
from allam.errors import UserError, did_you_mean


@dataclass
class _Read:
    """A part, what its task noted, the number of its first shard over all parts, and how many of its rows repeat an id."""

    part: Part
    key: str
    notes: dict[str, Any]
    first: int
    repeats: int

    @property
    def documents(self) -> int:
        """Documents of the part, those with repeated ids among them."""
        return sum(shard["documents"] for shard in self.notes["shards"])

    def repeats_by_shard(self, repeats: Repeats) -> Iterator[tuple[int, Rows]]:
        """Each shard that has repeats, and their rows in it, ascending."""
        return ((shard, repeats.of(self.first + shard)[0]) for shard in range(len(self.notes["shards"])) if repeats.count(self.first + shard))


def run(config: IngestConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads all sources; see the module's docstring. Raises `UserError` where too much is broken, and for an empty source."""
    order = config.order or tuple(config.sources)
    parts = [part for source in order for part in parts_of(source, config.sources[source])]
    reads, repeats = _read_all(config, parts, inputs["root"], out)
    rewritten = _take_out_repeats(reads, repeats, out / "work")
    rows = {source: _funnel_row([read for read in reads if read.part.source == source]) for source in order}
    lines = _write_set_aside(out, reads, rewritten)
    for source, row in rows.items():
        _refuse_damaged_or_empty(source, row, config, out)
    sizes = _publish(order, reads, lines, rewritten, out)
    reused = sum(read.notes["files"] for read in reads if read.notes["reused"])
    metrics = {"funnel": rows, "sources": sizes, "files": {"read": sum(read.notes["files"] for read in reads) - reused, "reused": reused}}
    return metrics | ({"take_down": _taken_down(config.take_down, reads)} if config.take_down else {})


def _taken_down(ids: tuple[str, ...], reads: list[_Read]) -> dict[str, int]:
    """How many of the ids named a document, or the original of one, and how many didn't, which whoever watches is told."""
    unknown = sorted(set(ids) - {name for read in reads for name in read.notes["taken_down"]})
    if unknown:
        progress.note(f"{len(unknown)} of the {len(ids)} ids in data.take_down name no document of the sources, such as {unknown[0]!r}: is it misspelt?")
    return {"ids": len(ids), "unknown": len(unknown)}


def _read_all(config: IngestConfig, parts: list[Part], root: Path, out: Path) -> tuple[list[_Read], Repeats]:
    work, size = out / "work", sum(part.size for part in parts)
    keys = [part.key(config, out) for part in parts]
    earlier = find_earlier(out, keys, also=[SET_ASIDE])
    task = partial(make_part, config, parts, [earlier.get(key) for key in keys], root, work)
    run_tasks(work, "read", task, len(parts), unit="bytes", total=size, size=size)
    notes = [read_notes(part_folder(work, i) / "notes.json") for i in range(len(parts))]
    repeats = Repeats([part_ids(work, i, shard) for i, note in enumerate(notes) for shard in range(len(note["shards"]))], work / "repeats")
    reads, first = list[_Read](), 0
    for part, key, note in zip(parts, keys, notes, strict=True):
        end = first + len(note["shards"])
        reads.append(_Read(part, key, note, first, sum(map(repeats.count, range(first, end)))))
        first = end
    return reads, repeats


# --- repeated ids -----------------------------------------------------------------------------------------------------------------

def _take_out_repeats(reads: list[_Read], repeats: Repeats, work: Path) -> list[tuple[int, int]]:
    """Writes the shards that hold repeated ids again, without those documents; returns these shards as (part, shard)."""
    rewritten, size = list[tuple[int, int]](), {"documents": 0, "bytes": 0}
    for i, read in enumerate(reads):
        for shard, rows in read.repeats_by_shard(repeats):
            save_array(_kept(work, i, shard).with_suffix(".npy"), rows)
            rewritten.append((i, shard))
            add_counts(size, read.notes["shards"][shard])
    run_tasks(work, "ids", partial(_rewrite, [(reads[i].part.source, i, shard) for i, shard in rewritten], work), len(rewritten),
              unit="documents", total=size["documents"], size=size["bytes"])
    return rewritten


def _kept(work: Path, part: int, shard: int) -> Path:
    """A shard of a part without repeated ids; beside it .npy says which rows those are, .json its size, .jsonl what was set aside."""
    return work / "kept" / f"{part:05d}" / f"{shard:05d}.parquet"


def _rewrite(shards: list[tuple[str, int, int]], work: Path, task: int, meter: Meter) -> None:
    source, part, shard = shards[task]
    path, row, size, lines = _kept(work, part, shard), 0, 0, list[bytes]()
    keep = np.ones(count_rows(part_shard(work, part, shard)), dtype=bool)
    keep[np.load(path.with_suffix(".npy"))] = False
    with TableWriter(path) as writer:
        for table in read_tables(part_shard(work, part, shard)):
            mask = keep[row: row + table.num_rows]
            for record in table.select(["id", "text", "file", "line"]).filter(pa.array(~mask)).to_pylist():
                lines.append(set_aside_line(source, record["file"], SetAside(record["line"], "duplicate_id", f"{record['id']}: {record['text'][:150]}")))
            kept = table.filter(pa.array(mask))
            writer.write(kept)
            row, size = row + table.num_rows, size + text_bytes(kept)
            meter.add(table.num_rows)
    write_whole(path.with_suffix(".jsonl"), b"".join(lines))
    write_notes(path.with_suffix(".json"), {"documents": writer.rows, "bytes": size})


# --- the artifact -----------------------------------------------------------------------------------------------------------------

def _funnel_row(reads: list[_Read]) -> dict[str, Any]:
    entering, leaving, set_aside = 0, 0, dict[str, int]()
    for read in reads:
        duplicates = read.repeats
        entering += read.notes["records"] - read.notes["skipped"]
        leaving += read.documents - duplicates
        add_counts(set_aside, read.notes["set_aside"] | ({"duplicate_id": duplicates} if duplicates else {}))
    return funnel(entering, leaving, {}, set_aside)


def _write_set_aside(out: Path, reads: list[_Read], rewritten: list[tuple[int, int]]) -> list[list[int]]:
    """All records that were set aside: by part, what could not be read before what repeats an id. Returns where each part's own lines lie."""
    final, work, places = out / SET_ASIDE, out / "work", list[list[int]]()
    repeats: dict[int, list[Path]] = {}
    for i, shard in rewritten:
        repeats.setdefault(i, []).append(_kept(work, i, shard).with_suffix(".jsonl"))
    temporary = unique_temporary(final)
    with open(temporary, "wb") as file:
        for i in range(len(reads)):
            first = file.tell()
            with open(part_folder(work, i) / SET_ASIDE, "rb") as lines:
                shutil.copyfileobj(lines, file)
            places.append([first, file.tell()])
            for path in repeats.get(i, []):
                file.write(path.read_bytes())
    temporary.replace(final)
    return places


def _refuse_damaged_or_empty(source: str, row: dict[str, Any], config: IngestConfig, out: Path) -> None:
    if not row["out"] and NO_COLUMN in row["set_aside"]:
        with open(out / SET_ASIDE, "rb") as file:
            first = next(line for line in map(json.loads, file) if line["source"] == source and line["reason"] == NO_COLUMN)
        field = config.sources[source].text_field
        raise UserError(f"data.sources.{source}.text_field: {first['file']} has no column {field!r}", did_you_mean(field, first["excerpt"].split(", ")))
    broken = sum(count for reason, count in row["set_aside"].items() if reason not in LEFT_OUT and reason != TAKEN_DOWN)
    if row["in"] and broken / row["in"] > config.max_set_aside_share:
        reasons = ", ".join(f"{count} {reason}" for reason, count in row["set_aside"].items())
        raise UserError(
            f"data.sources.{source}: {broken} of {row['in']} records are broken ({reasons}), more than the share {config.max_set_aside_share} that is allowed",
            f"{out / SET_ASIDE} lists them with file and line: mend the source, or raise data.ingest.max_set_aside_share")
    if not row["out"]:
        paths = ", ".join(file.path for file in config.sources[source].files) or config.sources[source].path
        raise UserError(f"data.sources.{source}.path: there is no document in {paths}", "give a path that holds documents, or take out the source")


def _publish(order: tuple[str, ...], reads: list[_Read], lines: list[list[int]], rewritten: list[tuple[int, int]], out: Path) -> dict[str, dict[str, int]]:
    """Links all shards into the artifact, numbered through each source, and says in parts.json whose they are; returns the sources' sizes."""
    sizes: dict[str, dict[str, int]] = {source: {"documents": 0, "bytes": 0} for source in order}
    written_twice = set(rewritten)
    numbers, work, parts = dict.fromkeys(order, 0), out / "work", dict[str, MadePart]()
    for i, read in enumerate(reads):
        source, files = read.part.source, list[str]()
        for shard, size in enumerate(read.notes["shards"]):
            name, made = shard_path(Path("documents"), source, numbers[source]), part_shard(work, i, shard)
            numbers[source] += 1
            if (i, shard) in written_twice:
                whole, kept = shard_path(Path("as_read"), source, numbers[source] - 1), _kept(work, i, shard)
                publish(made, out / whole)
                publish(kept, out / name)
                add_counts(sizes[source], read_notes(kept.with_suffix(".json")))
                files.append(whole.as_posix())
            else:
                publish(made, out / name)
                add_counts(sizes[source], size)
                files.append(name.as_posix())
        notes = {name: value for name, value in read.notes.items() if name != "reused"}
        parts[read.key] = MadePart(tuple(files), {**notes, "set_aside_lines": lines[i]})
    write_parts(out, parts)
    return sizes
