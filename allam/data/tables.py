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

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from allam.data.tasks import unique_temporary
from allam.documents import ROWS_PER_GROUP, SCHEMA

BYTES_PER_GROUP = 32_000_000  # long books: a row group must fit in memory several times over
EXCERPT = 500


class TableWriter:
    """Writes tables into one Parquet file, atomically; row groups depend on the rows and their batches alone, so bytes are reproducible."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA, compression: str = "zstd") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.schema, self.rows = path, schema, 0
        self._temporary = unique_temporary(path)
        self._writer = pq.ParquetWriter(self._temporary, schema, compression=compression)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        while table.num_rows:
            piece = table.slice(0, ROWS_PER_GROUP - self._waiting_rows)
            table = table.slice(piece.num_rows)
            self._waiting.append(piece)
            self._waiting_rows += piece.num_rows
            self._waiting_bytes += piece.nbytes
            self.rows += piece.num_rows
            if self._waiting_rows == ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks() if self._waiting else self.schema.empty_table())
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


def read_tables(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a Parquet file, a row group's part at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns):
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


def write_dropped(final: Path, pieces: Iterable[Path]) -> None:
    """Joins the tasks' plain lines into one `.jsonl.zst` of a single frame (many readers stop after the first frame)."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(final)
    with open(temporary, "wb") as file, zstandard.ZstdCompressor(level=6).stream_writer(file) as packed:
        for piece in pieces:
            with open(piece, "rb") as lines:
                shutil.copyfileobj(lines, packed)
    temporary.replace(final)


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
