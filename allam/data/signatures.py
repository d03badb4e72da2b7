"""128-bit signatures of ids, URLs and texts, and the rows whose signature another row has, found on disk in bounded memory.

A file of signatures is an array of shape (rows, 2), uint64, or (rows, 3) with a rank: of the rows that share a signature the one of the highest
rank counts as the original, the first of those that have it. The row (0, 0) means that there is nothing to compare. Two different texts share
a signature with a probability of about 1e-20 in a corpus of a billion documents.

The rows are first distributed over parts by their signature, so that equal ones meet, then what was found is distributed by row, so that it
comes out in the corpus's order. Each part is worked through in blocks, so that a text that stands a billion times costs no more memory either.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.data.tables import unique_temporary

Signatures = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Records = npt.NDArray[Any]  # of the type _RECORD
ROWS_AT_ONCE = 2_000_000  # in memory together: about 300 MB
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("rank", "<u8"), ("row", "<i8")])


def signatures(values: Iterable[str | None]) -> Signatures:
    """Shape (rows, 2); None and the empty string give (0, 0)."""
    blake2b = hashlib.blake2b
    data = b"".join(blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest() if value else bytes(16) for value in values)
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def sorted_set(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What np.unique gives; where nothing else is asked that hashes the values, which takes 25 times as long as to sort them (NumPy 2.4)."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return values[first]


def save_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Writes an array whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(path)
    with open(temporary, "wb") as file:
        np.save(file, array)
    temporary.replace(path)


class Repeats:
    """The rows of all files of signatures that repeat another row; rows are numbered over all files, in order.

    `left_out(i)` may give a mask of the rows of file i that neither are repeats nor have any. `work` is a folder for this alone.
    """

    def __init__(self, paths: Sequence[Path], work: Path, left_out: Callable[[int], Mask | None] = lambda _: None) -> None:
        self.starts = np.cumsum([0, *(len(np.load(path, mmap_mode="r")) for path in paths)])
        self._pairs = work / "pairs"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        count = max(1, math.ceil(self.starts[-1] / ROWS_AT_ONCE))
        by_signature, by_row = Parts(work / "by_signature", count, _RECORD), Parts(work / "by_row", count, np.dtype(("<i8", (2,))))
        for i, path in enumerate(paths):
            _distribute(path, int(self.starts[i]), left_out(i), by_signature)
        for part in range(count):
            for pairs in _find(by_signature, part):
                by_row.add(pairs[:, 0] // ROWS_AT_ONCE, pairs)
            by_signature.remove(part)
        self._bounds = self._collect(by_row)

    def _collect(self, by_row: Parts) -> npt.NDArray[np.int64]:
        """Writes all pairs in the order of the rows; returns where those of each file begin, and the end."""
        bounds = np.zeros(len(self.starts), dtype=np.int64)
        with open(self._pairs, "wb") as file:
            for part in range(by_row.count):
                pairs = np.concatenate([np.empty((0, 2), np.int64), *by_row.blocks(part)])
                pairs = pairs[np.argsort(pairs[:, 0])]
                bounds += np.searchsorted(pairs[:, 0], self.starts)
                pairs.tofile(file)
                by_row.remove(part)
        return bounds

    def of(self, file: int) -> tuple[Rows, Rows]:
        """The repeats of one file: their rows in it, ascending, and for each the number of its original over all files."""
        first, end = int(self._bounds[file]), int(self._bounds[file + 1])
        pairs = np.fromfile(self._pairs, np.int64, 2 * (end - first), offset=16 * first).reshape(-1, 2)
        return pairs[:, 0] - self.starts[file], pairs[:, 1]

    def count(self, file: int) -> int:
        """Repeats in one file."""
        return int(self._bounds[file + 1] - self._bounds[file])

    def __len__(self) -> int:
        """Repeats in all files."""
        return int(self._bounds[-1])

    def mask(self, file: int) -> Mask:
        """For each row of a file, whether it is a repeat."""
        mask = np.zeros(int(self.starts[file + 1] - self.starts[file]), dtype=bool)
        mask[self.of(file)[0]] = True
        return mask


class Parts:
    """Rows on disk, distributed over numbered parts."""

    def __init__(self, folder: Path, count: int, dtype: np.dtype[Any]) -> None:
        folder.mkdir()
        self.folder, self.count, self.dtype = folder, count, dtype

    def add(self, numbers: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        """Adds each row to the part of its number."""
        order = np.argsort(numbers, kind="stable")
        numbers, rows = numbers[order], rows[order]
        present, begins = np.unique(numbers, return_index=True)
        for number, mine in zip(present.tolist(), np.split(rows, begins[1:]), strict=False):  # of no rows at all, np.split makes one piece
            with open(self.folder / f"{number:06d}", "ab") as file:
                mine.tofile(file)

    def blocks(self, part: int) -> Iterator[npt.NDArray[Any]]:
        """The rows of a part. One whose signatures are evenly spread is a single block, give or take; a common text makes more of them."""
        path = self.folder / f"{part:06d}"
        if not path.exists():
            return
        with open(path, "rb") as file:
            while len(block := np.fromfile(file, self.dtype, ROWS_AT_ONCE + ROWS_AT_ONCE // 8 + 1)):
                yield block

    def remove(self, part: int) -> None:
        """Frees the disk."""
        (self.folder / f"{part:06d}").unlink(missing_ok=True)


def _distribute(path: Path, start: int, left_out: Mask | None, parts: Parts) -> None:
    for first, block in _read_rows(path):
        takes_part = block[:, :2].any(axis=1)
        if left_out is not None:
            takes_part &= ~left_out[first: first + len(block)]
        index = np.flatnonzero(takes_part)
        records = np.empty(len(index), _RECORD)
        records["high"], records["low"] = block[index, 0], block[index, 1]
        records["rank"] = block[index, 2] if block.shape[1] > 2 else 0
        records["row"] = start + first + index
        parts.add(records["high"] % np.uint64(parts.count), records)


def _read_rows(path: Path) -> Iterator[tuple[int, Signatures]]:
    """Blocks of a saved array of two dimensions with the number of their first row; read, not mapped, so that memory stays what it is."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        (rows, width), _, dtype = np.lib.format.read_array_header_1_0(file)
        for first in range(0, rows, ROWS_AT_ONCE):
            yield first, np.fromfile(file, dtype, min(ROWS_AT_ONCE, rows - first) * width).reshape(-1, width)


