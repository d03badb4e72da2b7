"""Raw files to the one document schema (paper §2.1): `documents/<source>/<shard>.parquet`, and `set_aside.jsonl` for what could not be read.

    allam stage ingest --recipe demo

First each file is read into a part below `work/`, in parallel. Then, with all counts known, ids that were met before are set aside and
document i of a source's n goes to shard i * shards // n: order is kept, and neither the number of workers nor a restart changes a byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from allam.data.config import IngestConfig, SourceConfig
from allam.data.readers import Raw, SetAside, file_format, read_records
from allam.data.signatures import Rows, find_repeats, save_array, signatures
from allam.data.tables import BYTES_PER_GROUP, TableWriter, add_counts, funnel, publish, read_notes, read_tables, text_bytes, unique_temporary, write_notes
from allam.data.tasks import Meter, run_tasks
from allam.documents import ROWS_PER_GROUP, SCHEMA, shard_path
from allam.errors import StageFailed, UserError
from allam.files import check_file
from allam.section import FileRef

_FIELDS = ("id", "text", "url", "title", "date", "translation_of")
PART = pa.schema([*(pa.field(name, pa.string()) for name in _FIELDS), ("record", pa.int64()), ("file", pa.int64()), ("line", pa.int64())])


@dataclass(frozen=True)
class _Part:
    """What one task reads: a file of a source, or all of them where the source is read from or to a fixed number."""

    source: str
    config: SourceConfig
    files: tuple[FileRef, ...]


def run(config: IngestConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads all sources; see the module's docstring. Raises `StageFailed` where too much is broken, `UserError` for an empty source."""
    work, order = out / "work", config.order or tuple(config.sources)
    parts = [part for source in order for part in _parts(source, config.sources[source])]
    read = partial(_read_part, parts, config.max_document_bytes, inputs["root"], work)
    size = sum(file.size for part in parts for file in part.files)
    run_tasks(work, "read", read, len(parts), unit="bytes", total=size, size=size)
    notes = [read_notes(_part_path(work, i, "json")) for i in range(len(parts))]

    starts = _first_records(parts, notes)
    documents = sum(note["documents"] for note in notes)
    run_tasks(work, "ids", partial(_sign_part, parts, starts, work), len(parts), unit="documents", total=documents, size=0)
    repeats = find_repeats([_part_path(work, i, "npy") for i in range(len(parts))])

    for i, repeated in enumerate(repeats):
        save_array(_part_path(work, i, "repeats.npy"), repeated)
    rows = {source: _funnel_row(source, parts, notes, repeats) for source in order}
    _write_set_aside(out / "set_aside.jsonl", work, parts, repeats)
    for source, row in rows.items():
        _refuse_damaged_or_empty(source, row, config, out)
    shards = [(source, shard) for source in order for shard in range(config.shards)]
    run_tasks(work, "write", partial(_write_shard, config, parts, starts, shards, rows, work), len(shards),
              unit="documents", total=sum(row["out"] for row in rows.values()), size=size)
    sizes: dict[str, dict[str, int]] = {source: {} for source in order}
    for source, shard in shards:
        made = shard_path(work / "shards", source, shard)
        publish(made, shard_path(out / "documents", source, shard))
        add_counts(sizes[source], read_notes(made.with_suffix(".json")))
    return {"funnel": rows, "sources": sizes}


# --- first: files to parts ------------------------------------------------------------------------------------------------------

def _parts(source: str, config: SourceConfig) -> list[_Part]:
    for file in config.files:
        file_format(source, config, file.path)  # refuses unknown endings before anything is read
    if config.max_documents is not None or config.skip_records:
        return [_Part(source, config, config.files)]
    return [_Part(source, config, (file,)) for file in config.files]


def _part_path(work: Path, part: int, ending: str) -> Path:
    return work / "parts" / f"{part:05d}.{ending}"


