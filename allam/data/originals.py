"""The English sources of translations, found by id: the wanted texts of each shard compressed in one file, and a sorted index over all.

Pairs are joined in linear time whatever the order of either side, and in memory that grows neither with the texts nor with their number: what is sorted is
first distributed over parts by value, which put one after another are the sorted whole; the index (32 bytes a wanted original) and the files are mapped,
not read.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from allam.data.signatures import ROWS_AT_ONCE, Parts, Signatures, save_array, signatures, sorted_set
from allam.data.tables import read_tables, unique_temporary
from allam.data.tasks import Meter

_WANTED, _INDEX, _IDS = "wanted", "originals.index", "originals.ids"


def want(work: Path, links: Sequence[Path]) -> None:
    """Writes down which originals the translations name; `links` are arrays of signatures of their ids, shape (rows, 2)."""
    count = _parts_for(sum(len(np.load(path, mmap_mode="r")) for path in links))
    parts = _new_parts(work / "wanted_parts", count, np.dtype("<u8"))
    for path in links:
        ids = np.load(path, mmap_mode="r")[:, 0]
        for first in range(0, len(ids), ROWS_AT_ONCE):
            some = np.array(ids[first: first + ROWS_AT_ONCE])
            parts.add(_part_of(some, count), some)
    _join(work / _WANTED, parts, sorted_set)


def _parts_for(rows: int) -> int:
    return max(1, math.ceil(rows / ROWS_AT_ONCE))


def _new_parts(folder: Path, count: int, dtype: np.dtype[Any]) -> Parts:
    shutil.rmtree(folder, ignore_errors=True)  # of a stage that was killed
    return Parts(folder, count, dtype)


def _part_of(ids: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.uint64]:
    """The part of each first half of a signature: a higher one for a larger value."""
    return ((ids >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)


def _join(path: Path, parts: Parts, in_order: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    """Writes the parts' rows one after another, each part put in order."""
    temporary = unique_temporary(path)
    with open(temporary, "wb") as file:
        for part in range(parts.count):
            blocks = list(parts.blocks(part))  # of one value there are few rows, so that a part is hardly more than a block
            if blocks:
                in_order(np.concatenate(blocks)).tofile(file)
            parts.remove(part)
    temporary.replace(path)


def _mapped(path: Path, width: int) -> npt.NDArray[np.uint64]:
    """A file that `_join` wrote, shape (rows, width)."""
    rows = np.memmap(path, np.uint64, mode="r") if path.stat().st_size else np.empty(0, np.uint64)
    return rows.reshape(-1, width)


def gather(work: Path, shards: Sequence[tuple[str, Path]], task: int, meter: Meter) -> None:
    """One shard's wanted originals: their texts one after another, and where each begins: shape (wanted + 1, 2): signature, offset."""
    wanted, path = _mapped(work / _WANTED, 1)[:, 0], _path(work, task, "texts")
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
    """Joins the shards' places to one table that is sorted by signature: shape (wanted, 4): signature, shard, begin, end. Its first column is a file, too."""
    count = _parts_for(sum(len(np.load(_path(work, shard, "npy"), mmap_mode="r")) - 1 for shard in range(shards)))
    parts = _new_parts(work / "index_parts", count, np.dtype(("<u8", (4,))))
    for shard in range(shards):
        rows = np.load(_path(work, shard, "npy"))
        found = np.column_stack([rows[:-1, 0], np.full(len(rows) - 1, shard, np.uint64), rows[:-1, 1], rows[1:, 1]])
        parts.add(_part_of(found[:, 0], count), found)
    _join(work / _INDEX, parts, lambda table: table[np.argsort(table[:, 0], kind="stable")])
    temporary = unique_temporary(work / _IDS)
    with open(work / _INDEX, "rb") as table, open(temporary, "wb") as file:
        while len(rows := np.fromfile(table, np.uint64, 4 * ROWS_AT_ONCE)):
            rows[::4].tofile(file)
    temporary.replace(work / _IDS)


class Originals:
    """Looks up the gathered originals."""

    def __init__(self, work: Path) -> None:
        self._work, self._table, self._ids = work, _mapped(work / _INDEX, 4), _mapped(work / _IDS, 1)[:, 0]
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
