"""Raw files to documents, or to the reason why a record is set aside. No record is ever skipped in silence.

datatrove's own JSONL reader logs and drops a bad line, and one undecodable byte ends the file unseen; hence these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from allam.data.archives import COMPRESSED, Line, read_lines
from allam.data.config import SourceConfig
from allam.errors import UserError, did_you_mean

EXCERPT = 200
ROWS = 256  # of a Parquet file at once
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".txt": "text", ".text": "text", ".md": "text"}


@dataclass(slots=True)
class Raw:
    """A document as the file has it; `id` is None where the file gives none."""

    line: int
    text: str
    id: str | None = None
    url: str | None = None
    title: str | None = None
    date: str | None = None
    translation_of: str | None = None


@dataclass(slots=True)
class SetAside:
    """Records that can't be used: `records` of them from `line` on (more than one only for a damaged row group)."""

    line: int
    reason: str
    excerpt: str
    records: int = 1


Record = Raw | SetAside


def file_format(source: str, config: SourceConfig, path: str) -> str:
    """`jsonl`, `parquet` or `text`; raises `UserError` where neither the recipe nor the file's name says it."""
    if config.format != "auto":
        return config.format
    name = Path(path)
    ending = Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    if ending not in ENDINGS:
        raise UserError(f"data.sources.{source}.path: the ending of {path} names no known format",
                        f"set data.sources.{source}.format to jsonl, parquet or text; known endings: {', '.join(ENDINGS)} (and {', '.join(COMPRESSED)})")
    return ENDINGS[ending]


def read_records(source: str, config: SourceConfig, path: Path, max_bytes: int, on_read: Callable[[int], None]) -> Iterator[Record]:
    """All records of one file, in order."""
    match file_format(source, config, path.name):
        case "jsonl":
            yield from _json_lines(config, read_lines(path, max_bytes, on_read))
        case "parquet":
            yield from _parquet(source, config, path, max_bytes, on_read)
        case _:
            yield from _paragraphs(read_lines(path, max_bytes, on_read), max_bytes)


# --- JSON Lines -----------------------------------------------------------------------------------------------------------------

def _json_lines(config: SourceConfig, lines: Iterator[Line]) -> Iterator[Record]:
    fields = _Fields(config)
    for line in lines:
        data = line.data.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.data
        if line.problem:
            yield SetAside(line.number, line.problem, excerpt(data))
        elif data.strip():
            yield _json_line(fields, line.number, data)


def _json_line(fields: _Fields, number: int, data: bytes) -> Record:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return SetAside(number, "bad_json" if _is_utf8(data) else "bad_utf8", excerpt(data))
    if not isinstance(value, dict):
        return SetAside(number, "bad_json", excerpt(data))
    return fields.raw(number, value) or SetAside(number, "no_text", excerpt(data))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def excerpt(data: bytes | str) -> str:
    """The beginning of a broken record, printable."""
    text = data[: EXCERPT * 4].decode(errors="replace") if isinstance(data, bytes) else data
    return text.strip()[:EXCERPT]


class _Fields:
    """Picks a document's fields out of a mapping."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.text, self.id, self.url = _path(config.text_field), _path(config.id_field), _path(config.url_field)
        self.translation_of = _path(config.translation_of_field) if config.kind == "translated" else ()

    def raw(self, line: int, record: dict[str, Any]) -> Raw | None:
        """The document, or None where there is no text."""
        text = _get(record, self.text)
        if not isinstance(text, str) or not text.strip():
            return None
        identity = _name(_get(record, self.id))
        original = _name(_get(record, self.translation_of))
        return Raw(line, text, id=None if identity is None else self.config.id_prefix + identity,
                   url=_name(_get(record, self.url)), title=_name(record.get("title")), date=_name(record.get("date")),
                   translation_of=None if original is None else self.config.translation_of_prefix + original)

    def columns(self) -> set[str]:
        """The top-level names that may be needed."""
        paths = (self.text, self.id, self.url, self.translation_of, ("title",), ("date",))
        return {name for path in paths if path for name in (path[0], ".".join(path))}


def _path(field: str | None) -> tuple[str, ...]:
    return tuple(field.split(".")) if field is not None else ()


def _get(record: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value of a field, None for the empty path; a dotted name is first looked up as it stands, then as a way into nested objects and lists."""
    if len(path) == 1:
        return record.get(path[0])
    if not path:
        return None
    if (whole := ".".join(path)) in record:
        return record[whole]
    value: Any = record
    for name in path:
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _name(value: Any) -> str | None:
    """Ids, URLs, titles and dates as text; None for nothing, blanks and structures."""
    if isinstance(value, str):
        return value if value.strip() else None
    return None if value is None or isinstance(value, (bool, dict, list)) else str(value)


