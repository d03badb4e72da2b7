"""CSV and TSV with a row of names at the top; a quoted cell may hold separators, quotes (doubled) and line breaks.

A row that is well-formed but has another number of cells than there are names is one record, however many lines its cells span: no line of theirs may
pass for a row. One stray quote, though, can make a whole file look like a single cell. So where a quote isn't closed as it should be, what followed
decides: if most of the lines are rows by themselves, the first line alone is lost and reading goes on with the second; if not, they were a cell. That
is done for a bounded number of bytes, since a hostile file could ask for it at each row.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from allam.data.archives import Line
from allam.data.config import SourceConfig
from allam.data.readers.records import NO_COLUMN, Fields, Record, SetAside, excerpt

REREAD = 8  # times the largest document: what may be read a second time in one file


def read(config: SourceConfig, lines: Iterator[Line], max_bytes: int, separator: str) -> Iterator[Record]:
    """A record a row; none of them a document where no column holds the text."""
    rows = _Rows(lines, max_bytes, separator)
    header = next(rows, None)
    if header is None:
        return
    names = [] if isinstance(header, SetAside) else [cell.strip() for cell in header[1]]
    if not isinstance(header, SetAside) and config.text_field not in names:
        header = SetAside(1, NO_COLUMN, excerpt(", ".join(names)), records=0)
    if isinstance(header, SetAside):  # nobody knows what the rows below are: none is a document, and each is counted
        for row in rows:
            if isinstance(row, SetAside) and row.reason != "bad_row":
                yield row
            else:
                header.records += 1
        header.records = max(1, header.records)
        yield header
        return
    fields, rows.cells = Fields(config), len(names)
    for row in rows:
        if isinstance(row, SetAside):
            yield row
            continue
        line, cells = row
        yield fields.raw(line, dict(zip(names, cells, strict=True))) or SetAside(line, "no_text", excerpt(separator.join(cells)))


class _Rows:
    """Rows as (line of their beginning, cells), or what is wrong with them. `cells` is how many there must be, once that is known."""

    def __init__(self, lines: Iterator[Line], max_bytes: int, separator: str) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # the library's limit for the process; the bound is kept by the feed
        self.cells, self._separator = 0, separator
        self._feed, self._credit = _Feed(lines, max_bytes), REREAD * max_bytes
        self._parser = csv.reader(self._feed, delimiter=separator, strict=True)

    def __iter__(self) -> Iterator[tuple[int, list[str]] | SetAside]:
        return self

    def __next__(self) -> tuple[int, list[str]] | SetAside:
        feed = self._feed
        line = feed.start_row()
        if line.problem:
            return SetAside(line.number, line.problem, excerpt(line.data))
        try:
            cells = next(self._parser)
        except (csv.Error, StopIteration):  # the latter would end the file, but only the row ended
            return self._not_closed("oversized" if feed.is_full else "bad_row")
        if self.cells and len(cells) != self.cells:
            return SetAside(line.number, "bad_row", excerpt(line.data))
        return SetAside(line.number, "bad_utf8", excerpt(line.data)) if feed.is_undecodable else (line.number, cells)

    def _not_closed(self, reason: str) -> SetAside:
        """The row at a quote that is closed nowhere, or where no cell ends."""
        first, *rest = self._feed.taken
        if 2 * sum(map(self._is_row, rest)) >= len(rest):
            size = sum(len(line.data) for line in rest)
            if size <= self._credit:
                self._credit -= size
                self._feed.read_again(rest)
        elif reason == "oversized":
            self._feed.skip_cell()
        return SetAside(first.number, reason, excerpt(first.data))

    def _is_row(self, line: Line) -> bool:
        """Whether a line is a row by itself."""
        try:
            cells = len(next(csv.reader([line.data.decode(errors="replace")], delimiter=self._separator, strict=True), []))
            return cells == (self.cells or cells)
        except csv.Error:
            return False


class _Feed:
    """Hands lines to the parser of the standard library and remembers those of the present row; a row ends at the largest document's size."""

    def __init__(self, lines: Iterator[Line], max_bytes: int) -> None:
        self.taken: list[Line] = []
        self.is_undecodable = self.is_full = False
        self._lines, self._max_bytes = lines, max_bytes
        self._waiting: deque[Line] = deque()  # lines to be read, or read again, before the rest
        self._size = 0

    def start_row(self) -> Line:
        """The first line of the next row; one with a problem is taken by this. Raises `StopIteration` at the end of the file."""
        self.taken, self._size, self.is_undecodable, self.is_full = [], 0, False, False
        while True:
            line = self._waiting.popleft() if self._waiting else next(self._lines)
            if line.number == 1:
                line = Line(1, line.data.removeprefix(b"\xef\xbb\xbf"), line.problem)
            if line.problem or line.data.strip():
                break
        if not line.problem:
            self._waiting.appendleft(line)
        return line

    def read_again(self, lines: list[Line]) -> None:
        """Puts lines back before those that were not read yet."""
        self._waiting.extendleft(reversed(lines))

    def skip_cell(self) -> None:
        """Goes on behind the line that closes the open quote."""
        while line := self._waiting.popleft() if self._waiting else next(self._lines, None):
            if line.problem and line.problem != "oversized":
                self._waiting.appendleft(line)
                return
            if not line.problem and line.data.count(b'"') % 2:
                return

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self._size += len(line.data) + 1
        self.is_full = self._size > self._max_bytes + 1
        if line.problem or self.is_full:
            self._waiting.appendleft(line)
            raise StopIteration
        self.taken.append(line)
        try:
            return line.data.decode() + "\n"
        except UnicodeDecodeError:
            self.is_undecodable = True
            return line.data.decode(errors="surrogateescape") + "\n"
