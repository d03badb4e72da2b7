"""The English sources of translations, found by id: the wanted texts of each shard compressed in one file, and a sorted index over all.

Pairs are joined in linear time whatever the order of either side, and in memory that doesn't grow with the texts: the index (24 bytes a wanted
original) and the files are mapped, not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from allam.data.signatures import Signatures, save_array, signatures
from allam.data.tables import read_tables, unique_temporary
from allam.data.tasks import Meter

_WANTED, _INDEX = "wanted.npy", "originals.npy"


def want(work: Path, links: Sequence[Path]) -> None:
    """Writes down which originals the translations name; `links` are arrays of signatures of their ids, shape (rows, 2)."""
    first_halves = [np.load(path, mmap_mode="r")[:, 0] for path in links]
    save_array(work / _WANTED, np.unique(np.concatenate([np.empty(0, np.uint64), *first_halves])))


def gather(work: Path, shards: Sequence[tuple[str, Path]], task: int, meter: Meter) -> None:
    """One shard's wanted originals: their texts one after another, and where each begins: shape (wanted + 1, 2): signature, offset."""
    wanted, path = np.load(work / _WANTED, mmap_mode="r"), _path(work, task, "texts")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, packer, rows, offset = unique_temporary(path), zstandard.ZstdCompressor(level=1), list[tuple[int, int]](), 0
    with open(temporary, "wb") as file:
        for table in read_tables(shards[task][1], ["id", "text"]):
            ids = signatures(table["id"].to_pylist())[:, 0]
            is_wanted = wanted[np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)] == ids if len(wanted) else np.zeros(len(ids), bool)
            for row in np.flatnonzero(is_wanted).tolist():
                rows.append((int(ids[row]), offset))
                offset += file.write(packer.compress(table["text"][row].as_py().encode()))
            meter.add(table.num_rows)
    temporary.replace(path)
    save_array(_path(work, task, "npy"), np.array([*rows, (0, offset)], dtype=np.uint64))


def index(work: Path, shards: int) -> None:
    """Joins the shards' places to one table that is sorted by signature: shape (wanted, 4): signature, shard, begin, end."""
    found = [np.empty((0, 4), np.uint64)]
    for shard in range(shards):
        rows = np.load(_path(work, shard, "npy"))
        found.append(np.column_stack([rows[:-1, 0], np.full(len(rows) - 1, shard, np.uint64), rows[:-1, 1], rows[1:, 1]]))
    table = np.concatenate(found)
    save_array(work / _INDEX, table[np.argsort(table[:, 0], kind="stable")])


class Originals:
    """Looks up the gathered originals."""

    def __init__(self, work: Path) -> None:
        self._work, self._table = work, np.load(work / _INDEX, mmap_mode="r")
        self._ids = np.ascontiguousarray(self._table[:, 0])
        self._texts: dict[int, npt.NDArray[np.uint8]] = {}
        self._unpacker = zstandard.ZstdDecompressor()

    def find(self, ids: Signatures) -> Iterator[str | None]:
        """The texts of the originals with these signatures (shape (n, 2)), None where there is none."""
        if not len(self._ids):
            yield from [None] * len(ids)
            return
        at = np.minimum(np.searchsorted(self._ids, ids[:, 0]), len(self._ids) - 1)
        found = (self._ids[at] == ids[:, 0]) & ids.any(axis=1)
        for row, is_there in zip(at.tolist(), found.tolist(), strict=True):
            yield self._text(row) if is_there else None

    def _text(self, row: int) -> str:
        _, shard, begin, end = (int(value) for value in self._table[row])
        if shard not in self._texts:
            self._texts[shard] = np.memmap(_path(self._work, shard, "texts"), dtype=np.uint8, mode="r")
        return self._unpacker.decompress(self._texts[shard][begin:end].tobytes()).decode()


def _path(work: Path, shard: int, ending: str) -> Path:
    return work / "originals" / f"{shard:05d}.{ending}"
