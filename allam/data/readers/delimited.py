"""CSV and TSV with a row of names at the top; a quoted cell may hold separators, quotes (doubled) and line breaks.

One stray quote can make a whole file look like a single cell. So a faulty row that spans several lines costs its first line alone, and reading goes
on with the second; that is done for a bounded number of bytes, since a hostile file could ask for it at each line.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from allam.data.archives import Line
from allam.data.config import SourceConfig
from allam.data.readers.records import Fields, Record, SetAside, excerpt
from allam.errors import UserError, did_you_mean

REREAD = 8  # times the largest document: what may be read a second time in one file


def read(source: str, config: SourceConfig, name: str, lines: Iterator[Line], max_bytes: int, separator: str) -> Iterator[Record]:
    """A record a row; raises `UserError` where no column holds the text."""
    rows = _Rows(lines, max_bytes, separator)
    header = next(rows, None)
    if header is None:
        return
    if isinstance(header, SetAside):
        yield header
        yield from (row for row in rows if isinstance(row, SetAside) and row.reason != "bad_row")
        return
    names = [cell.strip() for cell in header[1]]
    if config.text_field not in names:
        raise UserError(f"data.sources.{source}.text_field: {name} has no column {config.text_field!r}", did_you_mean(config.text_field, names))
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
        self.cells = 0
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
            return self._faulty("oversized" if feed.is_full else "bad_row")
        if self.cells and len(cells) != self.cells:
            return self._faulty("bad_row")
        return SetAside(line.number, "bad_utf8", excerpt(line.data)) if feed.is_undecodable else (line.number, cells)

    def _faulty(self, reason: str) -> SetAside:
        first, *rest = self._feed.taken
        size = sum(len(line.data) for line in rest)
        if size <= self._credit:
            self._credit -= size
            self._feed.read_again(rest)
        return SetAside(first.number, reason, excerpt(first.data))


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
