"""Plain text: paragraphs as documents, or the whole file as one."""

from __future__ import annotations

from collections.abc import Iterator

from allam.data.archives import Content, Line
from allam.data.readers.records import Raw, Record, SetAside, excerpt

BOM = b"\xef\xbb\xbf"


def read_paragraphs(lines: Iterator[Line], max_bytes: int) -> Iterator[Record]:
    """Documents separated by blank lines; a document's line is its first."""
    kept: list[bytes] = []  # lines of the document so far
    start, size, problem = 0, 0, ""
    for line in lines:
        if line.problem and line.problem != "oversized":
            yield SetAside(start or line.number, line.problem, excerpt(b"\n".join([*kept, line.data])))
            return
        if not line.problem and not line.data.strip():
            if start:
                yield _document(start, b"\n".join(kept), problem)
            start, kept, size, problem = 0, [], 0, ""
            continue
        start = start or line.number
        size += len(line.data) + 1
        problem = "oversized" if line.problem or size > max_bytes + 1 else problem
        if not problem or not kept:
            kept.append(line.data)
    if start:
        yield _document(start, b"\n".join(kept), problem)


def _document(line: int, data: bytes, problem: str) -> Record:
    data = data.removeprefix(BOM)
    if problem:
        return SetAside(line, problem, excerpt(data))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return SetAside(line, "bad_utf8", excerpt(data))
    return Raw(line, text) if text.strip() else SetAside(line, "no_text", excerpt(data))


def read_whole(content: Content, max_bytes: int) -> Record:
    """The file's text as one document; nothing beyond `max_bytes` is read."""
    pieces, size = [], 0
    for chunk in content:
        pieces.append(chunk)
        size += len(chunk)
        if size > max_bytes + len(BOM):
            break
    data = b"".join(pieces)
    problem = content.problem or ("oversized" if len(data.removeprefix(BOM)) > max_bytes else "")
    return _document(1, data, problem)
