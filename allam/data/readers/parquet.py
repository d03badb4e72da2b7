"""Parquet: one row a record, a few rows at a time.

How many rows fit in memory is told by their average size in the footer and, since a file may store a long value once and share it among all rows,
by the longest value of each column's dictionary: without that a megabyte of file could become many gigabytes. Rows that the footer says to unpack to far
more than any text does are set aside as a bomb, unread; what is longer than a document may be never becomes Python's. A single value is unpacked whole,
since the format has no smaller piece: one of 196 MB took 0.96 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from allam.data.archives import BOMB_BYTES, BOMB_RATIO
from allam.data.config import SourceConfig
from allam.data.readers.records import EXCERPT, NO_COLUMN, Fields, Record, SetAside, excerpt, is_utf8
from allam.remote import Place, as_local

ROWS = 256  # at once
BYTES = 1 << 26  # at once


def read(config: SourceConfig, place: Place, max_bytes: int, on_read: Callable[[int], None]) -> Iterator[Record]:
    """A record a row; none of them a document where no column holds the text."""
    fields = Fields(config)
    with as_local(place) as path:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            yield SetAside(1, "unreadable", excerpt(str(error)))
            return
        with file:
            names = file.schema_arrow.names
            if not {".".join(fields.text), fields.text[0]} & set(names):
                yield SetAside(1, NO_COLUMN, excerpt(", ".join(names)), records=max(1, file.metadata.num_rows))
                on_read(path.stat().st_size)
                return
            columns, row, size = sorted(fields.columns() & set(names)), 1, path.stat().st_size
            groups = file.metadata.num_row_groups
            for group in range(groups):
                yield from _row_group(fields, path, file, group, row, columns, max_bytes)
                row += file.metadata.row_group(group).num_rows
                on_read(size * (group + 1) // groups - size * group // groups)


def _row_group(fields: Fields, path: Path, file: pq.ParquetFile, group: int, first: int, columns: list[str], max_bytes: int) -> Iterator[Record]:
    rows, done = file.metadata.row_group(group).num_rows, 0
    if _is_bomb(file.metadata.row_group(group), columns):
        yield SetAside(first, "bomb", "", records=rows)
        return
    try:
        at_once = _rows_at_once(path, file, group, columns)
        for batch in file.iter_batches(batch_size=at_once, row_groups=[group], columns=columns):
            for number, record in enumerate(_rows(_as_text(batch), max_bytes), start=first + done):
                yield _record(fields, number, record, max_bytes)
            done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield SetAside(first + done, "unreadable", excerpt(str(error)), records=rows - done)


def _is_bomb(about: Any, columns: list[str]) -> bool:
    """Whether the columns of a row group unpack to more than any text does. (What a dictionary's values make of the rows is bounded by the rows at once.)"""
    chunks = _chunks(about, columns)
    packed, unpacked = sum(chunk.total_compressed_size for chunk in chunks), sum(chunk.total_uncompressed_size for chunk in chunks)
    return unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed


def _chunks(about: Any, columns: list[str]) -> list[Any]:
    """What a row group has of the columns, nested ones in several chunks."""
    chunks = map(about.column, range(about.num_columns))
    return [chunk for chunk in chunks if chunk.path_in_schema in columns or chunk.path_in_schema.split(".")[0] in columns]


def _rows_at_once(path: Path, file: pq.ParquetFile, group: int, columns: list[str]) -> int:
    about = file.metadata.row_group(group)
    average = about.total_byte_size // max(1, about.num_rows)
    return max(1, min(ROWS, BYTES // max(1, average, _longest_shared(path, about, group, columns))))


def _longest_shared(path: Path, about: Any, group: int, columns: list[str]) -> int:
    """Bytes of the longest value in the dictionaries of the row group's columns; a column has one whole dictionary in its first batch with a value."""
    shared = [chunk.path_in_schema for chunk in _chunks(about, columns) if chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page]
    longest = 0
    for name in shared if about.num_rows > 1 else ():
        with pq.ParquetFile(path, read_dictionary=[name]) as file:
            batches = file.iter_batches(batch_size=1, row_groups=[group], columns=[name])
            values = next((found for batch in batches if len(found := _innermost(batch.column(0)))), None)
            if values is not None:
                values = values.dictionary if pa.types.is_dictionary(values.type) else values
                longest = max(longest, pc.max(pc.binary_length(values)).as_py() or 0)
    return longest


def _innermost(column: pa.Array) -> pa.Array:
    """The values of a nested column of which one leaf was read; those of empty lists are none."""
    while pa.types.is_nested(column.type):
        column = column.field(0) if pa.types.is_struct(column.type) else column.values
    return column


@dataclass(frozen=True)
class _TooLong:
    """A row with a value that is longer than a document may be; its beginning."""

    head: bytes


def _record(fields: Fields, number: int, record: dict[str, Any] | bytes | _TooLong, max_bytes: int) -> Record:
    if isinstance(record, _TooLong):
        return SetAside(number, "oversized", excerpt(record.head))
    if isinstance(record, bytes):
        return SetAside(number, "bad_utf8", excerpt(record))
    raw = fields.raw(number, record)
    if raw is None:
        return SetAside(number, "no_text", excerpt(str({name: value for name, value in record.items() if value is not None})))
    if len(raw.text) > max_bytes // 4 and len(raw.text.encode()) > max_bytes:
        return SetAside(number, "oversized", excerpt(raw.text[: EXCERPT * 4]))
    return raw


def _as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with columns of bytes as such of text, which some writers don't tell apart; what doesn't decode shows when it is read."""
    for i, field in enumerate(batch.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            text = pa.large_string() if pa.types.is_large_binary(field.type) else pa.string()
            batch = batch.set_column(i, field.name, batch.column(i).cast(options=pc.CastOptions(text, allow_invalid_utf8=True)))
    return batch


def _rows(batch: pa.RecordBatch, max_bytes: int) -> Iterator[dict[str, Any] | bytes | _TooLong]:
    """The rows as mappings; a row with undecodable text as the bytes of that text."""
    long = _first_too_long(batch, max_bytes)
    try:
        if long is None:
            yield from batch.to_pylist()
            return
    except UnicodeDecodeError:
        pass
    for i in range(batch.num_rows):
        row = batch.slice(i, 1)
        head = _first_too_long(row, max_bytes) if long is not None else None
        yield _row(row) if head is None else _TooLong(head)


def _first_too_long(batch: pa.RecordBatch, max_bytes: int) -> bytes | None:
    """The beginning of the first text of more than `max_bytes` bytes."""
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            lengths = pc.binary_length(column)
            if (pc.max(lengths).as_py() or 0) > max_bytes:
                place = pc.index(pc.greater(lengths, max_bytes), True).as_py()
                return memoryview(column[place].as_buffer())[: 4 * EXCERPT].tobytes()
    return None


def _row(row: pa.RecordBatch) -> dict[str, Any] | bytes:
    try:
        found: dict[str, Any] = row.to_pylist()[0]
        return found
    except UnicodeDecodeError:
        for column in row.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                data = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())[0].as_py()
                if data is not None and not is_utf8(data):
                    return bytes(data)
        return b""