# --- plain text -----------------------------------------------------------------------------------------------------------------

def _paragraphs(lines: Iterator[Line], max_bytes: int) -> Iterator[Record]:
    """Documents separated by blank lines; a document's line is its first."""
    kept: list[bytes] = []  # lines of the document so far
    start, size, problem = 0, 0, ""
    for line in lines:
        if line.problem in ("truncated", "unreadable"):
            yield SetAside(start or line.number, line.problem, excerpt(b"\n".join([*kept, line.data])))
            return
        if not line.problem and not line.data.strip():
            if start:
                yield _paragraph(start, kept, problem)
            start, kept, size, problem = 0, [], 0, ""
            continue
        start = start or line.number
        size += len(line.data) + 1
        problem = "oversized" if line.problem or size > max_bytes + 1 else problem
        if not problem or not kept:
            kept.append(line.data)
    if start:
        yield _paragraph(start, kept, problem)


def _paragraph(line: int, kept: list[bytes], problem: str) -> Record:
    data = b"\n".join(kept).removeprefix(b"\xef\xbb\xbf")
    if problem:
        return SetAside(line, problem, excerpt(data))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return SetAside(line, "bad_utf8", excerpt(data))
    return Raw(line, text) if text.strip() else SetAside(line, "no_text", excerpt(data))


# --- Parquet --------------------------------------------------------------------------------------------------------------------

def _parquet(source: str, config: SourceConfig, path: Path, max_bytes: int, on_read: Callable[[int], None]) -> Iterator[Record]:
    fields = _Fields(config)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        yield SetAside(1, "unreadable", excerpt(str(error)))
        return
    with file:
        names = file.schema_arrow.names
        if not {".".join(fields.text), fields.text[0]} & set(names):
            raise UserError(f"data.sources.{source}.text_field: {path.name} has no column {config.text_field!r}", did_you_mean(config.text_field, names))
        columns, row, size = sorted(fields.columns() & set(names)), 1, path.stat().st_size
        groups = file.metadata.num_row_groups
        for group in range(groups):
            rows = file.metadata.row_group(group).num_rows
            done = 0
            try:
                for batch in file.iter_batches(batch_size=ROWS, row_groups=[group], columns=columns):
                    for number, record in enumerate(_rows(batch), start=row + done):
                        yield _parquet_row(fields, number, record, max_bytes)
                    done += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                yield SetAside(row + done, "unreadable", excerpt(str(error)), records=rows - done)
            row += rows
            on_read(size * (group + 1) // groups - size * group // groups)


def _parquet_row(fields: _Fields, number: int, record: dict[str, Any] | bytes, max_bytes: int) -> Record:
    if isinstance(record, bytes):
        return SetAside(number, "bad_utf8", excerpt(record))
    raw = fields.raw(number, record)
    if raw is None:
        return SetAside(number, "no_text", excerpt(str({name: value for name, value in record.items() if value is not None})))
    if len(raw.text) > max_bytes // 4 and len(raw.text.encode()) > max_bytes:
        return SetAside(number, "oversized", excerpt(raw.text[: EXCERPT * 4]))
    return raw


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | bytes]:
    """The rows as mappings; a row with undecodable text as the bytes of that text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            yield _row(batch.slice(i, 1))


def _row(row: pa.RecordBatch) -> dict[str, Any] | bytes:
    try:
        found: dict[str, Any] = row.to_pylist()[0]
        return found
    except UnicodeDecodeError:
        for column in row.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                data = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())[0].as_py()
                if data is not None and not _is_utf8(data):
                    return bytes(data)
        return b""