def _find(parts: Parts, part: int) -> Iterator[npt.NDArray[np.int64]]:
    """(row, its original) for all repeats of a part."""
    shared = _shared(parts, part)
    if not len(shared):
        return
    best = np.empty(0, _RECORD)
    for block in parts.blocks(part):
        best = _best(np.concatenate([best, block[np.isin(block["high"], shared)]]))
    for block in parts.blocks(part):
        found = block[np.isin(block["high"], shared)]
        at = np.searchsorted(best["high"], found["high"])
        while (other := best["low"][at] != found["low"]).any():  # two signatures with the same first half
            at[other] += 1
        pairs = np.stack([found["row"], best["row"][at]], axis=1)
        yield pairs[pairs[:, 0] != pairs[:, 1]]


def _shared(parts: Parts, part: int) -> npt.NDArray[np.uint64]:
    """First halves of signatures that stand more than once in a part: few rows are left to be sorted in full."""
    seen = shared = np.empty(0, np.uint64)
    for block in parts.blocks(part):
        values, counts = np.unique(block["high"], return_counts=True)
        shared = sorted_set(np.concatenate([shared, values[counts > 1], np.intersect1d(seen, values, assume_unique=True)]))
        seen = sorted_set(np.concatenate([seen, values])) if len(seen) else values
    return shared


def _best(records: Records) -> Records:
    """For each signature the row of the highest rank, the first of several; in the order of signatures."""
    records = records[np.lexsort((records["row"], ~records["rank"], records["low"], records["high"]))]
    first = np.ones(len(records), dtype=bool)
    first[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
    return records[first]
