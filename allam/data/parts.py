"""What one task of ingest does: a part's files, read once, straight to shards of documents.

A part is a file of a source, a run of files where each is a document, or all files where the source is read from or to a fixed number. Its result
is a function of the files' content and of the configuration that bears on it, so that it can be linked from an earlier artifact
(allam/data/reuse.py) while other files come and go. That is why a document without an id of its own is named by its file and its number there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from allam.data.archives import COMPRESSED, BadChecksumError
from allam.data.config import IngestConfig, SourceConfig
from allam.data.readers import ENDINGS, ONE_DOCUMENT_A_FILE, Raw, SetAside, file_format, read_records
from allam.data.reuse import EarlierPart, link, part_key
from allam.data.signatures import save_array, signatures
from allam.data.tables import TableWriter, add_counts, read_tables, rows_until, text_bytes, unique_temporary, write_notes
from allam.data.tasks import Meter
from allam.documents import ROWS_PER_GROUP, SCHEMA
from allam.files import check_source
from allam.section import FileRef

SET_ASIDE = "set_aside.jsonl"
NO_PART_OF_A_PART = {"path", "files", "sha256", "filters"}  # fields of a source that don't bear on what is read from one of its files
FILES_A_PART, BYTES_A_PART = 1000, 64_000_000  # at most, where each file is a document; they are part of the stage's version
BYTES_AT_ONCE = 1 << 20  # copied
ROWS_A_SHARD = 500_000  # at most, so that what is told of each document fits in memory where they are of a few words; part of the stage's version
CHARACTERS_AT_ONCE = 500_000  # handed over as one table; they stand in memory twice, as Python's text and as Arrow's
RUN_LENGTH = 200  # files in such a part, in the mean
VARYING = ("id", "text", "url", "title", "date", "translation_of", "file", "line")
TAKEN_DOWN = "taken_down"


@dataclass(frozen=True)
class Part:
    """What one task reads."""

    source: str
    config: SourceConfig
    files: tuple[FileRef, ...]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    def key(self, config: IngestConfig, out: Path) -> str:
        """The part's key for reuse."""
        return part_key(out, {
            "source": self.source, "config": self.config.model_dump(mode="json", exclude=NO_PART_OF_A_PART),
            "files": [[file.path, file_name(self.config, file.path), file.sha256] for file in self.files],
            "shard_bytes": config.shard_bytes, "max_document_bytes": config.max_document_bytes})


def parts_of(source: str, config: SourceConfig) -> list[Part]:
    """The parts of a source, in the order of its files; refuses files of no known format before anything is read."""
    formats = {file.path: file_format(source, config, file.path) for file in config.files}
    if config.max_documents is not None or config.skip_records:
        return [Part(source, config, config.files)]
    runs, takes_more = list[list[FileRef]](), False
    for file in config.files:
        small = formats[file.path] in ONE_DOCUMENT_A_FILE
        if not (small and takes_more):
            runs.append([])
        runs[-1].append(file)
        takes_more = small and len(runs[-1]) < FILES_A_PART and sum(f.size for f in runs[-1]) < BYTES_A_PART and not _ends_a_part(file.path)
    return [Part(source, config, tuple(files)) for files in runs]


def _ends_a_part(path: str) -> bool:
    """Whether a run of small files ends with this one: true for a few names, so that a new file changes the run that it falls into and no other."""
    return zlib.crc32(path.encode()) % RUN_LENGTH == 0


def file_name(config: SourceConfig, path: str) -> str:
    """What stands for a file in the ids that are made: nothing for a source of one named file, else its path below the pattern, without endings."""
    pattern, file = PurePosixPath(config.path), PurePosixPath(path)
    if pattern == file:
        return ""
    fixed = PurePosixPath(*_before_wildcards(pattern.parts))
    name = file.relative_to(fixed) if file.is_relative_to(fixed) else file
    for endings in (COMPRESSED, ENDINGS):
        name = name.with_suffix("") if name.suffix in endings else name
    return f"{name}-"


