"""WARC and WET: pages of a crawl. Responses give their main text, conversions (WET) their text as it is.

Records are cut out of the file here and read by fastwarc one at a time: so a damaged record costs itself alone, however large it says that it is,
and reading goes on at the next one. Requests, metadata, revisits and the like are no documents and no faults, and aren't counted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastwarc.warc import ArchiveIterator, WarcRecordType

from allam.data.archives import Content
from allam.data.config import SourceConfig
from allam.data.readers.records import LeftOut, Raw, Record, SetAside, excerpt, is_utf8
from allam.data.readers.web_pages import MAX_PAGE, decode, extract

MAX_HEADER = 1 << 16  # bytes
HTML = ("text/html", "application/xhtml+xml")
_START = re.compile(rb"WARC/[01]\.\d+\r?\n")
_NEXT = re.compile(rb"\nWARC/[01]\.\d+\r?\n")
_BREAKS = re.compile(rb"[\r\n]+")
_GAP = re.compile(rb"\r?\n|$")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^warc-type:[ \t]*([a-z]+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DOCUMENTS = (b"response", b"resource", b"conversion")


def read(config: SourceConfig, content: Content, max_bytes: int) -> Iterator[Record]:
    """The documents of a file; a document's line is the number of its record."""
    left_out = LeftOut()
    for frame in _frames(content, max_bytes):
        if isinstance(frame, SetAside):
            yield frame
            continue
        record = _document(config, frame, max_bytes)
        if isinstance(record, _NoDocument):
            left_out.add(frame.number, record.reason, record.shown)
        else:
            yield record
    yield from left_out.records()


# --- a record -------------------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class _Frame:
    """One whole record as it stands in the file, header and block."""

    number: int
    data: bytes


@dataclass(slots=True)
class _NoDocument:
    reason: str  # one of records.LEFT_OUT
    shown: str


def _document(config: SourceConfig, frame: _Frame, max_bytes: int) -> Record | _NoDocument:
    try:
        record = next(iter(ArchiveIterator(io.BytesIO(frame.data), parse_http=True, auto_decode="all", stream_detect=False, max_header_len=MAX_HEADER)))
        is_text = record.record_type == WarcRecordType.conversion
        limit = max_bytes if is_text else min(max_bytes, MAX_PAGE)
        status = record.http_headers.status_code if record.http_headers is not None else 200
        kind = (record.http_content_type if record.http_headers is not None else (record.headers.get("Content-Type") or "").split(";")[0]) or ""
        url, date = (record.headers.get("WARC-Target-URI") or "").strip("<> ") or None, _DAY.match(record.headers.get("WARC-Date") or "")
        charset = record.http_charset
        if not is_text and (status != 200 or kind.strip().lower() not in HTML):
            return _NoDocument("fetch_failed" if status != 200 else "not_html", f"{status} {kind} {url}")
        block: bytes = record.reader.read(limit + 1)
    except (OSError, ValueError, StopIteration, AttributeError) as error:
        return SetAside(frame.number, "bad_warc", excerpt(f"{error}: ".encode() + frame.data))
    if len(block) > limit:
        return SetAside(frame.number, "oversized", excerpt(f"{url}"))
    name = record.record_id.removeprefix("<").removesuffix(">").removeprefix("urn:uuid:") if record.record_id else ""
    found = Raw(frame.number, "", id=config.id_prefix + name if name else None, url=url, date=date and date[0])
    return _plain(found, block) if is_text else _page(found, block, charset)


def _plain(found: Raw, block: bytes) -> Record:
    if not is_utf8(block):
        return SetAside(found.line, "bad_utf8", excerpt(block))
    found.text = block.decode().strip("\r\n")
    return found if found.text.strip() else SetAside(found.line, "no_text", f"{found.url}")


def _page(found: Raw, block: bytes, charset: str | None) -> Record | _NoDocument:
    text = decode(block, charset)
    if text is None:
        return SetAside(found.line, "bad_utf8", excerpt(f"{found.url} {charset or ''}"))
    page = extract(text, found.url, found.date or "2100-01-01")
    if page is None:
        return _NoDocument("no_main_text", f"{found.url}")
    found.text, found.title, found.date = page.text, page.title, page.date or found.date
    return found


# --- records out of the file ----------------------------------------------------------------------------------------------------

class _Stream:
    """The file's content as a window: `data` holds at least what was asked for by `need`, unless the file ends before."""

    def __init__(self, content: Content) -> None:
        self.data = bytearray()
        self._chunks = iter(content)

    def need(self, size: int) -> bool:
        """Fills the window to `size` bytes; False where the file ends before."""
        while len(self.data) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self.data += chunk
        return True

    def ends_at(self, size: int) -> bool:
        """Whether a record of that size ends the file, as far as `need` could fill the window."""
        return len(self.data) >= size

    def to_next_line(self) -> bool:
        """Leaves out line breaks; False at the file's end."""
        while self.need(1):
            end = _BREAKS.match(self.data)
            if end is None:
                return True
            del self.data[: end.end()]
        return False

    def to_next_record(self) -> bool:
        """Goes on to the next beginning of a record after the one at the window's beginning; False where there is none."""
        while (found := _NEXT.search(self.data)) is None:
            del self.data[: max(0, len(self.data) - 16)]
            if not self.need(len(self.data) + 1):
                return False
        del self.data[: found.start() + 1]
        return True

    def skip(self, size: int) -> bool:
        """Goes on by `size` bytes without keeping them; False where the file ends before."""
        while len(self.data) < size:
            size -= len(self.data)
            self.data.clear()
            if not self.need(1):
                return False
        del self.data[:size]
        return True


def _frames(content: Content, max_bytes: int) -> Iterator[_Frame | SetAside]:
    """The records that may be documents, and one `SetAside` for each damaged stretch."""
    stream, number = _Stream(content), 0
    while stream.to_next_line():
        number += 1
        stream.need(MAX_HEADER)
        size, wanted = _measure(stream.data)
        if size is None:
            yield SetAside(number, "bad_warc", excerpt(bytes(stream.data[:800])))
            if not stream.to_next_record():
                break
        elif size > max_bytes + MAX_HEADER:
            shown = excerpt(bytes(stream.data[:800]))
            if not stream.skip(size):
                yield SetAside(number, content.problem or "truncated", shown)
                return
            if wanted:
                yield SetAside(number, "oversized", shown)
        elif stream.need(size + 4) or stream.ends_at(size):
            if _GAP.match(stream.data, size) is None:  # the length is wrong
                yield SetAside(number, "bad_warc", excerpt(bytes(stream.data[:800])))
                if not stream.to_next_record():
                    break
                continue
            if wanted:
                yield _Frame(number, bytes(stream.data[:size]))
            del stream.data[:size]
        else:  # the file ends before the record does, or the length is wrong
            shown = excerpt(bytes(stream.data[:800]))
            if not stream.to_next_record():
                yield SetAside(number, content.problem or "truncated", shown)
                return
            yield SetAside(number, "bad_warc", shown)
    if content.problem:
        yield SetAside(number + 1, content.problem, "")


def _measure(data: bytearray) -> tuple[int | None, bool]:
    """The size of the record at the window's beginning, header and block, and whether it may be a document; None where there is no such record."""
    end = _HEADER_END.search(data, 0, MAX_HEADER)
    if _START.match(data) is None or end is None:
        return None, False
    length, kind = _LENGTH.search(data, 0, end.end()), _TYPE.search(data, 0, end.end())
    return (None if length is None else end.end() + int(length[1])), kind is not None and kind[1].lower() in _DOCUMENTS
