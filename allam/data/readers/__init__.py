"""Raw files to documents, or to the reason why a record is set aside: one module a format, `read_records` for all of them.

docs/data.md has the table of formats: their endings, what becomes of ids, URLs, titles and dates, and the reasons. Memory is bounded by
`max_bytes` (a document's) whatever a file holds, and of what is wrong with a file's content nothing
but an archive's failing checksum, which puts in doubt what was given before, is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from allam.data.archives import COMPRESSED, Content, read_lines
from allam.data.config import SourceConfig
from allam.data.readers.records import LEFT_OUT, Raw, Record, SetAside
from allam.errors import UserError
from allam.remote import Place

__all__ = ["LEFT_OUT", "ONE_DOCUMENT_A_FILE", "Raw", "Record", "SetAside", "file_format", "read_records"]

ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".txt": "text", ".text": "text",
           ".md": "markdown", ".markdown": "markdown", ".warc": "warc", ".wet": "warc", ".xml": "mediawiki", ".srt": "srt", ".vtt": "vtt"}
ONE_DOCUMENT_A_FILE = frozenset({"whole_text", "markdown", "srt", "vtt"})


def file_format(source: str, config: SourceConfig, path: str) -> str:
    """The format of a file; raises `UserError` where neither the recipe nor the file's name says it."""
    if config.format != "auto":
        return config.format
    name = PurePosixPath(path.split("?")[0] if "://" in path else path)
    ending = PurePosixPath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    if ending not in ENDINGS:
        formats = sorted({*ENDINGS.values(), *ONE_DOCUMENT_A_FILE})
        raise UserError(f"data.sources.{source}.path: the ending of {path} names no known format",
                        f"set data.sources.{source}.format to one of {', '.join(formats)}; known endings: {', '.join(ENDINGS)} (and {', '.join(COMPRESSED)})")
    return ENDINGS[ending]


def read_records(source: str, config: SourceConfig, place: Place, max_bytes: int, on_read: Callable[[int], None],
                 trusted: int | None = None) -> Iterator[Record]:
    """All records of one file, in order; `on_read` gets the number of bytes as they are read from it.

    Raises `BadChecksumError` where an archive's checksum fails; its `trusted` then gives what stands before the member that fails.

    The modules are imported where they are needed: extraction of web pages takes half a second to import.
    """
    content = Content(place, on_read, trusted)
    match file_format(source, config, place.name):
        case "jsonl":
            from allam.data.readers import json_lines

            yield from json_lines.read(config, read_lines(content, max_bytes))
        case "parquet":
            from allam.data.readers import parquet

            yield from parquet.read(config, place, max_bytes, on_read)
        case "csv" | "tsv" as kind:
            from allam.data.readers import delimited

            yield from delimited.read(config, read_lines(content, max_bytes), max_bytes, "," if kind == "csv" else "\t")
        case "text":
            from allam.data.readers import text

            yield from text.read_paragraphs(read_lines(content, max_bytes), max_bytes)
        case "whole_text":
            from allam.data.readers import text

            yield text.read_whole(content, max_bytes)
        case "markdown":
            from allam.data.readers import markdown

            yield markdown.read(config, content, max_bytes)
        case "warc":
            from allam.data.readers import warc

            yield from warc.read(config, content, max_bytes)
        case "mediawiki":
            from allam.data.readers import mediawiki

            yield from mediawiki.read(config, content, max_bytes)
        case _:
            from allam.data.readers import transcripts

            yield from transcripts.read(content, max_bytes)