def _before_wildcards(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if set("*?[") & set(part):
            return
        yield part


# --- reading ------------------------------------------------------------------------------------------------------------------------

def part_folder(work: Path, part: int) -> Path:
    """Where the task of a part leaves what it made: shards `00000.parquet` and so on, the signatures of their ids, set_aside.jsonl and notes.json."""
    return work / "parts" / f"{part:05d}"


def part_shard(work: Path, part: int, shard: int) -> Path:
    """A shard of a part, as it was read."""
    return part_folder(work, part) / f"{shard:05d}.parquet"


def part_ids(work: Path, part: int, shard: int) -> Path:
    """The signatures of a shard's ids; of a shard, since a part may be a file of any size."""
    return part_shard(work, part, shard).with_suffix(".ids.npy")


def make_part(config: IngestConfig, parts: list[Part], earlier: list[EarlierPart | None], root: Path, work: Path, task: int, meter: Meter) -> None:
    """The task: links what an earlier artifact made of the part, or reads its files; takes down what must go; then signs the documents' ids."""
    part, found = parts[task], earlier[task]
    notes = _link_part(found, work, task) if found and set(config.take_down).issuperset(found.notes["taken_down"]) else None
    if notes is None:
        notes = {**_read_part(config, part, root, work, task, meter), "reused": False}
    else:
        meter.add(part.size)
    if config.take_down:
        _take_down(config.take_down, notes, work, task)
    for shard in range(len(notes["shards"])):
        ids = [signatures(table["id"].to_pylist()) for table in read_tables(part_shard(work, task, shard), ["id"])]
        save_array(part_ids(work, task, shard), np.concatenate([np.empty((0, 2), np.uint64), *ids]))
    write_notes(part_folder(work, task) / "notes.json", notes)


def _link_part(earlier: EarlierPart, work: Path, task: int) -> dict[str, Any] | None:
    """The earlier part's notes, its shards and its set-aside lines now being this one's; None where they are no longer whole."""
    if not link(earlier, [part_shard(work, task, shard) for shard in range(len(earlier.files))]):
        return None
    first, end = earlier.notes["set_aside_lines"]
    (part_folder(work, task) / SET_ASIDE).parent.mkdir(parents=True, exist_ok=True)
    with open(earlier.folder / SET_ASIDE, "rb") as file, open(part_folder(work, task) / SET_ASIDE, "wb") as lines:
        file.seek(first)
        while piece := file.read(min(BYTES_AT_ONCE, end - file.tell())):
            lines.write(piece)
    return {**earlier.notes, "reused": True}


def _read_part(config: IngestConfig, part: Part, root: Path, work: Path, task: int, meter: Meter) -> dict[str, Any]:
    """Reads a part's files; leaves its shards and set-aside lines, and returns what is to be noted.

    Where an archive's checksum fails, all is read again without what can't be trusted.
    """
    doubted: dict[str, _Doubted] = {}
    while True:
        before = meter.done
        try:
            return _read_once(config, part, root, work, task, meter, doubted)
        except _ChecksumFailed as failed:
            doubted[failed.file] = failed.doubted
            meter.add(before - meter.done)


def _read_once(config: IngestConfig, part: Part, root: Path, work: Path, task: int, meter: Meter, doubted: dict[str, _Doubted]) -> dict[str, Any]:
    source, set_aside = part.config, dict[str, int]()
    records = skipped = documents = 0
    aside_path = part_folder(work, task) / SET_ASIDE
    aside_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(aside_path)
    with _Shards(part, work, task, config.shard_bytes) as shards, open(temporary, "wb") as aside:
        for file, number, record in _records(part, root, config.max_document_bytes, meter, doubted):
            count = record.records if isinstance(record, SetAside) else 1
            records += count
            if records - count < source.skip_records:
                skipped += count
                continue
            if isinstance(record, SetAside):
                add_counts(set_aside, {record.reason: count})
                aside.write(set_aside_line(part.source, file.path, record))
                continue
            shards.add(record, file, number)
            documents += 1
            if documents == source.max_documents:
                break
    temporary.replace(aside_path)
    return {"files": len(part.files), "records": records, "skipped": skipped, "set_aside": set_aside, "shards": shards.sizes,
            "taken_down": []}


def _take_down(ids: tuple[str, ...], notes: dict[str, Any], work: Path, task: int) -> None:
    """Writes the shards that hold documents with these ids, or translations of them, again without them. No word of theirs is left, only a count."""
    wanted, taken, count = pa.array(ids, pa.string()), set(notes["taken_down"]), 0
    for shard, size in enumerate(notes["shards"]):
        path = part_shard(work, task, shard)
        columns = pa.concat_tables([*read_tables(path, ["id", "translation_of"]), SCHEMA.empty_table().select(["id", "translation_of"])])
        found = [pc.is_in(columns[name], value_set=wanted) for name in ("id", "translation_of")]
        keep = pc.invert(pc.or_(*found)).combine_chunks()
        if keep.true_count == len(keep):
            continue
        taken |= {name for column, mask in zip(("id", "translation_of"), found, strict=True) for name in columns[column].filter(mask).to_pylist()}
        count += len(keep) - keep.true_count
        row, size["documents"], size["bytes"] = 0, keep.true_count, 0
        with TableWriter(path) as writer:
            for table in read_tables(path):
                kept = table.filter(keep.slice(row, table.num_rows))
                writer.write(kept)
                row, size["bytes"] = row + table.num_rows, size["bytes"] + text_bytes(kept)
    notes["taken_down"] = sorted(taken)
    add_counts(notes["set_aside"], {TAKEN_DOWN: count} if count else {})


@dataclass(frozen=True)
class _Doubted:
    """Of a file whose checksum fails: how many bytes of its content can be trusted, and how many records it seemed to have."""

    trusted: int
    records: int


class _ChecksumFailed(Exception):
    def __init__(self, file: str, doubted: _Doubted) -> None:
        super().__init__(file)
        self.file, self.doubted = file, doubted


def _records(part: Part, root: Path, max_bytes: int, meter: Meter, doubted: dict[str, _Doubted]) -> Iterator[tuple[FileRef, int, Raw | SetAside]]:
    """The part's records, each with its file and the number of the file's records before it; raises `_ChecksumFailed`."""
    for file in part.files:
        number, known = 0, doubted.get(file.path)
        try:
            for record in read_records(part.source, part.config, check_source(root, file), max_bytes, meter.add, None if known is None else known.trusted):
                if known is not None and isinstance(record, SetAside) and record.reason == "bad_checksum":
                    record.records = max(1, known.records - number)
                yield file, number, record
                number += record.records if isinstance(record, SetAside) else 1
        except BadChecksumError as error:
            raise _ChecksumFailed(file.path, _Doubted(error.trusted, number)) from None


def set_aside_line(source: str, file: str, record: SetAside) -> bytes:
    """One line about records that are set aside."""
    line = {"source": source, "file": file, "line": record.line, "reason": record.reason, "excerpt": record.excerpt}
    if record.records != 1:
        line["records"] = record.records
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class _Shards:
    """Writes a part's documents; a shard ends with the document that makes its text `shard_bytes` bytes, or with its 500,000th.

    `sizes` tells of the finished ones.
    """

    def __init__(self, part: Part, work: Path, task: int, shard_bytes: int) -> None:
        self.part, self.work, self.task, self.shard_bytes = part, work, task, shard_bytes
        self.sizes: list[dict[str, int]] = []
        self._writer: TableWriter | None = None
        self._bytes = 0
        self._file: FileRef | None = None
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0

    def add(self, raw: Raw, file: FileRef, number: int) -> None:
        """Adds a document, which is record `number` of `file`."""
        config = self.part.config
        if file is not self._file:
            self._file = file
            name = file_name(config, file.path)
            self._prefix, self._original = (config.id_prefix or f"{self.part.source}-") + name, config.translation_of_prefix + name
        numbered = config.kind == "translated" and config.translation_of_field is None
        self._rows.append((f"{self._prefix}{number:06d}" if raw.id is None else raw.id, raw.text, raw.url, raw.title, raw.date,
                           f"{self._original}{number:06d}" if numbered else raw.translation_of, file.path, raw.line))
        self._characters += len(raw.text)
        if len(self._rows) == ROWS_PER_GROUP or self._characters >= CHARACTERS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Writes what is waiting."""
        if not self._rows:
            return
        varying = dict(zip(VARYING, zip(*self._rows, strict=True), strict=True))
        config = self.part.config
        constant = {"source": self.part.source, "language": config.language, "domain": config.domain, "kind": config.kind, "licence": config.licence}
        table = pa.table([pa.array(varying[field.name], field.type) if field.name in varying
                          else pa.repeat(pa.scalar(constant[field.name], field.type), len(self._rows)) for field in SCHEMA], schema=SCHEMA)
        self._rows, self._characters = [], 0
        self._write(table)

    def _write(self, table: pa.Table) -> None:
        while table.num_rows:
            if self._writer is None:
                self._writer, self._bytes = TableWriter(part_shard(self.work, self.task, len(self.sizes))), 0
            count, size = rows_until(table, ROWS_A_SHARD - self._writer.rows, self.shard_bytes - self._bytes)
            self._writer.write(table.slice(0, count))
            table, self._bytes = table.slice(count), self._bytes + size
            if self._bytes >= self.shard_bytes or self._writer.rows == ROWS_A_SHARD:
                self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self.sizes.append({"documents": self._writer.rows, "bytes": self._bytes})
            self._writer = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
            self._close()
        elif self._writer is not None:
            self._writer.__exit__(kind, error, trace)
