"""Documents as Arrow tables, in bounded memory: the data stages read a shard batch by batch, choose rows, and write what is left.

Also the common ends of a stage: linking finished files from `work/` into the artifact, the dropped documents' file and the funnel.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from allam.data.tasks import unique_temporary
from allam.documents import ROWS_PER_GROUP, SCHEMA

BYTES_PER_GROUP = 32_000_000  # long books: a row group must fit in memory several times over
EXCERPT = 500
# Columns that repeat; no dictionary of texts and ids, and no smallest and largest text, which nobody asks for
PARQUET: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["source", "language", "domain", "kind", "date", "licence", "file"],
                           "column_encoding": {"line": "DELTA_BINARY_PACKED"}, "write_statistics": False}


class TableWriter:
    """Writes documents into one Parquet file, atomically.

    A row group ends with the row that makes it `ROWS_PER_GROUP` rows or its text `BYTES_PER_GROUP` bytes, so that the file's bytes are a
    function of its documents alone, however they were handed over.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self._temporary = unique_temporary(path)
        self._writer = pq.ParquetWriter(self._temporary, SCHEMA, **PARQUET)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        while table.num_rows:
            count, size = rows_until(table, ROWS_PER_GROUP - self._waiting_rows, BYTES_PER_GROUP - self._waiting_bytes)
            self._waiting.append(table.slice(0, count))
            table = table.slice(count)
            self._waiting_rows, self._waiting_bytes, self.rows = self._waiting_rows + count, self._waiting_bytes + size, self.rows + count
            if self._waiting_rows == ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks() if self._waiting else SCHEMA.empty_table())
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and (self._waiting or not self.rows):
            self._flush()
        self._writer.close()
        if error is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def rows_until(table: pa.Table, rows: int, size: int) -> tuple[int, int]:
    """The first rows of `table`, up to the one that makes them `rows` or their text `size` bytes: (how many, at least one; their text's bytes)."""
    sizes = np.cumsum(pc.binary_length(table["text"].slice(0, rows)).to_numpy())
    count = min(int(np.searchsorted(sizes, size)) + 1, len(sizes))
    return count, int(sizes[count - 1])


def read_tables(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a Parquet file, a row group's part at a time (pyarrow itself would fill a batch from many groups of a few long books each)."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, row_groups=[group], columns=columns):
                yield pa.Table.from_batches([batch])


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def text_bytes(table: pa.Table) -> int:
    """UTF-8 bytes of the column `text`."""
    return int(pc.sum(pc.binary_length(table["text"])).as_py() or 0)


def source_shards(folder: Path, sources: Iterable[str]) -> list[tuple[str, Path]]:
    """(source, shard) for all shards of the sources below a folder of documents, in the given order of sources."""
    return [(source, path) for source in sources for path in sorted((folder / source).glob("*.parquet"))]


def write_whole(path: Path, data: bytes) -> None:
    """A small file of a task, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(path)
    temporary.write_bytes(data)
    temporary.replace(path)


def write_notes(path: Path, value: Any) -> None:
    """What a task tells its stage, as JSON."""
    write_whole(path, orjson.dumps(value))


def read_notes(path: Path) -> Any:
    """What `write_notes` wrote."""
    return orjson.loads(path.read_bytes())


def publish(made: Path, final: Path) -> None:
    """Makes a finished file of `work/` part of the artifact, by a link: it must still be there if the stage is killed before its end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    final.unlink(missing_ok=True)
    try:
        os.link(made, final)
    except OSError:  # a file system without hard links
        temporary = unique_temporary(final)
        shutil.copyfile(made, temporary)
        temporary.replace(final)


def dropped_line(row: Mapping[str, Any], reason: str, detail: str) -> bytes:
    """One line about a dropped document; `row` needs id, text, url and source."""
    return orjson.dumps({"id": row["id"], "reason": reason, "detail": detail, "text": row["text"][:EXCERPT], "url": row["url"],
                         "source": row["source"]}, option=orjson.OPT_APPEND_NEWLINE)


def dropped_path(shard: Path) -> Path:
    """The name of the file about the documents dropped from `<shard>.parquet`: `<shard>.jsonl.zst`."""
    return shard.with_suffix(".jsonl.zst")


def write_dropped(path: Path, lines: Iterable[bytes]) -> None:
    """A shard's dropped documents as one `.jsonl.zst` of a single frame (many readers stop after the first frame); no file where there are none."""
    if data := b"".join(lines):
        write_whole(path, zstandard.compress(data, level=3))


class LineWriter:
    """Writes a `.jsonl.zst` of a single frame, line by line, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path, self._temporary = path, unique_temporary(path)

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line."""
        self._packed.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> LineWriter:
        self._packed = zstandard.ZstdCompressor(level=6).stream_writer(open(self._temporary, "wb"))  # closes the file with itself
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._packed.close()
        if kind is None:
            self._temporary.replace(self.path)


def read_dropped(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a dropped-documents file."""
    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as unpacked:
        rest = b""
        while block := unpacked.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            yield from (json.loads(line) for line in lines)


def funnel(entering: int, leaving: int, dropped: Mapping[str, int], set_aside: Mapping[str, int]) -> dict[str, Any]:
    """A source's row of the funnel; nothing may get lost between its numbers."""
    assert entering == leaving + sum(dropped.values()) + sum(set_aside.values()), (entering, leaving, dropped, set_aside)
    return {"in": entering, "out": leaving, "dropped": dict(sorted(dropped.items())), "set_aside": dict(sorted(set_aside.items()))}


def add_counts(into: dict[str, int], more: Mapping[str, int]) -> None:
    """Adds one set of counts to another, in place."""
    for name, count in more.items():
        into[name] = into.get(name, 0) + count
