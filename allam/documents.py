"""The one schema of documents, and its Parquet files: what every stage from ingest to packing reads and writes.

A folder of documents holds `<source>/<shard>.parquet` (zstd), one sub-folder a source of the recipe, shards numbered from 00000. A document
keeps its id, source, licence, the place where it was read and, where it is a translation, the id of its English original to the very end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from allam.section import DomainName

Language = Literal["en", "ar"]
Kind = Literal["natural", "translated"]
Domain = DomainName
DOMAINS: tuple[Domain, ...] = get_args(DomainName)

ROWS_PER_GROUP = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `translation_of` is the id of the English original (None for natural text).

    `file` (its path below the data root) and `line` (from 1; the row of a Parquet file) say where it was read.
    """

    id: str
    text: str
    source: str
    language: Language
    domain: Domain
    kind: Kind
    url: str | None = None
    title: str | None = None
    date: str | None = None
    licence: str | None = None
    translation_of: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def root_id(self) -> str:
        """The id that a document shares with its translations: splits are made by it, so that a pair never straddles one."""
        return self.translation_of or self.id

    @property
    def component(self) -> str:
        """Language and kind as the mix names them: `en`, `ar` or `ar_translated` (the columns of Table 1)."""
        return self.language if self.kind == "natural" else f"{self.language}_translated"


_NULLABLE = ("url", "title", "date", "licence", "translation_of", "file", "line")
SCHEMA = pa.schema([pa.field(name, pa.int64() if name == "line" else pa.string(), nullable=name in _NULLABLE) for name in Document.__dataclass_fields__])


def shard_path(folder: Path, source: str, shard: int) -> Path:
    """Where shard number `shard` of `source` lies below a folder of documents."""
    return folder / source / f"{shard:05d}.parquet"


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Writes one shard atomically and deterministically (same documents, same bytes); returns the number of documents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    count, rows = 0, []
    with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for document in documents:
            rows.append(asdict(document))
            count += 1
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows = []
        if rows or not count:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    temporary.replace(path)
    return count


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of one shard, in order, in bounded memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            for row in batch.to_pylist():
                yield Document(**row)


def shards(folder: Path) -> list[Path]:
    """All shards below a folder of documents, ordered by source and number."""
    return sorted(folder.glob("*/*.parquet"))


def read_documents(*folders: Path) -> Iterator[Document]:
    """All documents of the folders, in the order of `shards`."""
    for folder in folders:
        for path in shards(folder):
            yield from read_shard(path)


def is_held_out(root_id: str, share: float, seed: int) -> bool:
    """Whether the document (and its translations: pass `Document.root_id`) belongs to the held-out split.

    A pure function of the id: adding documents never moves one from one side to the other.
    """
    digest = hashlib.blake2b(f"{seed}:{root_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
