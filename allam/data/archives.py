"""Lines of plain, gzip, zstd and xz files in bounded memory, with everything that is wrong with the file said instead of raised.

An archive that was cut short gives all complete lines before the cut and then one `Line` whose problem is `truncated`; a damaged one ends
with `unreadable`; a line longer than the limit is skipped as `oversized`. So nothing is lost in silence, and the run goes on.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

BLOCK = 1 << 18  # bytes read from disk at once
CHUNK = 1 << 20  # bytes unpacked at once: an archive that unpacks to a thousand times its size costs no more memory than any other
ZSTD_BLOCK = 1 << 12  # its decompressor has no output limit: 4 kB of input unpack to 128 MB at the very worst
EXCERPT_BYTES = 800
COMPRESSED = (".gz", ".zst", ".xz")


class TruncatedError(Exception):
    """The archive ends in the middle."""


class UnreadableError(Exception):
    """The archive is damaged from here on."""


@dataclass(slots=True, frozen=True)
class Line:
    """One line without its line break (`problem` is empty), or what is left of one that can't be used."""

    number: int
    data: bytes
    problem: str = ""


def read_lines(path: Path, max_bytes: int, on_read: Callable[[int], None]) -> Iterator[Line]:
    """The lines of a file, numbered from 1; `on_read` gets the number of (compressed) bytes as they are read."""
    number, pending, size = 1, [], 0  # pending: pieces of a line that began in an earlier chunk; size counts all its bytes
    problem = ""
    chunks = _chunks(path, on_read)
    while True:
        try:
            chunk = next(chunks, None)
        except TruncatedError:
            problem, chunk = "truncated", None
        except (UnreadableError, OSError):
            problem, chunk = "unreadable", None
        if chunk is None:
            break
        first, *rest = chunk.split(b"\n")
        size += len(first)
        if size - len(first) <= max_bytes:
            pending.append(first[: max_bytes + 1])
        for piece in rest:
            yield _line(number, pending, size, max_bytes)
            number, pending, size = number + 1, [piece[: max_bytes + 1]], len(piece)
    if problem:
        yield Line(number, b"".join(pending)[:EXCERPT_BYTES], problem)
    elif size:
        yield _line(number, pending, size, max_bytes)


def _line(number: int, pending: list[bytes], size: int, max_bytes: int) -> Line:
    data = pending[0] if len(pending) == 1 else b"".join(pending)
    return Line(number, data) if size <= max_bytes else Line(number, data[:EXCERPT_BYTES], "oversized")


def _chunks(path: Path, on_read: Callable[[int], None]) -> Iterator[bytes]:
    """The unpacked content; raises `TruncatedError` or `UnreadableError` after all that could be had."""
    with open(path, "rb") as file:
        def read(size: int) -> bytes:
            data = file.read(size)
            on_read(len(data))
            return data

        match path.suffix:
            case ".gz":
                yield from _unpack(read, BLOCK, _Gzip)
            case ".xz":
                yield from _unpack(read, BLOCK, _Xz)
            case ".zst":
                yield from _unpack(read, ZSTD_BLOCK, _Zstd)
            case _:
                while data := read(CHUNK):
                    yield data


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._inner.decompress(data, CHUNK)
            data = self._inner.unconsumed_tail

    def rest(self) -> bytes:
        return self._inner.flush()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data


class _Xz:
    def __init__(self) -> None:
        self._inner = lzma.LZMADecompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._inner.decompress(data, CHUNK)
        while not self._inner.eof and not self._inner.needs_input:
            yield self._inner.decompress(b"", CHUNK)

    def rest(self) -> bytes:
        return b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._inner.decompress(data)

    def rest(self) -> bytes:
        return b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused(self) -> bytes:
        return bytes(self._inner.unused_data)


def _unpack(read: Callable[[int], bytes], block: int, make: Callable[[], Any]) -> Iterator[bytes]:
    """Goes through all members (frames, streams) of an archive; zeros between and after them are padding."""
    unpacker, complete = None, False
    try:
        while data := read(block):
            while data:
                if unpacker is None:
                    data = data.lstrip(b"\0") if complete else data
                    if not data:
                        break
                    unpacker = make()
                yield from filter(None, unpacker.feed(data))
                data = b""
                if unpacker.eof:
                    data, unpacker, complete = unpacker.unused, None, True
        if unpacker is not None and (rest := unpacker.rest()):
            yield rest
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
        raise UnreadableError(str(error)) from None
    if not complete or (unpacker is not None and not unpacker.eof):
        raise TruncatedError