def _read_part(parts: list[_Part], max_bytes: int, root: Path, work: Path, task: int, meter: Meter) -> None:
    """Reads one part's files; leaves <task>.parquet, <task>.jsonl (set aside) and <task>.json (counts)."""
    part = parts[task]
    records, documents, set_aside = 0, 0, {}  # type: ignore[var-annotated]
    aside_path = _part_path(work, task, "jsonl")
    aside_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(aside_path)
    with TableWriter(_part_path(work, task, "parquet"), PART, compression="lz4") as writer, open(temporary, "wb") as aside:
        rows = _Rows(writer)
        for file, record in _records(part, root, max_bytes, meter):
            if records < part.config.skip_records:
                records += record.records if isinstance(record, SetAside) else 1
                continue
            if isinstance(record, SetAside):
                add_counts(set_aside, {record.reason: record.records})
                aside.write(_set_aside_line(part.source, file.path, record))
                records += record.records
                continue
            rows.add(record, records, part.files.index(file))
            records, documents = records + 1, documents + 1
            if documents == part.config.max_documents:
                break
        rows.flush()
    temporary.replace(aside_path)
    write_notes(_part_path(work, task, "json"), {"records": records, "documents": documents, "set_aside": set_aside,
                                                   "skipped": min(records, part.config.skip_records)})


def _records(part: _Part, root: Path, max_bytes: int, meter: Meter) -> Iterator[tuple[FileRef, Raw | SetAside]]:
    for file in part.files:
        for record in read_records(part.source, part.config, check_file(root, file), max_bytes, meter.add):
            yield file, record


class _Rows:
    """Gathers documents and hands them to the writer as tables, at most a row group at once."""

    def __init__(self, writer: TableWriter) -> None:
        self.writer = writer
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def add(self, raw: Raw, record: int, file: int) -> None:
        """Adds a document; `record` counts the part's records before it, `file` is the number of its file in the part."""
        self._rows.append({name: getattr(raw, name) for name in _FIELDS} | {"record": record, "file": file, "line": raw.line})
        self._size += len(raw.text)
        if len(self._rows) == ROWS_PER_GROUP or self._size >= BYTES_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes what is waiting."""
        self.writer.write(pa.Table.from_pylist(self._rows, schema=PART))
        self._rows, self._size = [], 0


def _set_aside_line(source: str, file: str, record: SetAside) -> bytes:
    line = {"source": source, "file": file, "line": record.line, "reason": record.reason, "excerpt": record.excerpt}
    if record.records != 1:
        line["records"] = record.records
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


# --- then: ids ------------------------------------------------------------------------------------------------------------------

def _first_records(parts: list[_Part], notes: list[dict[str, Any]]) -> list[int]:
    """For each part, the number of its source's records in the parts before it."""
    seen: dict[str, int] = {}
    starts = []
    for part, note in zip(parts, notes, strict=True):
        starts.append(seen.get(part.source, 0))
        seen[part.source] = starts[-1] + note["records"]
    return starts


def _ids(part: _Part, start: int, table: pa.Table) -> list[str]:
    """The given ids; where there is none, the number of the record in its source."""
    prefix = part.config.id_prefix or f"{part.source}-"
    given, records = table["id"].to_pylist(), table["record"].to_pylist()
    return [f"{prefix}{start + record:06d}" if name is None else name for name, record in zip(given, records, strict=True)]


def _sign_part(parts: list[_Part], starts: list[int], work: Path, task: int, meter: Meter) -> None:
    """Leaves the signatures of the part's ids."""
    found = []
    for table in read_tables(_part_path(work, task, "parquet"), ["id", "record"]):
        found.append(signatures(_ids(parts[task], starts[task], table)))
        meter.add(table.num_rows)
    save_array(_part_path(work, task, "npy"), np.concatenate(found) if found else np.empty((0, 2), np.uint64))


def _funnel_row(source: str, parts: list[_Part], notes: list[dict[str, Any]], repeats: list[Rows]) -> dict[str, Any]:
    records, documents, set_aside = 0, 0, {}  # type: ignore[var-annotated]
    for part, note, repeated in zip(parts, notes, repeats, strict=True):
        if part.source != source:
            continue
        duplicates = int((repeated >= 0).sum())
        records += note["records"] - note["skipped"]
        documents += note["documents"] - duplicates
        add_counts(set_aside, note["set_aside"] | ({"duplicate_id": duplicates} if duplicates else {}))
    return funnel(records, documents, {}, set_aside)


