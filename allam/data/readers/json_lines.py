"""JSON Lines: one object a line.

datatrove's own JSONL reader logs and drops a bad line, and one undecodable byte ends the file unseen; hence this one.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from allam.data.archives import Line
from allam.data.config import SourceConfig
from allam.data.readers.records import Fields, Record, SetAside, excerpt, is_utf8


def read(config: SourceConfig, lines: Iterator[Line]) -> Iterator[Record]:
    """A record a line; blank lines are none."""
    fields = Fields(config)
    for line in lines:
        data = line.data.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.data
        if line.problem:
            yield SetAside(line.number, line.problem, excerpt(data))
        elif data.strip():
            yield _record(fields, line.number, data)


def _record(fields: Fields, number: int, data: bytes) -> Record:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return SetAside(number, "bad_json" if is_utf8(data) else "bad_utf8", excerpt(data))
    if not isinstance(value, dict):
        return SetAside(number, "bad_json", excerpt(data))
    return fields.raw(number, value) or SetAside(number, "no_text", excerpt(data))
