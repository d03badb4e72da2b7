"""The pairs of near duplicates, found on disk (allam/data/near_duplicates.py says what they are for).

One task a shard writes the rows' signatures and the hashes of their bands; then one task a band distributes its hashes over parts by value, so that equal
ones meet, sorts each part in blocks of 2 million rows, and compares the rows of equal hash with the best of them, then what is left with the best of the
rest, and so on: where a million documents are nearly one, a million are compared, and not each with each.
Only a hash that more than 2 million rows share is cut into blocks that don't meet in this band.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.data.config import DedupConfig
from allam.data.drops import Drops
from allam.data.minhash import HASHES, band_hashes, bands, minhash
from allam.data.signatures import ROWS_AT_ONCE, Parts, Rows, save_array
from allam.data.tables import read_tables, unique_temporary
from allam.data.tasks import Meter
from allam.text.forms import comparison_words

BEST_COMPARED = 100  # of the rows with one hash, so many that are unlike each other are compared with all others
PAIRS_AT_ONCE = 20_000  # compared together: 20 MB of signatures
BYTES_A_ROW = 4 * HASHES
_MEMBER = np.dtype([("band", "<u8"), ("rank", "<u8"), ("row", "<i8")])
Pairs = npt.NDArray[np.int64]  # of shape (pairs, 3): a row, a better one, how many of the 128 numbers they share
Members = npt.NDArray[Any]  # of the type _MEMBER


@dataclass(frozen=True)
class Search:
    """What the tasks know. Rows are numbered over all shards, as in `drops.starts`; `ranks` are files whose last column ranks a shard's rows."""

    config: DedupConfig
    drops: Drops
    ranks: list[Path]
    folder: Path

    def signatures(self, shard: int) -> Path:
        """128 numbers a row, without a head."""
        return self.folder / "signatures" / f"{shard:05d}"

    def bands(self, shard: int) -> Path:
        """An array of shape (bands, rows): the hashes of each band; 0: not compared."""
        return self.folder / "bands" / f"{shard:05d}.npy"

    def pairs(self, band: int) -> Path:
        """The pairs that a band found."""
        return self.folder / f"pairs-{band:03d}"

    @property
    def total(self) -> int:
        """Rows of all shards."""
        return int(self.drops.starts[-1])

    def shard_of(self, row: int) -> int:
        """The number of the shard that holds a row."""
        return int(np.searchsorted(self.drops.starts, row, side="right")) - 1


# --- signatures -------------------------------------------------------------------------------------------------------------------

def sign_shard(search: Search, task: int, meter: Meter) -> None:
    """The task of a shard: leaves its rows' signatures and the hashes of their bands."""
    path, config, row = search.signatures(task), search.config, 0
    dropped, found = search.drops.mask(task), [np.empty((0, bands(config.near_duplicate_similarity)[0]), np.uint64)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(path)
    with open(temporary, "wb") as file:
        for table in read_tables(search.drops.shards[task][1], ["text"]):
            numbers, compared = np.zeros((table.num_rows, HASHES), np.uint32), np.zeros((table.num_rows, 1), bool)
            for i, text in enumerate(table["text"].to_pylist()):
                if not dropped[row + i] and (words := comparison_words(text)):
                    numbers[i], compared[i] = minhash(words, config.near_duplicate_words), True
            numbers.tofile(file)
            found.append(np.where(compared, band_hashes(numbers, config.near_duplicate_similarity), np.uint64(0)))
            row += table.num_rows
            meter.add(table.num_rows)
    temporary.replace(path)
    save_array(search.bands(task), np.ascontiguousarray(np.concatenate(found).T))


class _Signatures:
    """Reads rows of the signatures from disk, not mapped, so that memory stays what it is."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def of(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """Shape (rows, 128)."""
        starts, found = self.search.drops.starts, np.empty((len(rows), HASHES), np.uint32)
        order = np.argsort(rows)
        shards, begins = np.unique(np.searchsorted(starts, rows[order], side="right") - 1, return_index=True)
        for shard, mine in zip(shards.tolist(), np.split(order, begins[1:]), strict=False):  # of no rows at all, np.split makes one piece
            with open(self.search.signatures(shard), "rb") as file:
                places = (BYTES_A_ROW * (rows[mine] - starts[shard])).tolist()
                found[mine] = np.frombuffer(b"".join(os.pread(file.fileno(), BYTES_A_ROW, at) for at in places), np.uint32).reshape(-1, HASHES)
        return found

    def shared(self, rows: Rows, others: Rows) -> npt.NDArray[np.int64]:
        """How many of the 128 numbers each row shares with the other."""
        found = np.empty(len(rows), np.int64)
        for i in range(0, len(rows), PAIRS_AT_ONCE):
            some = slice(i, i + PAIRS_AT_ONCE)
            found[some] = np.count_nonzero(self.of(rows[some]) == self.of(others[some]), axis=1)
        return found


# --- pairs ------------------------------------------------------------------------------------------------------------------------

def search_band(search: Search, task: int, meter: Meter) -> None:
    """The task of a band: leaves all its pairs of sufficient similarity."""
    work, signatures, final = search.folder / f"parts-{task:03d}", _Signatures(search), search.pairs(task)
    shutil.rmtree(work, ignore_errors=True)
    parts = Parts(work, max(1, math.ceil(search.total / ROWS_AT_ONCE)), _MEMBER)
    for shard, ranks in enumerate(search.ranks):
        hashes = np.array(np.load(search.bands(shard), mmap_mode="r")[task])
        rows = np.flatnonzero(hashes)
        members = np.empty(len(rows), _MEMBER)
        members["band"], members["row"], members["rank"] = hashes[rows], search.drops.starts[shard] + rows, np.load(ranks)[rows, -1]
        parts.add(members["band"] % np.uint64(parts.count), members)
        meter.add(len(hashes))
    temporary = unique_temporary(final)
    with open(temporary, "wb") as file:
        for part in range(parts.count):
            for block in parts.blocks(part):
                for pairs in _near(block, signatures, search.config.near_duplicate_similarity):
                    pairs.tofile(file)
            parts.remove(part)
    temporary.replace(final)
    work.rmdir()


def _near(members: Members, signatures: _Signatures, similarity: float) -> Iterator[Pairs]:
    """Among rows of the same hash: each with the first of the best ones that it is near to."""
    members = members[np.lexsort((members["row"], ~members["rank"], members["band"]))]
    for _ in range(BEST_COMPARED):
        begins = np.ones(len(members), bool)
        begins[1:] = members["band"][1:] != members["band"][:-1]
        best = members["row"][np.maximum.accumulate(np.where(begins, np.arange(len(members)), 0))]
        members, best = members[~begins], best[~begins]
        if not len(members):
            return
        shared = signatures.shared(members["row"], best)
        near = shared >= similarity * HASHES
        yield np.stack([members["row"], best, shared], axis=1)[near]
        members = members[~near]