def _write_set_aside(final: Path, work: Path, parts: list[_Part], repeats: list[Rows]) -> None:
    """All records that were set aside: by part, what could not be read before what repeats an id."""
    temporary = unique_temporary(final)
    with open(temporary, "wb") as file:
        for i, part in enumerate(parts):
            with open(_part_path(work, i, "jsonl"), "rb") as lines:
                shutil.copyfileobj(lines, file)
            if not (repeats[i] >= 0).any():
                continue
            row = 0
            for table in read_tables(_part_path(work, i, "parquet"), ["id", "text", "file", "line"]):
                repeated = table.filter(pa.array(repeats[i][row: row + table.num_rows] >= 0))
                row += table.num_rows
                for record in repeated.to_pylist():
                    excerpt = f"{record['id']}: {record['text'][:150]}"
                    file.write(_set_aside_line(part.source, part.files[record["file"]].path, SetAside(record["line"], "duplicate_id", excerpt)))
    temporary.replace(final)


def _refuse_damaged_or_empty(source: str, row: dict[str, Any], config: IngestConfig, out: Path) -> None:
    broken = sum(row["set_aside"].values())
    if row["in"] and broken / row["in"] > config.max_set_aside_share:
        reasons = ", ".join(f"{count} {reason}" for reason, count in row["set_aside"].items())
        raise StageFailed(
            f"data.sources.{source}: {broken} of {row['in']} records are broken ({reasons}), more than the share {config.max_set_aside_share} that is allowed",
            f"{out / 'set_aside.jsonl'} lists them with file and line: mend the source, or raise data.ingest.max_set_aside_share")
    if not row["out"]:
        paths = ", ".join(file.path for file in config.sources[source].files) or config.sources[source].path
        raise UserError(f"data.sources.{source}.path: there is no document in {paths}", "give a path that holds documents, or take out the source")


# --- last: parts to shards ------------------------------------------------------------------------------------------------------

def _write_shard(config: IngestConfig, parts: list[_Part], starts: list[int], shards: list[tuple[str, int]],
                 rows: dict[str, dict[str, Any]], work: Path, task: int, meter: Meter) -> None:
    """Writes one shard: the documents i of the source with i * shards // n equal to the shard's number."""
    source, shard = shards[task]
    total = rows[source]["out"]
    first, end = -(-shard * total // config.shards), -(-(shard + 1) * total // config.shards)
    path, size = shard_path(work / "shards", source, shard), 0
    with TableWriter(path) as writer:
        for table in _kept(parts, starts, source, work, first, end):
            writer.write(_as_documents(table, source, config.sources[source]))
            size += text_bytes(table)
            meter.add(table.num_rows)
    write_notes(path.with_suffix(".json"), {"documents": writer.rows, "bytes": size})


def _kept(parts: list[_Part], starts: list[int], source: str, work: Path, first: int, end: int) -> Iterator[pa.Table]:
    """The documents `first` to `end` of a source, without repeated ids, with all ids filled in."""
    number = 0  # of the source's kept documents so far
    for i, part in enumerate(parts):
        if part.source != source:
            continue
        kept = np.load(_part_path(work, i, "repeats.npy")) < 0
        count = int(kept.sum())
        if number >= end or number + count <= first:
            number += count
            continue
        row = 0
        for table in read_tables(_part_path(work, i, "parquet")):
            table, row = table.filter(pa.array(kept[row: row + table.num_rows])), row + table.num_rows
            chosen = table.slice(max(0, first - number), max(0, end - max(first, number)))
            number += table.num_rows
            if chosen.num_rows:
                yield _with_numbers(part, starts[i], chosen)


def _with_numbers(part: _Part, start: int, table: pa.Table) -> pa.Table:
    """The rows with all ids filled in, and the originals' where pairs are joined by their number."""
    table = table.set_column(table.schema.get_field_index("id"), "id", pa.array(_ids(part, start, table), pa.string()))
    if part.config.kind == "natural" or part.config.translation_of_field is not None:
        return table
    originals = [f"{part.config.translation_of_prefix}{start + record:06d}" for record in table["record"].to_pylist()]
    return table.set_column(table.schema.get_field_index("translation_of"), "translation_of", pa.array(originals, pa.string()))


def _as_documents(table: pa.Table, source: str, config: SourceConfig) -> pa.Table:
    constants = {"source": source, "language": config.language, "domain": config.domain, "kind": config.kind, "licence": config.licence}
    columns = [table[name] if name in _FIELDS else pa.repeat(pa.scalar(constants[name], pa.string()), table.num_rows) for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)
